import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, test } from "node:test";
import { testNode } from "../dataplane/node.testing.ts";
import { AutodetectError } from "../dataplane/autodetect.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { node as nodeKind } from "../resources/node.ts";
import { readConfig } from "./config.ts";
import { findNodeAddress } from "./nodeAddress.io.ts";

/** A machine with two networks and two addresses on one of them, and the Node of it. */
function machine() {
  const it = testNode();
  for (const words of [
    "addr add 192.0.2.8/26 dev br0",
    "addr add 10.9.0.7/24 dev br0",
    "link add br1 type bridge",
    "link set br1 up",
    "addr add 198.51.100.7/24 dev br1",
    "route add 10.1.0.0/16 via 10.9.0.1",
    "route add 10.2.0.0/16 via 198.51.100.1",
    "route add 10.3.0.0/16 via 192.0.2.1 src 192.0.2.8",
    "route add unreachable 10.4.0.0/16",
  ]) {
    it.ip(...words.split(" "));
  }
  const self = nodeKind.parse({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "node1" },
    status: {
      addresses: [
        { type: "Hostname", address: "node1" },
        { type: "InternalIP", address: "192.0.2.8" },
      ],
    },
  });
  const find = (environment: Readonly<Record<string, string>>, family: 4 | 6 = 4): string => {
    const found = findNodeAddress(readConfig(environment, "node1").address[family], family, it.rtnetlink, self);
    return found === undefined ? "none" : `${formatPrefix(found.address)}: ${found.reason}`;
  };
  /** What the kernel itself says. */
  const sourceTo = (destination: string): string =>
    /src (\S+)/.exec(
      execFileSync("ip", ["netns", "exec", it.name, "ip", "route", "get", destination], { encoding: "utf8" }),
    )![1]!;
  return { it, find, sourceTo };
}

describe("a node's address", () => {
  test("is found on a real machine by each method", () => {
    const { it, find } = machine();
    using _node = it;
    assert.equal(find({}), "198.51.100.7/24: first address found, on br1");
    assert.equal(find({ IP_AUTODETECTION_METHOD: "interface=br0" }), "192.0.2.7/26: br0 matches interface=br0");
    assert.equal(
      find({ IP_AUTODETECTION_METHOD: "cidr=10.0.0.0/8" }),
      "10.9.0.7/24: 10.9.0.7/24 lies in cidr=10.0.0.0/8",
    );
    assert.equal(
      find({ IP_AUTODETECTION_METHOD: "kubernetes-internal-ip" }),
      "192.0.2.8/26: it is the Kubernetes Node's InternalIP",
    );
    assert.equal(find({ IP6: "autodetect" }, 6), "2001:db8::7/64: first address found, on br0");
    assert.equal(find({}, 6), "none");
    assert.equal(find({ IP: "192.0.2.8" }), "192.0.2.8/26: it is given by the environment");
    assert.equal(find({ IP: "203.0.113.7" }), "203.0.113.7/32: it is given by the environment");
    it.ip("link", "set", "br1", "down");
    assert.equal(find({}), "192.0.2.7/26: first address found, on br0");
  });

  test("towards a destination is the one that the kernel takes", () => {
    const { it, find, sourceTo } = machine();
    using _node = it;
    for (const destination of [
      "9.9.9.9",
      "192.0.2.9",
      "198.51.100.9",
      "10.1.0.1",
      "10.2.0.1",
      "10.3.0.1",
      "10.9.0.1",
      "2001:db8:7::1",
    ]) {
      const family = destination.includes(":") ? 6 : 4;
      const variable = family === 4 ? "IP_AUTODETECTION_METHOD" : "IP6_AUTODETECTION_METHOD";
      const found = find({ IP6: "autodetect", [variable]: `can-reach=${destination}` }, family);
      assert.equal(found.slice(0, found.indexOf("/")), sourceTo(destination), destination);
    }
    assert.throws(() => find({ IP_AUTODETECTION_METHOD: "can-reach=10.4.0.1" }), AutodetectError);
  });
});

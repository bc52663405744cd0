import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { openArpTable } from "./arpTable.io.ts";
import { content, nft } from "./nftListing.testing.ts";
import { until } from "./nftNode.testing.ts";

describe("the host's answers to ARP", () => {
  test("do not tell a workload that somebody else has its address", () => {
    using node = temporaryNamespace();
    using pod = temporaryNamespace();
    inside(node.name, "ip", "link", "add", "cali1", "type", "veth", "peer", "name", "eth0", "netns", pod.name);
    inside(node.name, "ip", "link", "set", "cali1", "up");
    inside(pod.name, "ip", "link", "set", "eth0", "up");
    inside(pod.name, "ip", "address", "add", "10.65.0.9/32", "dev", "eth0");
    inside(pod.name, "ip", "route", "add", "169.254.1.1", "dev", "eth0");
    inside(node.name, "ip", "address", "add", "192.0.2.1/24", "dev", "lo");
    inside(node.name, "ip", "route", "add", "10.65.0.0/16", "dev", "lo");
    inside(node.name, "ip", "route", "add", "10.65.0.9", "dev", "cali1");
    inside(node.name, "ip", "route", "add", "default", "dev", "lo");
    inNamespace(node.path, () => {
      writeSysctl("ipv4/ip_forward", 1);
      writeSysctl("ipv4/conf/cali1/proxy_arp", 1);
      writeSysctl("ipv4/conf/cali1/rp_filter", 0);
      writeSysctl("ipv4/conf/all/rp_filter", 0);
      writeSysctl("ipv4/neigh/cali1/proxy_delay", 0);
    });
    /** Whether the host says that it has the address. */
    const answers = (address: string): boolean => {
      inside(pod.name, "ip", "neigh", "flush", "dev", "eth0");
      inside(pod.name, "ip", "route", "replace", address, "dev", "eth0");
      try {
        inside(pod.name, "ping", "-c", "1", "-W", "0.2", "-I", "eth0", address);
      } catch {
        // Only who answered ARP matters.
      }
      return inside(pod.name, "ip", "neigh", "show", address).includes("lladdr");
    };
    assert.deepEqual([answers("169.254.1.1"), answers("10.65.0.2")], [true, true]);
    const arp = openArpTable({ namespace: node.path });
    try {
      arp.apply(new Map([["cali1", ["10.65.0.2", "fd00::2"]]]));
      assert.deepEqual([answers("169.254.1.1"), answers("10.65.0.2"), answers("10.65.0.3")], [true, false, true]);
      arp.apply(new Map([["cali1", ["10.65.0.3"]]]));
      assert.deepEqual([answers("10.65.0.2"), answers("10.65.0.3")], [true, false]);
      arp.apply(new Map([["cali1", undefined]]));
      assert.equal(answers("10.65.0.3"), true);
      arp.remove();
      assert.deepEqual(content(node.name), []);
    } finally {
      arp.close();
    }
  });

  test("are kept so, and found again", async () => {
    using node = temporaryNamespace();
    const workloads = new Map([
      ["cali1", ["10.65.0.2"]],
      ["cali2", ["10.65.0.3", "10.65.0.4"]],
    ]);
    const repaired: (readonly string[])[] = [];
    const open = () => openArpTable({ namespace: node.path, onRepaired: (what) => repaired.push(what) });
    const first = open();
    first.apply(workloads);
    const before = content(node.name);
    nft(node.name, "flush ruleset\n");
    await until(() => assert.deepEqual(content(node.name), before));
    assert.deepEqual(repaired, [["table arp calico-arp was gone"]]);
    first.close();
    const second = open();
    second.apply(new Map([["cali2", ["10.65.0.3"]]]));
    assert.deepEqual(await second.check(), []);
    assert.deepEqual(
      content(node.name)
        .map((block) => /elements = \{([^}]*)\}/.exec(block)?.[1]?.trim())
        .filter((text) => text !== undefined),
      ['"cali2" . 10.65.0.3'],
    );
    second.close();
  });
});

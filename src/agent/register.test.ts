import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { parseAddress } from "../ip/address.ts";
import { openEndpointFiles } from "./register.io.ts";

const WEB: Endpoint = {
  containerId: "abc123",
  namespace: "default",
  pod: "web",
  podUid: "uid-1",
  podInterface: "eth0",
  hostInterface: "cali68caf03a5f4",
  mac: "02:00:00:00:00:01",
  mtu: 1450,
  addresses: ["10.65.0.1", "fd00:10:65::1"].map(parseAddress),
  netns: "/run/netns/pod",
  network: "k8s-pod-network",
};
const BARE: Endpoint = {
  containerId: "box",
  podInterface: "eth0",
  hostInterface: "calidddddddddd1",
  mac: "02:00:00:00:00:02",
  mtu: 1500,
  addresses: [parseAddress("10.65.0.2")],
  netns: "",
  network: "net",
};

function temporary(): { readonly path: string; [Symbol.dispose](): void } {
  const path = mkdtempSync(join(tmpdir(), "caracal-register-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

function open(directory: string) {
  const bad: string[] = [];
  return { bad, files: openEndpointFiles(directory, (path, reason) => bad.push(`${path}: ${reason}`)) };
}

describe("the register of endpoints", () => {
  test("is found again by the next agent, as it was", () => {
    using directory = temporary();
    const path = join(directory.path, "deeper", "endpoints");
    const { files } = open(path);
    files.add(WEB);
    files.add(BARE);
    const again = open(path);
    assert.deepEqual(
      again.files.list().toSorted((a, b) => a.mtu - b.mtu),
      [WEB, BARE],
    );
    assert.deepEqual(again.files.find("abc123", "eth0"), WEB);
    assert.equal(again.files.find("abc123", "eth1"), undefined);
    assert.deepEqual(again.files.findByHostInterface(BARE.hostInterface), BARE);
    assert.deepEqual(again.bad, []);
    again.files.remove(WEB);
    again.files.remove(WEB);
    assert.deepEqual(open(path).files.list(), [BARE]);
    assert.equal(again.files.findByHostInterface(WEB.hostInterface), undefined);
  });

  test("is for root's eyes, and leaves nothing half-written", () => {
    using directory = temporary();
    const path = join(directory.path, "endpoints");
    open(path).files.add(WEB);
    assert.equal(statSync(path).mode & 0o777, 0o700);
    const names = readdirSync(path);
    assert.equal(names.length, 1);
    assert.equal(statSync(join(path, names[0]!)).mode & 0o777, 0o600);
  });

  test("passes over what was half-written when an agent died, and clears it away", () => {
    using directory = temporary();
    open(directory.path).files.add(WEB);
    const [name] = readdirSync(directory.path);
    const text = readFileSync(join(directory.path, name!), "utf8");
    rmSync(join(directory.path, name!));
    for (let length = 0; length <= text.length; length += 40) {
      writeFileSync(join(directory.path, `.${name}`), text.slice(0, length));
      const { files, bad } = open(directory.path);
      assert.deepEqual(files.list(), []);
      assert.deepEqual(bad, []);
      assert.deepEqual(readdirSync(directory.path), []);
    }
  });

  test("tells of a file that it cannot read, leaves it there, and knows the others", () => {
    const texts = [
      "",
      "{",
      "[]",
      "null",
      JSON.stringify({ ...WEB, addresses: ["10.65.0.300"] }),
      JSON.stringify({ ...WEB, addresses: "10.65.0.1" }),
      JSON.stringify({ ...WEB, addresses: [], mtu: "1450" }),
      JSON.stringify({ ...WEB, addresses: [], containerId: undefined }),
    ];
    for (const text of texts) {
      using directory = temporary();
      open(directory.path).files.add(BARE);
      const path = join(directory.path, "broken:eth0");
      writeFileSync(path, text);
      const { files, bad } = open(directory.path);
      assert.deepEqual(files.list(), [BARE]);
      assert.equal(bad.length, 1, text);
      assert.match(bad.join(), /^\/.*broken:eth0: .{5,}$/);
      assert.equal(readFileSync(path, "utf8"), text);
    }
    using directory = temporary();
    mkdirSync(join(directory.path, "folder"));
    assert.match(open(directory.path).bad.join(), /folder: EISDIR/);
  });

  test("gives a host interface to who had it last", () => {
    using directory = temporary();
    const { files } = open(directory.path);
    const newer = { ...WEB, containerId: "def456" };
    files.add(WEB);
    files.add(newer);
    files.remove(WEB);
    assert.deepEqual(files.findByHostInterface(WEB.hostInterface), newer);
    assert.deepEqual(files.list(), [newer]);
  });

  test("does not confuse names with dots", () => {
    using directory = temporary();
    const { files } = open(directory.path);
    const one = { ...BARE, containerId: "a.b", podInterface: "c", hostInterface: "cali1" };
    const other = { ...BARE, containerId: "a", podInterface: "b.c", hostInterface: "cali2" };
    files.add(one);
    files.add(other);
    assert.equal(readdirSync(directory.path).length, 2);
    files.remove(one);
    assert.deepEqual(open(directory.path).files.list(), [other]);
  });
});

import assert from "node:assert/strict";
import { closeSync, existsSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { toHex } from "../lib/bytes.ts";
import {
  attachedTo,
  attachProgram,
  createMap,
  deleteEntry,
  getEntry,
  keysOf,
  loadProgram,
  replaceProgram,
  runProgram,
  setEntry,
  shapeOf,
} from "./bpf.io.ts";
import { exit, load, move, r0, r10 } from "./bpf.ts";
import { attachmentPin, openPins, removePins } from "./bpfPins.io.ts";
import { inNamespace, namespaceInode } from "./namespace.io.ts";
import { temporaryNamespace } from "./namespace.testing.ts";
import { openRtnetlink } from "./rtnetlink.io.ts";

const DROP = [move(r0, 2), exit];
const PASS = [move(r0, 0), exit];
const key = (...bytes: number[]): Uint8Array => Uint8Array.from(bytes);

describe("maps", () => {
  const shapes = [
    { type: "hash", keySize: 4, valueSize: 8, entries: 16 },
    { type: "array", keySize: 4, valueSize: 8, entries: 4 },
    { type: "prefixTrie", keySize: 8, valueSize: 4, entries: 16 },
  ] as const;
  for (const shape of shapes) {
    test(`a map is what was asked for: ${shape.type}`, () => {
      const fd = createMap("test", shape);
      assert.deepEqual(shapeOf(fd), shape);
      closeSync(fd);
    });
  }

  test("entries are written, read, listed and deleted", () => {
    const fd = createMap("test", shapes[0]);
    assert.equal(getEntry(fd, key(1, 2, 3, 4), 8), undefined);
    setEntry(fd, key(1, 2, 3, 4), key(1, 0, 0, 0, 0, 0, 0, 9));
    setEntry(fd, key(5, 6, 7, 8), key(2, 0, 0, 0, 0, 0, 0, 0));
    assert.equal(toHex(getEntry(fd, key(1, 2, 3, 4), 8)!), "0100000000000009");
    assert.deepEqual(keysOf(fd, 4).map(toHex).toSorted(), ["01020304", "05060708"]);
    assert.ok(deleteEntry(fd, key(1, 2, 3, 4)));
    assert.ok(!deleteEntry(fd, key(1, 2, 3, 4)));
    assert.deepEqual(keysOf(fd, 4).map(toHex), ["05060708"]);
    closeSync(fd);
  });

  test("a trie finds the longest prefix", () => {
    const fd = createMap("test", shapes[2]);
    setEntry(fd, key(8, 0, 0, 0, 10, 0, 0, 0), key(8, 0, 0, 0));
    setEntry(fd, key(24, 0, 0, 0, 10, 65, 1, 0), key(24, 0, 0, 0));
    const find = (...address: number[]): number | undefined => getEntry(fd, key(32, 0, 0, 0, ...address), 4)?.[0];
    assert.deepEqual([find(10, 65, 1, 7), find(10, 65, 2, 7), find(192, 0, 2, 1)], [24, 8, undefined]);
    closeSync(fd);
  });
});

describe("programs", () => {
  test("one runs on a packet", () => {
    const program = loadProgram("drop", DROP, {});
    assert.equal(runProgram(program, new Uint8Array(64)).verdict, 2);
    closeSync(program);
  });

  test("what the verifier refuses is said with its reasons", () => {
    assert.throws(
      () => loadProgram("bad", [load(4, r0, r10, 8), exit], {}),
      /^Failure: Cannot load BPF program bad: the kernel refuses it \(EACCES\):\n[^]*invalid read from stack/,
    );
    assert.throws(() => loadProgram("bad", [move(r0, 0)], {}), /Cannot load BPF program bad/);
  });
});

describe("attachments", () => {
  let node: ReturnType<typeof temporaryNamespace>;
  before(() => {
    node = temporaryNamespace();
  });
  after(() => node[Symbol.dispose]());

  test("a program is attached, replaced, kept by its pin, and gone with its link", async () => {
    const { path } = node;
    const links = openRtnetlink(path);
    const device = links.addLink({ kind: "veth", name: "a", peer: { name: "b" } }).index;
    const programs = [loadProgram("drop", DROP, {}), loadProgram("pass", PASS, {})] as const;
    const name = attachmentPin("ingress");
    const first = inNamespace(path, () => attachProgram(programs[0], device, "ingress"));
    openPins(path).set(name, first);
    closeSync(first);

    const pins = openPins(path);
    const kept = pins.open(name);
    assert.ok(kept !== undefined);
    assert.equal(attachedTo(kept), device);
    replaceProgram(kept, programs[1]);
    assert.deepEqual([pins.names(), pins.open("other")], [[name], undefined]);

    const directory = `/sys/fs/bpf/caracal/${namespaceInode(path)}`;
    using other = temporaryNamespace();
    openPins(other.path);
    assert.ok(existsSync(directory), "its link is there");
    links.deleteLink(device);
    assert.equal(attachedTo(kept), undefined);
    openPins(other.path);
    assert.ok(!existsSync(directory), "what a node has left that is gone is taken away by the next");
    links.close();
    for (const fd of [kept, ...programs]) closeSync(fd);
  });

  test("pins are taken away with all that they keep", () => {
    const pins = openPins(node.path);
    const fd = createMap("test", { type: "hash", keySize: 4, valueSize: 4, entries: 1 });
    pins.set("map", fd);
    pins.set("map", fd);
    assert.deepEqual(pins.names(), ["map"]);
    pins.remove("map");
    pins.remove("map");
    pins.set("map", fd);
    pins.clear();
    assert.deepEqual(pins.names(), []);
    pins.set("map", fd);
    assert.deepEqual(pins.names(), ["map"], "and can be set again");
    removePins(node.path);
    assert.deepEqual(openPins(node.path).names(), []);
    removePins(node.path);
    removePins(node.path);
    closeSync(fd);
  });
});

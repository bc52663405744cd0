import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { toHex } from "../lib/bytes.ts";
import {
  add,
  assemble,
  bigEndian,
  call,
  exit,
  type Instruction,
  jump,
  label,
  load,
  map,
  move,
  r0,
  r1,
  r10,
  r2,
  r6,
  r7,
  store,
} from "./bpf.ts";

/** What `llvm-mc -triple=bpfel --show-encoding` gives for the same instructions. */
const rows: { assembly: string; instruction: Instruction; bytes: string }[] = [
  { assembly: "r0 = 2", instruction: move(r0, 2), bytes: "b700000002000000" },
  { assembly: "r0 = -1", instruction: move(r0, -1), bytes: "b7000000ffffffff" },
  { assembly: "r6 = r1", instruction: move(r6, r1), bytes: "bf16000000000000" },
  { assembly: "r2 += -8", instruction: add(r2, -8), bytes: "07020000f8ffffff" },
  { assembly: "r0 += r1", instruction: add(r0, r1), bytes: "0f10000000000000" },
  { assembly: "r2 = be16 r2", instruction: bigEndian(r2, 16), bytes: "dc02000010000000" },
  { assembly: "r2 = *(u32 *)(r6 + 76)", instruction: load(4, r2, r6, 76), bytes: "61624c0000000000" },
  { assembly: "r7 = *(u8 *)(r2 + 1)", instruction: load(1, r7, r2, 1), bytes: "7127010000000000" },
  { assembly: "r7 = *(u16 *)(r2 + 6)", instruction: load(2, r7, r2, 6), bytes: "6927060000000000" },
  { assembly: "r7 = *(u64 *)(r2 + 0)", instruction: load(8, r7, r2, 0), bytes: "7927000000000000" },
  { assembly: "*(u32 *)(r10 - 4) = r7", instruction: store(4, r10, -4, r7), bytes: "637afcff00000000" },
  { assembly: "*(u64 *)(r10 - 8) = 0", instruction: store(8, r10, -8, 0), bytes: "7a0af8ff00000000" },
  { assembly: "*(u8 *)(r10 - 20) = 69", instruction: store(1, r10, -20, 69), bytes: "720aecff45000000" },
  { assembly: "call 1", instruction: call(1), bytes: "8500000001000000" },
  { assembly: "exit", instruction: exit, bytes: "9500000000000000" },
];

describe("the bytes of an instruction", () => {
  for (const { assembly, instruction, bytes } of rows) {
    test(assembly, () => assert.equal(toHex(assemble([instruction], {})), bytes));
  }
  test("a map takes two, and is its descriptor", () => {
    assert.equal(toHex(assemble([map(r1, "peers")], { peers: 7 })), "18110000070000000000000000000000");
  });
});

describe("jumps", () => {
  const offsets = (program: Instruction[]): number[] => {
    const bytes = assemble(program, { peers: 1 });
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 8 }, (_, index) => view.getInt16(index * 8 + 2, true));
  };
  test("forward, over a map, which counts twice", () => {
    assert.deepEqual(offsets([jump("end", r0, "==", 0), map(r1, "peers"), label("end"), exit]), [2, 0, 0, 0]);
  });
  test("back", () => {
    assert.deepEqual(offsets([label("start"), move(r0, 0), jump("start")]), [0, -2]);
  });
  const conditions = [
    { when: [r2, "==", r7] as const, opcode: "1d72" },
    { when: [r2, "!=", 8] as const, opcode: "5502" },
    { when: [r2, ">", r7] as const, opcode: "2d72" },
    { when: [r2, ">=", 8] as const, opcode: "3502" },
    { when: [r2, "<", r7] as const, opcode: "ad72" },
    { when: [r2, "<=", 8] as const, opcode: "b502" },
    { when: [r2, "&", 8] as const, opcode: "4502" },
  ];
  for (const { when, opcode } of conditions) {
    test(`where r2 ${when[1]} ${typeof when[2] === "number" ? when[2] : "r7"}`, () => {
      assert.equal(toHex(assemble([jump("end", ...when), label("end")], {})).slice(0, 4), opcode);
    });
  }
});

describe("what cannot be assembled", () => {
  test("a label that is not there", () => {
    assert.throws(() => assemble([jump("nowhere")], {}), /no label "nowhere"/);
  });
  test("a label that stands twice", () => {
    assert.throws(() => assemble([label("here"), label("here")], {}), /"here" stands twice/);
  });
  test("a map that is not there", () => {
    assert.throws(() => assemble([map(r1, "peers")], {}), /no map "peers"/);
  });
});

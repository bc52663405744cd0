import { ByteWriter } from "../lib/bytes.ts";
import { Failure } from "../lib/errors.ts";

/**
 * A small assembler for eBPF (RFC 9669): a program is a list of instructions as plain data, with labels to jump to and
 * maps by name, and `assemble` makes of it the bytes that bpf(2) loads.
 */

/** r0 is what a call returns, r1 to r5 are its arguments and lost by it, r6 to r9 are kept, r10 is the stack's end. */
export interface Register {
  readonly register: number;
}
export const [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10] = Array.from({ length: 11 }, (_, register) => ({
  register,
})) as unknown as readonly [
  ...[Register, Register, Register, Register, Register],
  ...[Register, Register, Register, Register, Register, Register],
];

/** A register, or a number of 32 bits that is extended with its sign. */
type Operand = Register | number;

/** RFC 9669 section 4.1. */
const ARITHMETIC = {
  add: 0x00,
  subtract: 0x10,
  or: 0x40,
  and: 0x50,
  shiftLeft: 0x60,
  shiftRight: 0x70,
  xor: 0xa0,
  move: 0xb0,
} as const;
/** RFC 9669 section 4.3; comparisons are unsigned. */
const CONDITIONS = { "==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xa0, "<=": 0xb0 } as const;
/** RFC 9669 section 5.1: bytes of a load or store. */
const SIZES = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 } as const;

export type Condition = keyof typeof CONDITIONS;
export type Size = keyof typeof SIZES;

export type Instruction =
  | {
      readonly kind: "arithmetic";
      readonly operation: keyof typeof ARITHMETIC;
      readonly to: Register;
      readonly by: Operand;
    }
  | { readonly kind: "bigEndian"; readonly to: Register; readonly bits: 16 | 32 | 64 }
  | {
      readonly kind: "load";
      readonly size: Size;
      readonly to: Register;
      readonly base: Register;
      readonly offset: number;
    }
  | {
      readonly kind: "store";
      readonly size: Size;
      readonly base: Register;
      readonly offset: number;
      readonly value: Operand;
    }
  | { readonly kind: "jump"; readonly label: string; readonly when?: readonly [Register, Condition, Operand] }
  | { readonly kind: "map"; readonly to: Register; readonly name: string }
  | { readonly kind: "call"; readonly helper: number }
  | { readonly kind: "label"; readonly name: string }
  | { readonly kind: "exit" };

const arithmetic =
  (operation: keyof typeof ARITHMETIC) =>
  (to: Register, by: Operand): Instruction => ({ kind: "arithmetic", operation, to, by });

/** All of 64 bits: `to = by`, `to += by`… */
export const move = arithmetic("move");
export const add = arithmetic("add");
export const subtract = arithmetic("subtract");
export const and = arithmetic("and");
export const or = arithmetic("or");
export const xor = arithmetic("xor");
export const shiftRight = arithmetic("shiftRight");

/** Turns the low bits from the host's byte order into the network's or back, and clears the others. */
export const bigEndian = (to: Register, bits: 16 | 32 | 64): Instruction => ({ kind: "bigEndian", to, bits });

/** `to = *(base + offset)`, of so many bytes. */
export const load = (size: Size, to: Register, base: Register, offset: number): Instruction => ({
  kind: "load",
  size,
  to,
  base,
  offset,
});

/** `*(base + offset) = value`. */
export const store = (size: Size, base: Register, offset: number, value: Operand): Instruction => ({
  kind: "store",
  size,
  base,
  offset,
  value,
});

/** Goes on at the label: always, or when the comparison holds. `&` holds where the two have a bit in common. */
export const jump = (label: string, ...when: [] | [Register, Condition, Operand]): Instruction =>
  when.length === 0 ? { kind: "jump", label } : { kind: "jump", label, when };

/** The map of this name, as helpers want it. */
export const map = (to: Register, name: string): Instruction => ({ kind: "map", to, name });
export const call = (helper: number): Instruction => ({ kind: "call", helper });
export const label = (name: string): Instruction => ({ kind: "label", name });
export const exit: Instruction = { kind: "exit" };

/** Numbers of the kernel's helper functions: enum bpf_func_id of <linux/bpf.h>. */
export const HELPER = {
  mapLookup: 1,
  randomU32: 7,
  skbStoreBytes: 9,
  l3ChecksumReplace: 10,
  redirect: 23,
  checksumDifference: 28,
  skbPullData: 39,
  skbChangeHead: 43,
  skbAdjustRoom: 50,
  fibLookup: 69,
  redirectNeighbour: 152,
} as const;

/** Instruction classes (RFC 9669 section 3.2), and the bit that says that the operand is a register. */
const CLASS = {
  load: 0x00,
  loadRegister: 0x01,
  store: 0x02,
  storeRegister: 0x03,
  jump: 0x05,
  arithmetic64: 0x07,
} as const;
const FROM_REGISTER = 0x08;
const MEMORY = 0x60;

/**
 * The bytes of the program, each instruction in eight:
 *
 *      0        1            2               4               8
 *     +--------+-----+------+---------------+---------------+
 *     | opcode | dst | src  | offset        | immediate     |
 *     +--------+-----+------+---------------+---------------+
 *
 * `maps` has the descriptor of every map that the program names. Throws `Failure` for a label or map that is not there.
 */
export function assemble(program: readonly Instruction[], maps: Readonly<Record<string, number>>): Uint8Array {
  const places = new Map<string, number>();
  let length = 0;
  for (const instruction of program) {
    if (instruction.kind === "label") {
      if (places.has(instruction.name)) throw new Failure("bad-program", `Label "${instruction.name}" stands twice`);
      places.set(instruction.name, length);
    } else length += instruction.kind === "map" ? 2 : 1;
  }
  const writer = new ByteWriter(length * 8);
  const emit = (opcode: number, to: number, from: number, offset: number, immediate: number): void => {
    writer.u8(opcode);
    writer.u8(to | (from << 4));
    writer.u16le(offset & 0xffff);
    writer.u32le(immediate >>> 0);
  };
  const withOperand = (opcode: number, to: number, offset: number, operand: Operand): void => {
    if (typeof operand === "number") emit(opcode, to, 0, offset, operand);
    else emit(opcode | FROM_REGISTER, to, operand.register, offset, 0);
  };
  for (const each of program) {
    switch (each.kind) {
      case "arithmetic":
        withOperand(CLASS.arithmetic64 | ARITHMETIC[each.operation], each.to.register, 0, each.by);
        break;
      case "bigEndian":
        emit(0xdc, each.to.register, 0, 0, each.bits);
        break;
      case "load":
        emit(CLASS.loadRegister | MEMORY | SIZES[each.size], each.to.register, each.base.register, each.offset, 0);
        break;
      case "store": {
        const { value, base, offset } = each;
        const mode = MEMORY | SIZES[each.size];
        if (typeof value === "number") emit(CLASS.store | mode, base.register, 0, offset, value);
        else emit(CLASS.storeRegister | mode, base.register, value.register, offset, 0);
        break;
      }
      case "jump": {
        const target = places.get(each.label);
        if (target === undefined) throw new Failure("bad-program", `There is no label "${each.label}" to jump to`);
        const offset = target - writer.length / 8 - 1;
        if (each.when === undefined) emit(CLASS.jump, 0, 0, offset, 0);
        else withOperand(CLASS.jump | CONDITIONS[each.when[1]], each.when[0].register, offset, each.when[2]);
        break;
      }
      case "map": {
        const descriptor = maps[each.name];
        if (descriptor === undefined) throw new Failure("bad-program", `There is no map "${each.name}"`);
        // A load of 64 bits takes two instructions; source 1 (BPF_PSEUDO_MAP_FD) makes the kernel put the map in.
        emit(0x18, each.to.register, 1, 0, descriptor);
        emit(0, 0, 0, 0, 0);
        break;
      }
      case "call":
        emit(0x85, 0, 0, 0, each.helper);
        break;
      case "exit":
        emit(0x95, 0, 0, 0, 0);
        break;
      case "label":
        break;
    }
  }
  return writer.finish();
}

import { codeOf, Failure } from "../lib/errors.ts";
import { assemble, type Instruction } from "./bpf.ts";
import { addressOf, bpf } from "./ffi.io.ts";

/**
 * Maps, programs and their attachments to links, through bpf(2). What it gives are file descriptors: the kernel keeps an
 * object for as long as a descriptor is open, a pin names it or another object uses it.
 */

/** enum bpf_cmd of <linux/bpf.h>. */
const COMMAND = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  mapNextKey: 4,
  programLoad: 5,
  objectPin: 6,
  objectGet: 7,
  programTestRun: 10,
  objectInfo: 15,
  linkCreate: 28,
  linkUpdate: 29,
} as const;

/** enum bpf_map_type. */
const MAP_TYPES = { hash: 1, array: 2, perCpuArray: 6, prefixTrie: 11 } as const;
const NO_PREALLOC = 1; // BPF_F_NO_PREALLOC, which a trie insists on

/** BPF_PROG_TYPE_SCHED_CLS: programs that look at packets where a link takes them in or sends them out. */
const SCHEDULER_CLASSIFIER = 3;
/** BPF_TCX_INGRESS and BPF_TCX_EGRESS of enum bpf_attach_type. */
const ATTACH = { ingress: 46, egress: 47 } as const;
export type Direction = keyof typeof ATTACH;

/** What a map is; two are the same where all of this is. Sizes in bytes. */
export interface MapShape {
  readonly type: keyof typeof MAP_TYPES;
  readonly keySize: number;
  readonly valueSize: number;
  readonly entries: number;
}

/** Fills in the attribute structure of a command by offset; `point` writes the address of bytes. */
type Fill = (view: DataView, point: (offset: number, bytes: Uint8Array) => void) => void;

function request(command: number, size: number, attempt: () => string, fill: Fill): Returned {
  const attributes = new Uint8Array(size);
  const view = new DataView(attributes.buffer);
  const pointed: Uint8Array[] = [];
  fill(view, (offset, bytes) => {
    pointed.push(bytes);
    view.setBigUint64(offset, addressOf(bytes), true);
  });
  return { value: bpf(command, attributes, pointed, attempt), view };
}

interface Returned {
  /** A descriptor, of the commands that make one. */
  readonly value: number;
  /** The structure, where the kernel may have written results. */
  readonly view: DataView;
}

/** Object names have 15 letters, digits, dots and underscores. */
function setName(view: DataView, offset: number, name: string): void {
  new TextEncoder().encodeInto(name.slice(0, 15), new Uint8Array(view.buffer, offset, 16));
}

export function createMap(name: string, shape: MapShape): number {
  const { type, keySize, valueSize, entries } = shape;
  const flags = type === "hash" || type === "prefixTrie" ? NO_PREALLOC : 0;
  return request(
    COMMAND.mapCreate,
    72,
    () => `make BPF map ${name}`,
    (view) => {
      for (const [index, value] of [MAP_TYPES[type], keySize, valueSize, entries, flags].entries())
        view.setUint32(index * 4, value, true);
      setName(view, 28, name);
    },
  ).value;
}

/** The shape of a map that somebody made; undefined for a type that is not used here. */
export function shapeOf(fd: number): MapShape | undefined {
  // struct bpf_map_info: type, id, key_size, value_size, max_entries
  const info = objectInfo(fd, 24, "map");
  const number = info.getUint32(0, true);
  const type = (Object.keys(MAP_TYPES) as (keyof typeof MAP_TYPES)[]).find((name) => MAP_TYPES[name] === number);
  if (type === undefined) return undefined;
  return {
    type,
    keySize: info.getUint32(8, true),
    valueSize: info.getUint32(12, true),
    entries: info.getUint32(16, true),
  };
}

function objectInfo(fd: number, size: number, what: string): DataView {
  const info = new Uint8Array(size);
  request(
    COMMAND.objectInfo,
    16,
    () => `read what BPF ${what} ${fd} is`,
    (view, point) => {
      view.setUint32(0, fd, true);
      view.setUint32(4, size, true);
      point(8, info);
    },
  );
  return new DataView(info.buffer);
}

function element(command: number, fd: number, key: Uint8Array, value: Uint8Array | undefined, verb: string): void {
  request(
    command,
    32,
    () => `${verb} an entry of BPF map ${fd}`,
    (view, point) => {
      view.setUint32(0, fd, true);
      point(8, key);
      if (value !== undefined) point(16, value);
    },
  );
}

export function setEntry(fd: number, key: Uint8Array, value: Uint8Array): void {
  element(COMMAND.mapUpdate, fd, key, value, "write");
}

/** Undefined where the map has no such key. `valueSize` of a map per processor is that of all processors together. */
export function getEntry(fd: number, key: Uint8Array, valueSize: number): Uint8Array | undefined {
  const value = new Uint8Array(valueSize);
  return found(() => element(COMMAND.mapLookup, fd, key, value, "read")) ? value : undefined;
}

/** Says whether it was there. */
export function deleteEntry(fd: number, key: Uint8Array): boolean {
  return found(() => element(COMMAND.mapDelete, fd, key, undefined, "delete"));
}

/** Every key, in the kernel's order. */
export function keysOf(fd: number, keySize: number): Uint8Array[] {
  const keys: Uint8Array[] = [];
  const advance = (next: Uint8Array): boolean =>
    found(() =>
      request(
        COMMAND.mapNextKey,
        32,
        () => `list the keys of BPF map ${fd}`,
        (view, point) => {
          const last = keys.at(-1);
          view.setUint32(0, fd, true);
          if (last !== undefined) point(8, last);
          point(16, next);
        },
      ),
    );
  for (;;) {
    const next = new Uint8Array(keySize);
    if (!advance(next)) return keys;
    keys.push(next);
  }
}

function found(work: () => unknown): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}

const LICENSE = Uint8Array.from([0x47, 0x50, 0x4c, 0]); // "GPL", which some helpers ask for
const LOG_SIZE = 1 << 20;
/** The last lines of the verifier's log say why; before them stands all that it found to be right. */
const LOG_LINES = 12;

/**
 * Loads a program for packets. Throws `Failure` with what the verifier said, if it refuses. `maps` has the descriptor of
 * each map that the program names.
 */
export function loadProgram(
  name: string,
  program: readonly Instruction[],
  maps: Readonly<Record<string, number>>,
): number {
  const code = assemble(program, maps);
  const attempt = (log?: Uint8Array): number =>
    request(
      COMMAND.programLoad,
      128,
      () => `load BPF program ${name}`,
      (view, point) => {
        view.setUint32(0, SCHEDULER_CLASSIFIER, true);
        view.setUint32(4, code.length / 8, true);
        point(8, code);
        point(16, LICENSE);
        if (log !== undefined) {
          view.setUint32(24, 1, true);
          view.setUint32(28, log.length, true);
          point(32, log);
        }
        setName(view, 48, name);
      },
    ).value;
  try {
    return attempt();
  } catch (error) {
    // Once more, for its reasons.
    const log = new Uint8Array(LOG_SIZE);
    try {
      return attempt(log);
    } catch (refusal) {
      const reason = codeOf(refusal) ?? "EINVAL";
      const text = new TextDecoder().decode(log.subarray(0, log.indexOf(0)));
      const lines = text.trim().split("\n").slice(-LOG_LINES).join("\n");
      throw new Failure(reason, `Cannot load BPF program ${name}: the kernel refuses it (${reason}):\n${lines}`, error);
    }
  }
}

/** Attaches the program to a link of the calling thread's namespace (TCX, Linux 6.6). */
export function attachProgram(program: number, device: number, direction: Direction): number {
  return request(
    COMMAND.linkCreate,
    64,
    () => `attach a BPF program to the ${direction} of link ${device}`,
    (view) => {
      view.setUint32(0, program, true);
      view.setUint32(4, device, true);
      view.setUint32(8, ATTACH[direction], true);
    },
  ).value;
}

/** Puts another program in the place of the attached one: no packet sees neither. */
export function replaceProgram(attachment: number, program: number): void {
  request(
    COMMAND.linkUpdate,
    64,
    () => `replace the program of BPF attachment ${attachment}`,
    (view) => {
      view.setUint32(0, attachment, true);
      view.setUint32(4, program, true);
    },
  );
}

/** Index of the link that the program is attached to; undefined where that link is gone. */
export function attachedTo(attachment: number): number | undefined {
  // struct bpf_link_info: type, id, prog_id, padding, then of TCX: ifindex, attach type
  const device = objectInfo(attachment, 64, "attachment").getUint32(16, true);
  return device === 0 ? undefined : device;
}

export function pin(fd: number, path: string): void {
  request(
    COMMAND.objectPin,
    24,
    () => `pin BPF object ${fd} to ${path}`,
    (view, point) => {
      point(0, pathBytes(path));
      view.setUint32(8, fd, true);
    },
  );
}

/** A descriptor of the object that is pinned there; undefined where nothing is. */
export function openPin(path: string): number | undefined {
  try {
    return request(
      COMMAND.objectGet,
      24,
      () => `open the BPF object that is pinned to ${path}`,
      (_, point) => point(0, pathBytes(path)),
    ).value;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

const pathBytes = (path: string): Uint8Array => new TextEncoder().encode(`${path}\0`);

export interface TestRun {
  /** What the program returned: TC_ACT_…, -1 to go on. */
  readonly verdict: number;
  /** The packet as it left it. */
  readonly packet: Uint8Array;
}

/** Runs the program on a packet (an Ethernet frame) that goes nowhere: BPF_PROG_TEST_RUN. */
export function runProgram(program: number, frame: Uint8Array): TestRun {
  const out = new Uint8Array(frame.length + 256);
  const { view: result } = request(
    COMMAND.programTestRun,
    80,
    () => `run BPF program ${program} on a test packet`,
    (view, point) => {
      view.setUint32(0, program, true);
      view.setUint32(8, frame.length, true);
      view.setUint32(12, out.length, true);
      point(16, frame);
      point(24, out);
      view.setUint32(32, 1, true);
    },
  );
  return { verdict: result.getInt32(4, true), packet: out.subarray(0, result.getUint32(12, true)) };
}

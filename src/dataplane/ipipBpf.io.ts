import { closeSync, readFileSync } from "node:fs";
import { fromHex, toHex } from "../lib/bytes.ts";
import { messageOf } from "../lib/errors.ts";
import {
  attachedTo,
  attachProgram,
  createMap,
  deleteEntry,
  type Direction,
  getEntry,
  keysOf,
  loadProgram,
  type MapShape,
  replaceProgram,
  setEntry,
  shapeOf,
} from "../netlink/bpf.io.ts";
import { attachmentPin, openPins, type Pins } from "../netlink/bpfPins.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { type Entries, ipipEntries, type IpipWish } from "./ipip.ts";
import { IPIP_COUNTERS, IPIP_MAPS, type IpipCounter } from "./ipipMaps.ts";
import { DECAPSULATE, ENCAPSULATE } from "./ipipPrograms.ts";

/**
 * The two programs of the IPIP tunnel, their maps and where they are attached. All of it is pinned: an agent that ends
 * leaves a tunnel that works, and the next takes it over, changes what differs, and puts its own programs in the place of
 * the old ones without a packet seeing neither.
 */
export interface IpipPrograms {
  /** Carries out the wish. `device` is the index of `tunl0`. Throws `Failure` where the kernel refuses. */
  apply(wish: IpipWish, device: number): void;
  counters(): Record<IpipCounter, number>;
  /** Undefined where all of it stays when the agent ends; otherwise why it does not. */
  notKept(): string | undefined;
  /** Takes the tunnel down. */
  remove(): void;
  /** Lets go, and changes nothing. */
  close(): void;
}

type MapName = keyof typeof IPIP_MAPS;
const MAP_NAMES = Object.keys(IPIP_MAPS) as MapName[];
const EGRESS = attachmentPin("egress");
const INGRESS = attachmentPin("ingress-");

export function openIpipPrograms(namespace?: string): IpipPrograms {
  let notKept: string | undefined;
  const pins = ((): Pins | undefined => {
    try {
      return openPins(namespace);
    } catch (error) {
      notKept = messageOf(error);
      return undefined;
    }
  })();
  /** Descriptors by the names of their pins: held also where there are no pins. */
  const held = new Map<string, number>();
  /** What the maps hold, in hex. */
  const contents = new Map<MapName, Map<string, string>>();
  let programs: { readonly [D in Direction]: number } | undefined;

  function keep(name: string, fd: number): number {
    held.set(name, fd);
    pins?.set(name, fd);
    return fd;
  }

  function drop(name: string): void {
    pins?.remove(name);
    const fd = held.get(name);
    held.delete(name);
    if (fd !== undefined) closeSync(fd);
  }

  /** The map of an earlier agent where it is of the same shape. */
  function mapOf(name: MapName): number {
    const present = held.get(name);
    if (present !== undefined) return present;
    const shape: MapShape = IPIP_MAPS[name];
    const found = pins?.open(name);
    if (found !== undefined && sameShape(shapeOf(found), shape)) {
      held.set(name, found);
      if (name !== "ipip_counters") contents.set(name, read(found, shape));
      return found;
    }
    if (found !== undefined) closeSync(found);
    contents.set(name, new Map());
    return keep(name, createMap(name, shape));
  }

  /** Additions and changes come before removals. */
  function fill(name: MapName, wanted: Entries): void {
    const fd = mapOf(name);
    const present = contents.get(name)!;
    for (const [id, { key, value }] of wanted) {
      const text = toHex(value);
      if (present.get(id) === text) continue;
      setEntry(fd, key, value);
      present.set(id, text);
    }
    for (const id of present.keys()) {
      if (wanted.has(id)) continue;
      deleteEntry(fd, fromHex(id));
      present.delete(id);
    }
  }

  function programOf(direction: Direction): number {
    programs ??= load();
    return programs[direction];
  }
  function load(): { readonly [D in Direction]: number } {
    const maps = Object.fromEntries(MAP_NAMES.map((name) => [name, mapOf(name)]));
    return {
      egress: loadProgram("ipip_egress", ENCAPSULATE, maps),
      ingress: loadProgram("ipip_ingress", DECAPSULATE, maps),
    };
  }

  function attach(name: string, device: number, direction: Direction): void {
    const own = held.get(name);
    if (own !== undefined) {
      if (attachedTo(own) === device) return;
      drop(name);
    }
    const found = pins?.open(name);
    if (found !== undefined) {
      if (attachedTo(found) === device) {
        replaceProgram(found, programOf(direction));
        held.set(name, found);
        return;
      }
      closeSync(found);
    }
    const program = programOf(direction);
    const enter =
      namespace === undefined ? (work: () => number) => work() : (work: () => number) => inNamespace(namespace, work);
    keep(
      name,
      enter(() => attachProgram(program, device, direction)),
    );
  }

  return {
    apply(wish, device) {
      const wanted = ipipEntries(wish, device);
      // The maps first: a program that knows no peers would drop what a restart must not lose.
      for (const [name, entries] of Object.entries(wanted)) fill(name as MapName, entries);
      attach(EGRESS, device, "egress");
      for (const underlay of wish.underlays) attach(`${INGRESS}${underlay}`, underlay, "ingress");
      const known = new Set([...held.keys(), ...(pins?.names() ?? [])].filter((name) => name.startsWith(INGRESS)));
      for (const name of known) {
        if (!wish.underlays.includes(Number(name.slice(INGRESS.length)))) drop(name);
      }
    },
    counters() {
      const fd = held.get("ipip_counters");
      const count = (index: number): number => (fd === undefined ? 0 : sum(fd, index));
      return Object.fromEntries(IPIP_COUNTERS.map((name, index) => [name, count(index)])) as Record<
        IpipCounter,
        number
      >;
    },
    notKept: () => notKept,
    remove() {
      for (const name of held.keys()) drop(name);
      pins?.clear();
      contents.clear();
      close();
    },
    close,
  };

  function close(): void {
    for (const fd of held.values()) closeSync(fd);
    held.clear();
    if (programs !== undefined) for (const fd of Object.values(programs)) closeSync(fd);
    programs = undefined;
  }
}

function sameShape(a: MapShape | undefined, b: MapShape): boolean {
  return (
    a !== undefined &&
    a.type === b.type &&
    a.keySize === b.keySize &&
    a.valueSize === b.valueSize &&
    a.entries === b.entries
  );
}

function read(fd: number, { keySize, valueSize }: MapShape): Map<string, string> {
  const contents = new Map<string, string>();
  for (const key of keysOf(fd, keySize)) {
    const value = getEntry(fd, key, valueSize);
    if (value !== undefined) contents.set(toHex(key), toHex(value));
  }
  return contents;
}

/** The kernel gives a number of 8 bytes for every processor that there may ever be. */
function sum(fd: number, index: number): number {
  const bytes = getEntry(fd, new Uint8Array(Uint32Array.of(index).buffer), possibleProcessors() * 8);
  if (bytes === undefined) return 0;
  return Number(new BigUint64Array(bytes.buffer).reduce((total, value) => total + value, 0n));
}

/** `0-3` in /sys/devices/system/cpu/possible is four. */
function possibleProcessors(): number {
  const text = readFileSync("/sys/devices/system/cpu/possible", "latin1").trim();
  const last = text.split(/[-,]/).at(-1);
  return Number(last ?? 0) + 1;
}

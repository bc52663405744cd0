import { type Address, addressToBytes, type Family } from "../ip/address.ts";
import type { Verdict } from "./nftData.ts";
import type { Expression } from "./nftExpression.ts";
import { hostBytes, portBytes } from "./nftKey.ts";
import type { NatOptions } from "./nftNat.ts";

/** What a rule does with a packet that matches, as the expressions that `nft` makes of the same words. */

/** The second of the registers of 16 bytes, which has room for an address beside the first. */
const FIRST = 0;
const SECOND = 4;

function decide(verdict: Verdict): Expression[] {
  return [{ kind: "immediate", into: "verdict", data: { verdict } }];
}

export const accept = (): Expression[] => decide({ kind: "accept" });
export const drop = (): Expression[] => decide({ kind: "drop" });
/** Goes on behind the jump that led to this chain. */
export const returnToCaller = (): Expression[] => decide({ kind: "return" });
export const jump = (chain: string): Expression[] => decide({ kind: "jump", chain });
/** A jump that does not come back here, but to the caller. */
export const goTo = (chain: string): Expression[] => decide({ kind: "goto", chain });

export const count = (): Expression[] => [{ kind: "counter", packets: 0, bytes: 0 }];

/** The counter of that name in the rule's table. */
export const countAs = (name: string): Expression[] => [{ kind: "objref", type: "counter", name }];

/** Changes those bits of the packet's mark that the mask has. */
export function setMark(value: number, mask: number): Expression[] {
  return [
    ...changed({ kind: "meta", key: "mark", into: FIRST }, value, mask),
    { kind: "setMeta", key: "mark", from: FIRST },
  ];
}

/** Of the connection, as `setMark`. */
export function setConnectionMark(value: number, mask: number): Expression[] {
  return [
    ...changed({ kind: "ct", key: "mark", into: FIRST }, value, mask),
    { kind: "setCt", key: "mark", from: FIRST },
  ];
}

/** The connection keeps the packet's mark. */
export function saveMark(): Expression[] {
  return [
    { kind: "meta", key: "mark", into: FIRST },
    { kind: "setCt", key: "mark", from: FIRST },
  ];
}

function changed(loaded: Expression, value: number, mask: number): Expression[] {
  if (mask === 0xffffffff) return [{ kind: "immediate", into: FIRST, data: { value: hostBytes(value) } }];
  return [loaded, { kind: "bitwise", from: FIRST, into: FIRST, mask: hostBytes(~mask), xor: hostBytes(value & mask) }];
}

export interface Rate {
  readonly rate: number;
  readonly per: "second" | "minute" | "hour" | "day";
  /** How many more may come at once; 5 packets, or no byte, where absent. */
  readonly burst?: number;
}

const SECONDS = { second: 1, minute: 60, hour: 3600, day: 86400 } as const;

/** Matches what is within the limit; or, with `over`, what is beyond it. */
export function limitPackets({ rate, per, burst = 5 }: Rate, over = false): Expression[] {
  return [{ kind: "limit", type: "packets", rate, per: SECONDS[per], burst, over }];
}

export function limitBytes({ rate, per, burst }: Rate, over = false): Expression[] {
  return [{ kind: "limit", type: "bytes", rate, per: SECONDS[per], ...(burst !== undefined && { burst }), over }];
}

/** Matches where the packet's connection is one more than `most` of those that came this way. */
export function connectionsOver(most: number): Expression[] {
  return [{ kind: "connlimit", count: most, over: true }];
}

/** To who listens to the group, with the first `snapLength` bytes of the packet; all of them where absent. */
export function logTo(group: number, prefix: string, snapLength?: number): Expression[] {
  return [{ kind: "log", prefix, group, ...(snapLength !== undefined && { snapLength }) }];
}

/** To the kernel's own log; the level is that of syslog, 4 (warning) where absent. */
export function logToKernel(prefix: string, level = 4): Expression[] {
  return [{ kind: "log", prefix, level }];
}

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** The connection's destination becomes the address, and the port where one is given. In `nat` chains only. */
export function translateDestination(address: Address, port?: number): Expression[] {
  return translate("dnat", address, port === undefined ? undefined : { first: port, last: port }, {});
}

/** The connection's source becomes the address, with ports of the range where one is given. In `nat` chains only. */
export function translateSource(address: Address, ports?: PortRange, options: NatOptions = {}): Expression[] {
  return translate("snat", address, ports, options);
}

function translate(
  type: "snat" | "dnat",
  address: Address,
  ports: PortRange | undefined,
  options: NatOptions,
): Expression[] {
  const family = address.family === 4 ? "ip" : "ip6";
  const { load, registers } = portRegisters(ports, SECOND);
  return [
    { kind: "immediate", into: FIRST, data: { value: addressToBytes(address) } },
    ...load,
    { kind: "nat", type, family, address: FIRST, ...registers, ...options },
  ];
}

/** The address is what a map has for the packet: use after `lookUp`. */
export function translateToFound(type: "snat" | "dnat", family: Family): Expression[] {
  return [{ kind: "nat", type, family: family === 4 ? "ip" : "ip6", address: FIRST }];
}

/** The connection's source becomes the address of the interface that it leaves by. In `nat` chains only. */
export function masquerade(ports?: PortRange, options: NatOptions = {}): Expression[] {
  const { load, registers } = portRegisters(ports, FIRST);
  return [...load, { kind: "masquerade", ...registers, ...options }];
}

/** The connection comes to this host, at the port. In `nat` chains only. */
export function redirect(port: number): Expression[] {
  const { load, registers } = portRegisters({ first: port, last: port }, FIRST);
  return [...load, { kind: "redirect", ...registers }];
}

function portRegisters(
  ports: PortRange | undefined,
  register: number,
): { load: Expression[]; registers: { port?: number; lastPort?: number } } {
  if (ports === undefined) return { load: [], registers: {} };
  const load: Expression[] = [{ kind: "immediate", into: register, data: { value: portBytes(ports.first) } }];
  if (ports.first === ports.last) return { load, registers: { port: register } };
  load.push({ kind: "immediate", into: register + 4, data: { value: portBytes(ports.last) } });
  return { load, registers: { port: register, lastPort: register + 4 } };
}

/** The sender is told: by ICMP or ICMPv6 with that code, or by a TCP reset. */
export function reject(how: "tcp reset" | { readonly code: number }): Expression[] {
  if (how === "tcp reset") return [{ kind: "reject", type: "tcp reset", code: 0 }];
  return [{ kind: "reject", type: "icmp", code: how.code }];
}

/** Connections are not followed: before conntrack sees the packet only, in chains of priority raw. */
export const doNotTrack = (): Expression[] => [{ kind: "notrack" }];

/** DSCP, the upper six bits of the second byte of IPv4 (RFC 2474 section 3). */
export function setDscp4(dscp: number): Expression[] {
  const header = { base: "network", offset: 0, length: 2 } as const;
  return [
    { kind: "payload", ...header, into: FIRST },
    { kind: "bitwise", from: FIRST, into: FIRST, mask: Uint8Array.of(0xff, 0x03), xor: Uint8Array.of(0, dscp << 2) },
    { kind: "writePayload", from: FIRST, ...header, checksum: "inet", checksumOffset: 10 },
  ];
}

/** Remembers a field of the packet in a set that is `dynamic`, for so many milliseconds; `update` begins anew. */
export function remember(set: string, load: Expression, operation: "add" | "update", timeout?: number): Expression[] {
  return [load, { kind: "dynset", operation, set, from: FIRST, ...(timeout !== undefined && { timeout }) }];
}

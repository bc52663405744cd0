/** What nf_tables does with a packet, expression by expression, as its source has it. */
import assert from "node:assert/strict";
import { addressToBytes, formatAddress, addressFromBytes } from "../ip/address.ts";
import type { Element } from "../netlink/nftElement.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { hostBytes, interfaceBytes, portBytes } from "../netlink/nftKey.ts";
import type { Verdict } from "../netlink/nftData.ts";
import { icmpOf } from "../policy/model.ts";
import type { Draft } from "./nftRender.ts";
import type { Step } from "./nftMatches.ts";
import type { Fate, Surroundings, Travelling } from "./packetPath.testing.ts";

/** One table. Chains and sets by the kernel's names. */
export interface Machine {
  readonly chains: ReadonlyMap<string, readonly Draft[]>;
  readonly sets: ReadonlyMap<string, readonly Element[]>;
  readonly surroundings: Surroundings;
}

/** Notes in the packet what it meets, as `packetPath.testing.ts` does. `end`: the rules are through. */
export function runChain(machine: Machine, name: string, one: Travelling): Fate | "end" {
  const drafts = machine.chains.get(name);
  assert.ok(drafts !== undefined, `${name} is gone to, but not there`);
  for (const { steps, counts } of drafts) {
    const rule: Rule = { machine, one, registers: new Uint8Array(64), verdict: undefined, translation: "" };
    const isThrough = steps.every((step) => {
      if (step.kind === "counter" && counts?.counted !== undefined) {
        const { of, direction, index } = counts.counted;
        one.noted.push(`${of} ${direction} ${index ?? "end"}`);
      }
      return rule.verdict === undefined && run(rule, step);
    });
    if (!isThrough && rule.verdict === undefined) continue;
    const outcome = follow(machine, rule.verdict, one);
    if (outcome !== undefined) return outcome;
  }
  return "end";
}

/** Undefined: on with the next rule. */
function follow(machine: Machine, verdict: Verdict | "reject" | undefined, one: Travelling): Fate | "end" | undefined {
  if (verdict === undefined || verdict === "reject") return verdict;
  switch (verdict.kind) {
    case "accept":
    case "drop":
      return verdict.kind;
    case "return":
      return "end";
    case "jump": {
      const outcome = runChain(machine, verdict.chain, one);
      return outcome === "end" ? undefined : outcome;
    }
    case "goto":
      return runChain(machine, verdict.chain, one);
    default:
      return assert.fail(`no rule of ours says ${verdict.kind}`);
  }
}

interface Rule {
  readonly machine: Machine;
  readonly one: Travelling;
  /** Sixteen of 4 bytes. */
  readonly registers: Uint8Array;
  verdict: Verdict | "reject" | undefined;
  translation: string;
}

/** Whether the rule goes on. */
function run(rule: Rule, step: Step): boolean {
  const { one, machine, registers } = rule;
  const read = (from: unknown, length: number): Uint8Array => {
    assert.ok(typeof from === "number");
    return registers.slice(from * 4, from * 4 + length);
  };
  const write = (into: unknown, value: Uint8Array): true => {
    assert.ok(typeof into === "number");
    registers.fill(0, into * 4, into * 4 + Math.ceil(value.length / 4) * 4);
    registers.set(value, into * 4);
    return true;
  };
  switch (step.kind) {
    case "among": {
      const value = valueOf(step.load, rule);
      return value !== undefined && step.elements.some((element) => holds(element, value)) !== step.not;
    }
    case "meta":
    case "payload":
    case "ct":
    case "fib": {
      const value = valueOf(step, rule);
      return value !== undefined && write(step.into, value);
    }
    case "bitwise": {
      const value = read(step.from, step.mask.length);
      return write(
        step.into,
        value.map((byte, at) => (byte & step.mask[at]!) ^ step.xor[at]!),
      );
    }
    case "cmp": {
      const order = compare(read(step.from, step.value.length), step.value);
      const results = {
        eq: order === 0,
        neq: order !== 0,
        lt: order < 0,
        lte: order <= 0,
        gt: order > 0,
        gte: order >= 0,
      };
      return results[step.operator];
    }
    case "range": {
      const element = { key: step.first, last: step.last };
      return holds(element, read(step.from, step.first.length)) === (step.operator === "eq");
    }
    case "lookup": {
      const elements = machine.sets.get(step.set);
      assert.ok(elements !== undefined, `the set ${step.set} is looked at, but not there`);
      const found = elements.find((element) => holds(element, read(step.from, element.key.length)));
      if (step.into === "verdict" && found?.data !== undefined && "verdict" in found.data)
        rule.verdict = found.data.verdict;
      return (found !== undefined) !== (step.invert === true);
    }
    case "immediate":
      if ("value" in step.data) return write(step.into, step.data.value);
      rule.verdict = step.data.verdict;
      return false;
    case "setMeta":
      assert.equal(step.key, "mark");
      one.mark = new DataView(read(step.from, 4).buffer).getUint32(0, true);
      return true;
    case "counter":
    case "limit":
      return true;
    case "log":
      one.noted.push(`${step.group === undefined ? "log" : "nflog"} ${step.prefix}`);
      return true;
    case "notrack":
      one.state = "untracked";
      return true;
    case "reject":
      rule.verdict = "reject";
      return false;
    case "nat": {
      const address = addressFromBytes(read(step.address, one.packet.family === 4 ? 4 : 16));
      if (step.type === "snat") one.translated = formatAddress(address);
      else {
        one.packet = { ...one.packet, destination: address };
        one.isDnat = true;
      }
      rule.verdict = { kind: "accept" };
      return false;
    }
    case "masquerade":
      one.translated = "masquerade";
      rule.verdict = { kind: "accept" };
      return false;
    default:
      return assert.fail(`${step.kind} is nothing that the machine knows`);
  }
}

/** Undefined: the packet has no such thing, and the rule ends. */
function valueOf(load: Expression, { one, machine: { surroundings } }: Rule): Uint8Array | undefined {
  const { packet } = one;
  const isLocal = (side: "source" | "destination"): boolean => surroundings.local.includes(formatAddress(packet[side]));
  switch (load.kind) {
    case "payload":
      return load.base === "network"
        ? ofAddress(load.offset, load.length, one)
        : ofTransport(load.offset, load.length, one);
    case "meta":
      if (load.key === "l4proto") return Uint8Array.of(packet.protocol);
      if (load.key === "mark") return hostBytes(one.mark);
      return interfaceBytes((load.key === "iifname" ? one.in : one.out) ?? "");
    case "ct": {
      const states = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 };
      if (load.key === "state") return hostBytes(states[one.state]);
      const isOfConnection = one.state !== "invalid" && one.state !== "untracked";
      return isOfConnection ? hostBytes(one.isDnat ? 0x2f : 0xf) : undefined;
    }
    case "fib":
      if (load.result === "oif") return hostBytes(surroundings.isReversePath ? 7 : 0);
      return hostBytes(isLocal(load.by[0] === "saddr" ? "source" : "destination") ? 2 : 1);
    default:
      return assert.fail(`nothing is loaded by ${load.kind}`);
  }
}

function ofAddress(offset: number, length: number, { packet }: Travelling): Uint8Array {
  const [source, destination] = packet.family === 4 ? [12, 16] : [8, 24];
  assert.ok(offset === source || offset === destination, `there is no address at byte ${offset}`);
  return addressToBytes(offset === source ? packet.source : packet.destination).slice(0, length);
}

/** What has no ports has other things in their place. */
function ofTransport(offset: number, length: number, { packet }: Travelling): Uint8Array {
  const { sourcePort, destinationPort, icmp, protocol, family } = packet;
  const ports = [...portBytes(sourcePort ?? 80), ...portBytes(destinationPort ?? 80)];
  const header = protocol === icmpOf(family) && icmp !== undefined ? [icmp.type, icmp.code, 0, 80] : ports;
  return Uint8Array.from(header.slice(offset, offset + length));
}

function compare(a: Uint8Array, b: Uint8Array): number {
  for (const [at, byte] of a.entries()) if (byte !== b[at]) return byte - (b[at] ?? 0);
  return 0;
}

const holds = ({ key, last = key }: Pick<Element, "key" | "last">, value: Uint8Array): boolean =>
  compare(key, value) <= 0 && compare(value, last) <= 0;

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { formatAddress, type Family } from "../ip/address.ts";
import { openPacketLog } from "../netlink/nflog.io.ts";
import type { Packet } from "../policy/match.ts";
import { icmpOf, PROTOCOL } from "../policy/model.ts";
import {
  forwarder,
  lengthOf,
  packet,
  packetText,
  WORLD,
  type Forwarder,
  type SendOptions,
} from "./forwarder.testing.ts";
import { BACKENDS, changeTo, FAMILIES } from "./iptables.testing.ts";
import { openIptablesKernelRules } from "./iptablesRules.io.ts";
import { openNftKernelRules } from "./nftRules.io.ts";
import { passHook, travelling, type Travelling } from "./packetPath.testing.ts";
import {
  chainKeyOf,
  type ChainRule,
  type Hook,
  type HookRule,
  type KernelRules,
  type Layer,
  type Match,
  type RuleAction,
  type RuleChain,
} from "./ruleset.ts";
import { emptyRuleset, type Ruleset } from "./ruleset.testing.ts";

interface Driver {
  readonly name: string;
  readonly open: (family: Family, namespace: string) => KernelRules;
}

const DRIVERS: readonly Driver[] = [
  ...BACKENDS.map((backend): Driver => ({
    name: `iptables-${backend}`,
    open: (family, namespace) => openIptablesKernelRules({ family, backend, namespace }),
  })),
  { name: "nf_tables", open: (family, namespace) => openNftKernelRules({ family, namespace }) },
];

/** A packet, the interfaces of its way, and what the kernel makes of it. `out` is absent where the node keeps it. */
interface Sent {
  readonly in: "cali1" | "cali2" | "eth0";
  readonly out?: string;
  readonly packet: Packet;
  readonly state?: Travelling["state"];
  readonly isDnat?: boolean;
  readonly spoofed?: boolean;
  readonly flags?: number;
  /** Where it was sent before its destination was translated. */
  readonly sentTo?: string;
}

const port = (first: number, last = first): { first: number; last: number } => ({ first, last });

/** A little of everything; each with a length of its own, so that a rule's counters tell which of them it saw. */
function packets(family: Family): Sent[] {
  const { pod1, pod2, node, far, other } = WORLD[family];
  const of = (from: string, to: string, protocol: number, sourcePort: number, destinationPort: number): Packet =>
    packet(family, from, to, protocol, { sourcePort, destinationPort });
  const icmp = (type: number, code: number): Packet =>
    packet(family, pod1, far, icmpOf(family), { icmp: { type, code } });
  const [request, information] = family === 4 ? [8, 13] : [128, 139];
  const { TCP, UDP, SCTP } = PROTOCOL;
  return [
    { in: "cali1", out: "eth0", packet: of(pod1, far, TCP, 1000, 80) },
    { in: "eth0", out: "cali1", packet: of(far, pod1, TCP, 80, 1000), flags: 0x12, state: "established" },
    { in: "cali1", out: "eth0", packet: of(pod1, far, UDP, 1001, 53) },
    { in: "cali1", out: "eth0", packet: of(pod1, far, SCTP, 1002, 115) },
    { in: "cali1", out: "eth0", packet: icmp(request, 0) },
    { in: "cali1", out: "eth0", packet: icmp(information, 1) },
    { in: "cali1", out: "eth0", packet: packet(family, pod1, far, 253) },
    { in: "cali2", out: "cali1", packet: of(pod2, pod1, TCP, 2000, 8080) },
    { in: "cali1", out: "eth0", packet: of(pod2, other, TCP, 3000, 80), spoofed: true },
    { in: "cali1", out: "eth0", packet: of(pod1, far, TCP, 3001, 80), flags: 0x03, state: "invalid" },
    { in: "cali1", packet: of(pod1, node, UDP, 3002, 99) },
    { in: "cali1", out: "eth0", packet: of(pod1, far, TCP, 3003, 81), isDnat: true, sentTo: other },
  ];
}

function matches(family: Family): Match[] {
  const { pod1, pod2, node, far } = WORLD[family];
  const net = family === 4 ? "10.65.0.0/16" : "fd00:65::/32";
  const many = Array.from({ length: 16 }, (_, at) => port(100 + at));
  const destinationPorts = (...ranges: { first: number; last: number }[]): Match => ({
    on: "ports",
    side: "destination",
    ranges,
    sets: [],
  });
  const positive: Match[] = [
    { on: "interface", way: "in", name: "cali1" },
    { on: "interface", way: "in", name: "cali*" },
    { on: "protocol", protocols: [6] },
    { on: "protocol", protocols: [17, 132] },
    { on: "protocol", protocols: [253] },
    { on: "address", side: "source", nets: [net] },
    { on: "address", side: "destination", nets: [far] },
    { on: "address", side: "source", nets: [pod1, far] },
    { on: "set", side: "source", set: "s:net" },
    { on: "set", side: "destination", set: "s:all" },
    destinationPorts(port(80)),
    destinationPorts(port(50, 60), port(8080)),
    destinationPorts(...many),
    { on: "ports", side: "source", ranges: [port(1000, 1002)], sets: [] },
    { on: "ports", side: "destination", ranges: [], sets: ["n:ports"] },
    { on: "ports", side: "destination", ranges: [port(81)], sets: ["n:ports"] },
    { on: "icmp" },
    { on: "icmp", type: family === 4 ? 8 : 128 },
    { on: "icmp", type: family === 4 ? 13 : 139, code: 1 },
    { on: "icmp", code: 1 },
    { on: "connection", states: ["new"] },
    { on: "connection", states: ["established", "related"] },
    { on: "connection", states: ["invalid"] },
    { on: "mark", value: 0x20000, mask: 0x30000 },
    { on: "mark", value: 0x10000, mask: 0x10000 },
    { on: "local", side: "source" },
    { on: "local", side: "destination" },
    { on: "address", side: "destination", nets: [node, pod2] },
  ];
  return [...positive, ...positive.map((match): Match => ({ ...match, negated: true }))];
}

/** For rules that only count. */
const NOTHING: RuleAction = { do: "mark", value: 0, mask: 0x40000 };

function counting(layer: Layer, rules: readonly (readonly Match[])[]): RuleChain {
  return {
    layer,
    name: `cali-count-${layer}`,
    origin: layer,
    rules: rules.map((all, index): ChainRule => ({
      matches: all,
      actions: [NOTHING],
      counted: { of: `${layer} ${JSON.stringify(all)}`, direction: "ingress", index },
    })),
  };
}

const hook = (layer: Layer, at: Hook, action: RuleAction, all: readonly Match[] = []): HookRule => ({
  layer,
  hook: at,
  place: "first",
  rule: { matches: all, actions: [action] },
});

function rulesetOf(family: Family, chains: readonly RuleChain[], hooks: readonly HookRule[]): Ruleset {
  const { pod1, pod2, far } = WORLD[family];
  const ruleset = emptyRuleset(family);
  for (const chain of chains) ruleset.chains.set(chainKeyOf(chain), chain);
  ruleset.hooks = hooks;
  ruleset.sets.set("s:net", { kind: "net", members: new Set([family === 4 ? "10.65.0.0/31" : "fd00:65::/127"]) });
  ruleset.sets.set("s:all", { kind: "net", members: new Set(["0.0.0.0/0", "::/0"]) });
  const ports = [`${far},tcp:80`, `${far},udp:53`, `${pod1},tcp:8080`, `${pod2},sctp:80`];
  ruleset.sets.set("n:ports", { kind: "ip,port", members: new Set(ports) });
  return ruleset;
}

async function until(what: () => Promise<void> | void): Promise<void> {
  const deadline = performance.now() + 3000;
  for (;;) {
    try {
      return await what();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(10);
    }
  }
}

describe("rules see the packets that they mean", () => {
  for (const { name, open } of DRIVERS) {
    for (const family of FAMILIES) {
      test(`each match, IPv${family}, ${name}`, async () => {
        using node = forwarder();
        const { other, far } = WORLD[family];
        const all = matches(family);
        const outgoing: Match[] = ["eth0", "cali*"].map((name) => ({ on: "interface", way: "out", name }));
        const [dnat, path]: Match[] = [{ on: "dnat" }, { on: "reversePath" }];
        const pairs = all.slice(0, 20).map((match, at): Match[] => [match, all[all.length - 1 - 2 * at]!]);
        const singly = (some: readonly (Match | undefined)[]): Match[][] =>
          some.flatMap((match) => (match === undefined ? [] : [[match], [{ ...match, negated: true }]]));
        const chains = [
          counting("filter", [...all.map((match) => [match]), ...singly([...outgoing, dnat]), ...pairs]),
          counting("mangle", [...all.map((match) => [match]), ...singly([path]), ...pairs]),
        ];
        const ruleset = rulesetOf(family, chains, [
          hook("raw", "PREROUTING", { do: "mark", value: 0x20000, mask: 0x30000 }),
          hook("mangle", "PREROUTING", { do: "jump", chain: "cali-count-mangle" }),
          hook("nat", "PREROUTING", { do: "dnat", to: far }, [
            { on: "address", side: "destination", nets: [other] },
            { on: "ports", side: "destination", ranges: [port(81)], sets: [] },
            { on: "protocol", protocols: [6] },
          ]),
          hook("filter", "FORWARD", { do: "jump", chain: "cali-count-filter" }),
        ]);
        const rules = open(family, node.path);
        assert.deepEqual(await rules.apply(changeTo(ruleset)), []);
        const expected = new Map(chains.flatMap((chain) => chain.rules.map(({ counted }) => [counted!.of, [0, 0]])));
        const surroundings = { local: [WORLD[family].node], isReversePath: true };
        for (const [index, sent] of packets(family).entries()) {
          const { in: by, out, packet: one, state = "new", isDnat = false, spoofed = false, sentTo } = sent;
          const options: SendOptions = {
            filler: 1 << Math.min(index, 10),
            ...(sent.flags === undefined ? {} : { flags: sent.flags }),
          };
          const asSent =
            sentTo === undefined ? one : { ...one, destination: packet(family, sentTo, sentTo, 6).destination };
          node.send(by, asSent, options);
          const early = travelling(asSent, { in: by, state, mark: 0x20000 });
          passHook(onlyLayer(ruleset, "mangle"), "PREROUTING", early, { ...surroundings, isReversePath: !spoofed });
          const late = travelling(one, { in: by, state, isDnat, mark: 0x20000, ...(out === undefined ? {} : { out }) });
          if (out !== undefined) passHook(ruleset, "FORWARD", late, surroundings);
          for (const noted of [...early.noted, ...late.noted]) {
            const count = expected.get(noted.slice(0, noted.lastIndexOf(" ingress ")))!;
            count[0]! += 1;
            count[1]! += lengthOf(one, options);
          }
        }
        await until(async () => {
          const counts = await rules.counts();
          assert.equal(counts.length, expected.size);
          assert.deepEqual(
            Object.fromEntries(counts.map(({ counted, packets: count, bytes }) => [counted.of, [count, bytes]])),
            Object.fromEntries(expected),
          );
        });
        rules.close();
      });
    }
  }
});

const onlyLayer = (ruleset: Ruleset, layer: Layer): Ruleset => ({
  ...ruleset,
  hooks: ruleset.hooks.filter((each) => each.layer === layer),
});

describe("rules do with packets what they say", () => {
  for (const { name, open } of DRIVERS) {
    for (const family of FAMILIES) {
      test(`each action, IPv${family}, ${name}`, async () => {
        using node = forwarder();
        const { pod1, far, other } = WORLD[family];
        const heard: string[] = [];
        const stop = openPacketLog(
          { namespace: node.path, groups: [{ group: 1 }] },
          {
            packet: ({ prefix }) => heard.push(prefix),
            overrun: (reason) => heard.push(reason),
            failed: ({ message }) => heard.push(message),
          },
        );
        const rules = open(family, node.path);
        try {
          assert.deepEqual(await rules.apply(changeTo(actionRules(family))), []);
          const send = (to: string, destinationPort: number, sourcePort = 1000 + destinationPort): void =>
            node.send("cali1", packet(family, pod1, to, PROTOCOL.UDP, { sourcePort, destinationPort }));
          for (const each of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]) send(far, each);
          send(other, 20);
          const unreachable = family === 4 ? "icmp 3/3" : "icmp 1/4";
          const told = family === 4 ? WORLD[4].node : WORLD[6].node;
          await until(() => {
            const left = leftBy(node, "eth0");
            assert.deepEqual(
              left.filter((text) => !/ (10|11|12)$/.test(text)),
              [
                `${pod1} 1001 > ${far} 1`,
                `${pod1} 1004 > ${far} 4`,
                `${pod1} 1005 > ${far} 5`,
                `${pod1} 1006 > ${far} 6`,
                `${pod1} 1007 > ${far} 7`,
                `${pod1} 1009 > ${far} 9`,
                `${pod1} 1013 > ${far} 13`,
                `${pod1} 1020 > ${far} 20`,
              ],
            );
            const translated = left.filter((text) => / (10|11|12)$/.test(text)).map((text) => text.split(/ /));
            assert.deepEqual(
              translated.map(([source, , , , to]) => `${source} ${to}`),
              [`${other} 10`, `${WORLD[family].node} 11`, `${WORLD[family].node} 12`],
            );
            const [ported] = translated.slice(2).map(([, sourcePort]) => Number(sourcePort));
            assert.ok(ported !== undefined && ported >= 40_000 && ported <= 40_010, `port ${ported}`);
            // The node tells the sender by whatever address of its own leads there.
            const refusals = leftBy(node, "cali1");
            assert.ok(
              refusals.length === 1 && refusals[0]!.endsWith(`> ${pod1} ${unreachable}`),
              `${told}: ${refusals.join()}`,
            );
          });
          await until(() => assert.deepEqual(heard, ["APE0|np/a"]));
          const counts = await rules.counts();
          assert.deepEqual(Object.fromEntries(counts.map(({ counted, packets: count }) => [counted.of, count])), {
            log: 1,
            tracked: 0,
            dispatched: 14,
            known: 14,
          });
        } finally {
          stop();
          rules.close();
        }
      });
    }
  }
});

const memory = new WeakMap<Forwarder, Map<string, string[]>>();
/** All that left since the beginning, in words. */
function leftBy(node: Forwarder, door: "cali1" | "eth0"): string[] {
  const all = memory.get(node) ?? new Map<string, string[]>();
  memory.set(node, all);
  const texts = all.get(door) ?? [];
  all.set(door, texts);
  // Others' multicast is none of ours.
  for (const one of node.left(door)) if (!formatAddress(one.destination).startsWith("ff")) texts.push(packetText(one));
  return texts;
}

/** By the port that a packet is sent to. */
function actionRules(family: Family): Ruleset {
  const { far, other } = WORLD[family];
  const toPort = (number: number): Match[] => [
    { on: "protocol", protocols: [PROTOCOL.UDP] },
    { on: "ports", side: "destination", ranges: [port(number)], sets: [] },
  ];
  const rule = (number: number, ...actions: RuleAction[]): ChainRule => ({ matches: toPort(number), actions });
  const chain = (layer: Layer, name: string, rules: ChainRule[]): RuleChain => ({ layer, name, rules, origin: name });
  const counted = (of: string): ChainRule["counted"] => ({ of, direction: "ingress" });
  const drop: ChainRule = { matches: [], actions: [{ do: "drop" }] };
  const isNew: Match = { on: "connection", states: ["new", "established", "related", "invalid"] };
  const chains = [
    chain("filter", "cali-FORWARD", [
      { matches: [], actions: [{ do: "jump", chain: "cali-from-wl-dispatch" }] },
      { matches: [{ on: "mark", value: 0x10000, mask: 0x10000 }], actions: [{ do: "accept" }] },
      drop,
    ]),
    chain("filter", "cali-from-wl-dispatch", [
      { matches: [], actions: [NOTHING], counted: counted("dispatched")! },
      { matches: [], actions: [{ do: "dispatch", map: "cali-from-wl-dispatch" }] },
      drop,
    ]),
    chain("filter", "cali-fw-cali1", [
      { matches: [], actions: [NOTHING], counted: counted("known")! },
      rule(1, { do: "accept" }),
      rule(2, { do: "drop" }),
      rule(3, { do: "reject" }),
      rule(4, { do: "mark", value: 0x10000, mask: 0x10000 }, { do: "return" }),
      rule(5, { do: "jump", chain: "cali-back" }),
      rule(5, { do: "accept" }),
      rule(6, { do: "goto", chain: "cali-marked" }),
      rule(6, { do: "drop" }),
      rule(7, { do: "nflog", group: 1, prefix: "APE0|np/a" }, { do: "accept" }),
      { ...rule(8, { do: "log", prefix: "test: ", perSecond: 1 }), counted: counted("log")! },
      { matches: [...toPort(9), isNew], actions: [NOTHING], counted: counted("tracked")! },
      ...[9, 10, 11, 12, 13, 20].map((number) => rule(number, { do: "accept" })),
    ]),
    chain("filter", "cali-fw-cali2", [drop]),
    chain("filter", "cali-back", [rule(5, { do: "return" }), drop]),
    chain("filter", "cali-marked", [rule(6, { do: "mark", value: 0x10000, mask: 0x10000 })]),
    chain("raw", "cali-PREROUTING", [rule(9, { do: "notrack" })]),
    chain("nat", "cali-PREROUTING", [
      { matches: [{ on: "address", side: "destination", nets: [other] }], actions: [{ do: "dnat", to: far }] },
    ]),
    chain("nat", "cali-POSTROUTING", [
      rule(10, { do: "snat", to: other }),
      rule(11, { do: "masquerade" }),
      {
        matches: [{ on: "ports", side: "destination", ranges: [port(12)], sets: [] }],
        actions: [{ do: "masquerade", ports: port(40_000, 40_010) }],
      },
    ]),
  ];
  const ruleset = rulesetOf(family, chains, [
    hook("raw", "PREROUTING", { do: "jump", chain: "cali-PREROUTING" }),
    hook("nat", "PREROUTING", { do: "jump", chain: "cali-PREROUTING" }),
    hook("nat", "POSTROUTING", { do: "jump", chain: "cali-POSTROUTING" }),
    hook("filter", "FORWARD", { do: "jump", chain: "cali-FORWARD" }),
  ]);
  ruleset.maps.set("filter/cali-from-wl-dispatch", {
    layer: "filter",
    name: "cali-from-wl-dispatch",
    by: "in",
    entries: new Map([
      ["cali1", "cali-fw-cali1"],
      ["cali2", "cali-fw-cali2"],
    ]),
  });
  return ruleset;
}

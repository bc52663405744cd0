import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { ByteWriter, fromHex, toHex } from "../lib/bytes.ts";
import { decodeMessages, encodeMessage, type Message, type Request } from "./framing.ts";
import { readGolden } from "./golden.testing.ts";
import { operationOf } from "./nfnetlink.ts";
import type { Data } from "./nftData.ts";
import { decodeElements, type Element, elementsOf, NEW_ELEMENT } from "./nftElement.ts";
import type { Expression } from "./nftExpression.ts";
import {
  concatenate,
  hostBytes,
  interfaceBytes,
  type KeyRange,
  portBytes,
  portRange,
  prefixRange,
  protocolBytes,
} from "./nftKey.ts";
import {
  addressIs,
  addressTypeIs,
  connectionMarkIs,
  directionIs,
  icmpIs,
  icmpTypeWithin,
  inSet,
  interfaceIs,
  lookUp,
  markIs,
  noRouteBack,
  originalDestinationIs,
  portIs,
  protocolIs,
  stateIs,
  statusIs,
  verdictMap,
} from "./nftMatch.ts";
import { decodeObject, NEW_OBJECT, type NftObject } from "./nftObject.ts";
import { decodeRule, NEW_RULE } from "./nftRule.ts";
import { decodeSet, NEW_SET, type NftSet } from "./nftSet.ts";
import {
  accept,
  connectionsOver,
  count,
  countAs,
  doNotTrack,
  drop,
  goTo,
  jump,
  limitBytes,
  limitPackets,
  logTo,
  masquerade,
  redirect,
  reject,
  remember,
  returnToCaller,
  saveMark,
  setDscp4,
  setMark,
  translateDestination,
  translateSource,
  translateToFound,
} from "./nftStatement.ts";
import { type Chain, decodeChain, decodeTable, NEW_CHAIN, NEW_TABLE, type Table } from "./nftTable.ts";
import { beginBatch, endBatch, type NftChange, requestsOf } from "./nftables.ts";

const a = parseAddress;
const p = parsePrefix;
const ip = { family: "ip", name: "calico" } as const;
const ip6 = { family: "ip6", name: "calico" } as const;
const arp = { family: "arp", name: "calico-arp" } as const;

/** A transaction as the goldens write it: words of 4 bytes, sequence numbers from 0. */
function wireOfBatch(changes: readonly NftChange[]): string {
  const writer = new ByteWriter();
  const requests: Request[] = [beginBatch(), ...changes.flatMap(requestsOf), endBatch()];
  for (const [sequence, request] of requests.entries()) encodeMessage(writer, request, 0, sequence);
  return words(writer.finish());
}

function words(bytes: Uint8Array): string {
  return toHex(bytes).replaceAll(/.{8}(?!$)/g, "$& ");
}

/** What the kernel answered, without the ends of its lists. */
function listed(golden: string, operation: number): Message[] {
  const answers = readGolden(golden).find(({ command }) => command === "list ruleset")?.answers ?? [];
  return answers
    .flatMap((bytes) => decodeMessages(bytes))
    .filter((message) => operationOf(message, "nftables") === operation);
}

function withoutHandle<Item extends { readonly handle: number }>(item: Item | undefined): Omit<Item, "handle"> {
  assert.ok(item !== undefined && item.handle > 0);
  const { handle: _, ...rest } = item;
  return rest;
}

function withoutExpiry(element: Element): Element {
  const { expires: _, ...rest } = element;
  return rest;
}

const TABLES: Record<string, Table> = {
  "add table ip calico": ip,
  'add table ip6 calico { comment "ours" ; }': { ...ip6, comment: "ours" },
  "add table inet fw { flags dormant ; }": { family: "inet", name: "fw", dormant: true },
  "add table arp calico-arp": arp,
};
const CHAINS: Record<string, Chain> = {
  "add chain ip calico filter-FORWARD { type filter hook forward priority filter ; policy drop ; }": {
    table: ip,
    name: "filter-FORWARD",
    base: { type: "filter", hook: "forward", priority: 0, policy: "drop" },
  },
  "add chain ip calico nat-PREROUTING { type nat hook prerouting priority dstnat ; }": {
    table: ip,
    name: "nat-PREROUTING",
    base: { type: "nat", hook: "prerouting", priority: -100 },
  },
  'add chain ip calico mangle-OUTPUT { type route hook output priority mangle ; comment "marks" ; }': {
    table: ip,
    name: "mangle-OUTPUT",
    base: { type: "route", hook: "output", priority: -150 },
    comment: "marks",
  },
  "add chain ip calico cali-fw-1": { table: ip, name: "cali-fw-1" },
  'add chain ip calico cali-tw-1 { comment "to pod" ; }': { table: ip, name: "cali-tw-1", comment: "to pod" },
  "add chain arp calico-arp filter-OUTPUT { type filter hook output priority filter ; }": {
    table: arp,
    name: "filter-OUTPUT",
    base: { type: "filter", hook: "output", priority: 0 },
  },
};
const OBJECTS: Record<string, NftObject> = {
  'add counter ip calico hits { packets 5 bytes 700 ; comment "seen" ; }': {
    table: ip,
    name: "hits",
    type: "counter",
    packets: 5,
    bytes: 700,
    comment: "seen",
  },
  "add quota ip calico share { over 25 mbytes ; }": {
    table: ip,
    name: "share",
    type: "quota",
    bytes: 25 << 20,
    over: true,
    consumed: 0,
  },
  "add limit ip calico slow { rate 5/second burst 10 packets ; }": {
    table: ip,
    name: "slow",
    type: "limit",
    unit: "packets",
    rate: 5,
    per: 1,
    burst: 10,
    over: false,
  },
};
const own = { table: ip, chain: "cali-fw-1" };
const OTHERS: Record<string, NftChange> = {
  'add rule ip calico cali-fw-1 counter comment "cali:abcDEF_-0123456"': {
    kind: "addRule",
    rule: { ...own, expressions: [{ kind: "counter" }], comment: "cali:abcDEF_-0123456" },
  },
  "insert rule ip calico cali-fw-1 accept": {
    kind: "addRule",
    rule: { ...own, expressions: accept() },
    place: "first",
  },
  "add rule ip calico cali-fw-1 handle 9 drop": {
    kind: "addRule",
    rule: { ...own, expressions: drop() },
    place: { after: 9 },
  },
  "insert rule ip calico cali-fw-1 handle 9 drop": {
    kind: "addRule",
    rule: { ...own, expressions: drop() },
    place: { before: 9 },
  },
  "replace rule ip calico cali-fw-1 handle 9 return": {
    kind: "addRule",
    rule: { ...own, expressions: returnToCaller() },
    place: { instead: 9 },
  },
  "delete rule ip calico cali-fw-1 handle 9": { kind: "deleteRule", rule: { ...own, handle: 9 } },
  "flush chain ip calico cali-fw-1": { kind: "flushChain", chain: { table: ip, name: "cali-fw-1" } },
  "delete chain ip calico cali-fw-1": { kind: "deleteChain", chain: { table: ip, name: "cali-fw-1" } },
  "delete counter ip calico hits": { kind: "deleteObject", object: { table: ip, name: "hits", type: "counter" } },
  "delete table ip6 calico": { kind: "deleteTable", table: ip6 },
};

const set = (name: string, key: NftSet["key"], rest: Partial<NftSet> = {}): NftSet => ({
  table: ip,
  name,
  key,
  ...rest,
});
const ENDPOINT = ["ipv4_addr", "inet_proto", "inet_service"] as const;
const SETS: Record<string, NftSet> = {
  "add set ip calico s { type ipv4_addr ; }": set("s", ["ipv4_addr"]),
  'add set ip calico sized { type ipv4_addr ; size 1048576 ; comment "members" ; }': set("sized", ["ipv4_addr"], {
    size: 1048576,
    comment: "members",
  }),
  "add set ip calico timed { type ipv4_addr ; flags dynamic,timeout ; timeout 90s ; }": set("timed", ["ipv4_addr"], {
    dynamic: true,
    timeouts: true,
    timeout: 90_000,
  }),
  "add set ip calico n { type ipv4_addr ; flags interval ; }": set("n", ["ipv4_addr"], { interval: true }),
  "add set ip calico n6 { type ipv6_addr ; flags interval ; }": set("n6", ["ipv6_addr"], { interval: true }),
  "add set ip calico ports { type inet_service ; flags interval ; }": set("ports", ["inet_service"], {
    interval: true,
  }),
  "add set ip calico pairs { type ipv4_addr . inet_proto . inet_service ; }": set("pairs", ENDPOINT),
  "add set ip calico c { type ipv4_addr . inet_proto . inet_service ; flags interval ; }": set("c", ENDPOINT, {
    interval: true,
  }),
  "add set ip calico names { type ifname ; flags interval ; }": set("names", ["ifname"], { interval: true }),
  "add set ip calico marks { type mark ; }": set("marks", ["mark"]),
  "add set ip calico counted { type ipv4_addr ; counter ; }": set("counted", ["ipv4_addr"], { counter: true }),
  "add map ip calico dispatch { type ifname : verdict ; }": set("dispatch", ["ifname"], { data: "verdict" }),
  "add map ip calico nets { type ipv4_addr : verdict ; flags interval ; }": set("nets", ["ipv4_addr"], {
    data: "verdict",
    interval: true,
  }),
  "add map ip calico fip { type ipv4_addr : ipv4_addr ; }": set("fip", ["ipv4_addr"], { data: ["ipv4_addr"] }),
  "add map ip calico publish { type inet_proto . inet_service : ipv4_addr . inet_service ; }": set(
    "publish",
    ["inet_proto", "inet_service"],
    { data: ["ipv4_addr", "inet_service"] },
  ),
  "add map ip calico tally { type ipv4_addr : counter ; }": set("tally", ["ipv4_addr"], {
    data: { object: "counter" },
  }),
};

const host = (text: string): KeyRange => prefixRange(p(`${text}/${text.includes(":") ? 128 : 32}`));
const net = (text: string): KeyRange => prefixRange(p(text));
const range = (first: string, last: string): KeyRange => ({ key: host(first).key, last: host(last).key });
const proto = (number: number): KeyRange => ({ key: protocolBytes(number) });
const port = (number: number): KeyRange => ({ key: portBytes(number) });
const name = (text: string): KeyRange => ({ key: interfaceBytes(text) });
const goes = (data: Data): { data: Data } => ({ data });
const TO_FW = goes({ verdict: { kind: "goto", chain: "cali-fw" } });

/** What was added to each set, in the order of its elements' keys where it has ranges. */
const ELEMENTS: Record<string, Record<string, Element[]>> = {
  s: {
    "10.0.0.1, 10.0.0.2": [host("10.0.0.1"), host("10.0.0.2")],
    '10.0.0.3 comment "pod"': [{ ...host("10.0.0.3"), comment: "pod" }],
  },
  timed: { "10.0.0.1 timeout 30s": [{ ...host("10.0.0.1"), timeout: 30_000 }] },
  n: {
    "0.0.0.0/8, 10.0.0.0/8, 192.168.1.0-192.168.1.9, 198.51.100.1, 255.0.0.0/8": [
      net("0.0.0.0/8"),
      net("10.0.0.0/8"),
      range("192.168.1.0", "192.168.1.9"),
      host("198.51.100.1"),
      net("255.0.0.0/8"),
    ],
  },
  n6: { "::/8, 2001:db8::/64, ff00::/8": [net("::/8"), net("2001:db8::/64"), net("ff00::/8")] },
  ports: { "0-79, 443, 8000-65535": [portRange(0, 79), portRange(443, 443), portRange(8000, 65535)] },
  pairs: { "10.0.0.1 . tcp . 80": [concatenate(host("10.0.0.1"), proto(6), port(80))] },
  c: {
    "10.0.0.0/24 . tcp . 80-90, 10.0.1.1 . udp . 53": [
      concatenate(net("10.0.0.0/24"), proto(6), portRange(80, 90)),
      concatenate(host("10.0.1.1"), proto(17), port(53)),
    ],
  },
  marks: { "0x10000": [{ key: hostBytes(0x10000) }] },
  counted: { "10.0.0.1 counter packets 3 bytes 180": [{ ...host("10.0.0.1"), counter: { packets: 3, bytes: 180 } }] },
  dispatch: {
    '"cali1" : goto cali-fw, "cali2" : drop': [
      { ...name("cali1"), ...TO_FW },
      { ...name("cali2"), ...goes({ verdict: { kind: "drop" } }) },
    ],
  },
  nets: {
    "0.0.0.0/8 : accept, 10.0.0.0/8 : jump cali-fw": [
      { ...net("0.0.0.0/8"), ...goes({ verdict: { kind: "accept" } }) },
      { ...net("10.0.0.0/8"), ...goes({ verdict: { kind: "jump", chain: "cali-fw" } }) },
    ],
  },
  fip: { "192.0.2.1 : 10.0.0.1": [{ ...host("192.0.2.1"), ...goes({ value: host("10.0.0.1").key }) }] },
  publish: {
    "tcp . 80 : 10.0.0.1 . 8080": [
      {
        ...concatenate(proto(6), port(80)),
        ...goes({ value: concatenate(host("10.0.0.1"), port(8080)).key }),
      },
    ],
  },
  tally: { '10.0.0.1 : "hits"': [{ ...host("10.0.0.1"), object: "hits" }] },
};
const DELETED: Record<string, Record<string, KeyRange[]>> = {
  s: { "10.0.0.3": [host("10.0.0.3")] },
  n: { "10.0.0.0/8": [net("10.0.0.0/8")] },
  c: { "10.0.1.1 . udp . 53": [concatenate(host("10.0.1.1"), proto(17), port(53))] },
  dispatch: { '"cali2"': [name("cali2")] },
};

const tcp = protocolIs(6);
const udp = protocolIs(17);
const EITHER_WAY: Expression = { kind: "payload", base: "network", offset: 9, length: 1, into: 0 };
/** Chain, and the rule's words in nft's language, to expressions. */
const RULES: Record<string, readonly Expression[]> = {
  'c iifname "cali1" accept': [...interfaceIs("input", "cali1"), ...accept()],
  'c oifname "cali*" drop': [...interfaceIs("output", "cali*"), ...drop()],
  'c iifname != "eth0" return': [...interfaceIs("input", "eth0", { not: true }), ...returnToCaller()],
  "c iifname vmap @dispatch": verdictMap(["input interface"], 4, "dispatch"),
  "c meta mark & 0x00030000 == 0x00010000 jump d": [...markIs(0x10000, 0x30000), ...jump("d")],
  "c meta mark set meta mark & 0xfffcffff": setMark(0, 0x30000),
  "c meta mark set meta mark | 0x00010000": setMark(0x10000, 0x10000),
  "c meta mark set 0x00010000": setMark(0x10000, 0xffffffff),
  "c ct mark set meta mark": saveMark(),
  "c ct mark & 0x00080000 != 0x0 goto d": [...connectionMarkIs(0, 0x80000, { not: true }), ...goTo("d")],
  "c ct state established,related accept": [...stateIs("established", "related"), ...accept()],
  "c ct state invalid drop": [...stateIs("invalid"), ...drop()],
  "c ct status dnat accept": [...statusIs("dnat"), ...accept()],
  "c ct direction original accept": [...directionIs("original"), ...accept()],
  "c ct original ip daddr 10.0.0.1 accept": [...originalDestinationIs(a("10.0.0.1")), ...accept()],
  "raw ct zone set 7": [
    { kind: "immediate", into: 0, data: { value: Uint8Array.of(7, 0) } },
    { kind: "setCt", key: "zone", from: 0 },
  ],
  "c ip saddr 10.1.0.0/16 accept": [...addressIs("source", p("10.1.0.0/16")), ...accept()],
  "c ip daddr != 10.1.2.0/23 accept": [...addressIs("destination", p("10.1.2.0/23"), { not: true }), ...accept()],
  "c ip saddr 10.1.2.3 accept": [...addressIs("source", p("10.1.2.3/32")), ...accept()],
  "c ip saddr @s accept": [...inSet(["source address"], 4, "s"), ...accept()],
  "c ip daddr != @s drop": [...inSet(["destination address"], 4, "s", { not: true }), ...drop()],
  "c ip protocol tcp accept": [
    EITHER_WAY,
    { kind: "cmp", from: 0, operator: "eq", value: Uint8Array.of(6) },
    ...accept(),
  ],
  "c meta l4proto udp accept": [...udp, ...accept()],
  "c tcp dport 80 accept": [...tcp, ...portIs("destination", 80), ...accept()],
  "c tcp dport 8000-8999 accept": [...tcp, ...portIs("destination", 8000, 8999), ...accept()],
  "c udp sport != 53 accept": [...udp, ...portIs("source", 53, 53, { not: true }), ...accept()],
  "c udp dport != 5000-6000 accept": [...udp, ...portIs("destination", 5000, 6000, { not: true }), ...accept()],
  "c icmp type echo-request accept": [...protocolIs(1), ...icmpIs(8), ...accept()],
  "c icmp type destination-unreachable icmp code 4 accept": [...protocolIs(1), ...icmpIs(3, 4), ...accept()],
  "c ip dscp set 0x2e": setDscp4(46),
  "c fib saddr . mark . iif oif 0 drop": [...noRouteBack({ mark: true }), ...drop()],
  "c fib daddr type local accept": [...addressTypeIs("destination", "local"), ...accept()],
  "c fib saddr . iif oif missing drop": [
    { kind: "fib", by: ["saddr", "iif", "present"], result: "oif", into: 0 },
    { kind: "cmp", from: 0, operator: "eq", value: Uint8Array.of(0, 0, 0, 0) },
    ...drop(),
  ],
  "c counter packets 3 bytes 252 accept": [{ kind: "counter", packets: 3, bytes: 252 }, ...accept()],
  'c counter name "hits"': countAs("hits"),
  "c limit rate 10/second burst 5 packets accept": [...limitPackets({ rate: 10, per: "second" }), ...accept()],
  "c limit rate over 1 mbytes/minute drop": [...limitBytes({ rate: 1 << 20, per: "minute" }, true), ...drop()],
  'c log prefix "API0|default.allow" group 1': logTo(1, "API0|default.allow"),
  'c log prefix "calico-packet: " snaplen 80 group 2 queue-threshold 4': [
    { kind: "log", prefix: "calico-packet: ", group: 2, snapLength: 80, queueThreshold: 4 },
  ],
  'c log prefix "calico-packet: " level debug flags ip options': [
    { kind: "log", prefix: "calico-packet: ", level: 7, flags: 4 },
  ],
  "out reject with icmp type host-prohibited": reject({ code: 10 }),
  "out meta l4proto tcp reject with tcp reset": [...tcp, ...reject("tcp reset")],
  "raw notrack": doNotTrack(),
  "pre ip daddr 192.0.2.1 dnat to 10.0.0.1": [
    ...addressIs("destination", p("192.0.2.1/32")),
    ...translateDestination(a("10.0.0.1")),
  ],
  "pre tcp dport 80 dnat to 10.0.0.1:8080": [
    ...tcp,
    ...portIs("destination", 80),
    ...translateDestination(a("10.0.0.1"), 8080),
  ],
  "pre dnat to ip daddr map @fip": [...lookUp(["destination address"], 4, "fip"), ...translateToFound("dnat", 4)],
  "pre tcp dport 81 redirect to :8081": [...tcp, ...portIs("destination", 81), ...redirect(8081)],
  "post ip saddr 10.0.0.1 snat to 192.0.2.1": [
    ...addressIs("source", p("10.0.0.1/32")),
    ...translateSource(a("192.0.2.1")),
  ],
  "post snat to 192.0.2.1-192.0.2.9 random,persistent": [
    { kind: "immediate", into: 0, data: { value: host("192.0.2.1").key } },
    { kind: "immediate", into: 4, data: { value: host("192.0.2.9").key } },
    { kind: "nat", type: "snat", family: "ip", address: 0, lastAddress: 4, random: true, persistent: true },
  ],
  "post masquerade": masquerade(),
  "post masquerade fully-random": masquerade(undefined, { fullyRandom: true }),
  "post meta l4proto tcp masquerade to :1024-65535": [...tcp, ...masquerade({ first: 1024, last: 65535 })],
  "c add @timed { ip saddr }": remember("timed", sourceAddress(), "add"),
  "c update @timed { ip saddr timeout 30s }": remember("timed", sourceAddress(), "update", 30_000),
  "c ct count over 20 drop": [...connectionsOver(20), ...drop()],
};
const RULES6: Record<string, readonly Expression[]> = {
  "c ip6 saddr 2001:db8::/64 accept": [...addressIs("source", p("2001:db8::/64")), ...accept()],
  "c ip6 daddr 2001:db8::1 accept": [...addressIs("destination", p("2001:db8::1/128")), ...accept()],
  "c meta l4proto icmpv6 icmpv6 type { 130-136 } accept": [...protocolIs(58), ...icmpTypeWithin(130, 136), ...accept()],
  "c icmpv6 type nd-neighbor-solicit accept": [...protocolIs(58), ...icmpIs(135), ...accept()],
  "pre dnat to 2001:db8::1": translateDestination(a("2001:db8::1")),
  "pre tcp dport 80 dnat to [2001:db8::1]:8080": [
    ...tcp,
    ...portIs("destination", 80),
    ...translateDestination(a("2001:db8::1"), 8080),
  ],
  "out reject": reject({ code: 4 }),
};

function sourceAddress(): Expression {
  return { kind: "payload", base: "network", offset: 12, length: 4, into: 0 };
}

/** What nft sends otherwise than we do, though it means the same; the rules are compared by their meaning then. */
const OTHERWISE: Record<string, string> = {
  "meta mark &": "it says which operation a mask is, which is the default",
  "set meta mark |": "the same",
  "ct mark &": "the same",
  "ip dscp set": "the same",
  "flush table": "we delete a table whole",
};
const otherwise = (command: string): boolean => Object.keys(OTHERWISE).some((words) => command.includes(words));

/** nft numbers the sets of a transaction, and names them by that too; we name them by name. */
function withoutSetIds(list: readonly Expression[]): Expression[] {
  return list.map((item) => {
    if (!("setId" in item)) return item;
    const { setId: _, ...rest } = item;
    return rest;
  });
}

function decodeSentRule(sent: string | undefined): readonly Expression[] {
  const message = decodeMessages(fromHex(sent ?? "")).find((one) => operationOf(one, "nftables") === NEW_RULE);
  return (message && decodeRule(message)?.expressions) ?? [];
}

describe("what nft sends, we send: byte for byte", () => {
  const changes: Record<string, NftChange> = {
    ...mapped(TABLES, (table): NftChange => ({ kind: "addTable", table })),
    ...mapped(CHAINS, (chain): NftChange => ({ kind: "addChain", chain })),
    ...mapped(OBJECTS, (object): NftChange => ({ kind: "addObject", object })),
    ...mapped(SETS, (one): NftChange => ({ kind: "addSet", set: one })),
    ...OTHERS,
    "flush set ip calico s": { kind: "flushSet", set: { table: ip, name: "s" } },
    "delete set ip calico s": { kind: "deleteSet", set: { table: ip, name: "s" } },
  };
  for (const { command, sent } of ["nftTable", "nftSet"].flatMap(readGolden)) {
    const change = changes[command];
    if (change === undefined) continue;
    test(command, () => {
      // libnftnl puts the set's name before the table's in this one message.
      if (command.startsWith("flush set")) assert.equal(sorted(wireOfBatch([change])), sorted(sent[0]));
      else assert.equal(wireOfBatch([change]), sent[0]);
    });
  }
  test("each of them is in the goldens", () => {
    const commands = new Set(["nftTable", "nftSet"].flatMap(readGolden).map(({ command }) => command));
    assert.deepEqual(
      Object.keys(changes).filter((command) => !commands.has(command)),
      [],
    );
  });

  for (const [golden, table, rules] of [
    ["nftRule", ip, RULES],
    ["nftRule6", ip6, RULES6],
  ] as const) {
    for (const [words_, expected] of Object.entries(rules)) {
      const command = `add rule ${table.family} calico ${words_}`;
      test(command, () => {
        const sent = readGolden(golden).find((one) => one.command === command)?.sent[0];
        const decoded = decodeSentRule(sent);
        assert.deepEqual(withoutSetIds(decoded), expected);
        if (otherwise(command)) return;
        const chain = words_.slice(0, words_.indexOf(" "));
        // With nft's numbers for the sets, the bytes are the same too.
        assert.equal(wireOfBatch([{ kind: "addRule", rule: { table, chain, expressions: decoded } }]), sent);
      });
    }
  }

  const idOf = (sent: string | undefined): number =>
    Number.parseInt(/ 08000400 ([0-9a-f]{8})/.exec(sent ?? "")?.[1] ?? "", 16);
  for (const [setName, adds] of Object.entries(ELEMENTS)) {
    const definition = Object.values(SETS).find((one) => one.name === setName);
    for (const [words_, elements] of Object.entries(adds)) {
      const command = `add element ip calico ${setName} { ${words_} }`;
      test(command, () => {
        assert.ok(definition);
        const sent = readGolden("nftSet").find((one) => one.command === command)?.sent[0];
        assert.equal(
          wireOfBatch([{ kind: "addElements", set: { ...definition, id: idOf(sent) }, elements }]),
          unnumbered(sent),
        );
      });
    }
    for (const [words_, elements] of Object.entries(DELETED[setName] ?? {})) {
      const command = `delete element ip calico ${setName} { ${words_} }`;
      test(command, () => {
        assert.ok(definition);
        const sent = readGolden("nftSet").find((one) => one.command === command)?.sent[0];
        assert.equal(wireOfBatch([{ kind: "deleteElements", set: definition, elements }]), unnumbered(sent));
      });
    }
  }
});

/** libnftnl numbers the elements of a list; the kernel does not look, and we call each of them 1, as the kernel does. */
function unnumbered(wire: string | undefined): string {
  const bytes = fromHex(wire ?? "");
  for (const { type, body } of decodeMessages(bytes)) {
    if (type !== 0x0a0c && type !== 0x0a0e) continue;
    body.skip(4, "netfilter header");
    while (body.remaining > 0) {
      const length = body.u16le("length");
      const code = body.u16le("type") & 0xff;
      const value = body.sub(length - 4, "value");
      body.skip(Math.min(-length & 3, body.remaining), "padding");
      // NFTA_SET_ELEM_LIST_ELEMENTS
      while (code === 3 && value.remaining > 0) {
        const item = value.u16le("length");
        bytes.set([1, 0x80], value.offset);
        value.skip(((item + 3) & ~3) - 2, "element");
      }
    }
  }
  return words(bytes);
}

function mapped<From, To>(record: Record<string, From>, convert: (from: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, from]) => [key, convert(from)]));
}

const sorted = (wire: string | undefined): string => (wire ?? "").split(" ").toSorted().join(" ");

describe("what the kernel lists is what was sent", () => {
  test("tables", () => {
    const tables = listed("nftTable", NEW_TABLE).map((message) => withoutHandle(decodeTable(message)));
    assert.deepEqual(tables, Object.values(TABLES));
  });
  test("chains", () => {
    const chains = listed("nftTable", NEW_CHAIN).map((message) => withoutHandle(decodeChain(message)));
    // A base chain accepts where it was not told otherwise.
    const expected = Object.values(CHAINS).map(({ base, ...chain }): Chain => {
      return base === undefined ? chain : { ...chain, base: { ...base, policy: base.policy ?? "accept" } };
    });
    assert.deepEqual(chains, expected);
  });
  test("objects", () => {
    const objects = listed("nftTable", NEW_OBJECT).map((message) => withoutHandle(decodeObject(message)));
    assert.deepEqual(objects, Object.values(OBJECTS));
  });
  test("rules, with their comments and handles", () => {
    assert.deepEqual(listed("nftTable", NEW_RULE).map(decodeRule), [
      { ...own, handle: 10, expressions: accept() },
      { ...own, handle: 12, expressions: drop() },
      { ...own, handle: 9, expressions: count(), comment: "cali:abcDEF_-0123456" },
      { ...own, handle: 11, expressions: drop() },
    ]);
  });
  test("sets", () => {
    const sets = listed("nftSet", NEW_SET).map((message) => withoutHandle(decodeSet(message)));
    assert.deepEqual(sets, Object.values(SETS));
  });
  for (const [setName, adds] of Object.entries(ELEMENTS)) {
    test(`elements of ${setName}`, () => {
      const definition = Object.values(SETS).find((one) => one.name === setName);
      assert.ok(definition);
      const messages = listed("nftSet", NEW_ELEMENT).map(decodeElements);
      const found = elementsOf(
        definition,
        messages.filter((message) => message?.set === setName).map((one) => one!),
      );
      const expected = Object.values(adds).flat();
      const inOrder = (list: readonly Element[]): Element[] =>
        list.toSorted((x, y) => (toHex(x.key) < toHex(y.key) ? -1 : 1));
      assert.deepEqual(inOrder(found.map(withoutExpiry)), inOrder(expected));
    });
  }
  for (const [golden, rules] of [
    ["nftRule", RULES],
    ["nftRule6", RULES6],
  ] as const) {
    test(`rules of ${golden}`, () => {
      const actual = Map.groupBy(
        listed(golden, NEW_RULE).map((message) => decodeRule(message)!),
        ({ chain }) => chain,
      );
      let compared = 0;
      const added = readGolden(golden).flatMap(({ command, sent }) => {
        const [, chain = "", words_ = ""] = /^add rule ip6? calico (\S+) (.*)$/.exec(command) ?? [];
        return chain === "" || sent.length === 0 || words_.includes("queue num") ? [] : [{ chain, words: words_ }];
      });
      for (const [chain, commands] of Map.groupBy(added, (one) => one.chain)) {
        const list = actual.get(chain) ?? [];
        assert.equal(list.length, commands.length, `rules of chain ${chain}`);
        for (const [at, command] of commands.entries()) {
          const expected = rules[`${chain} ${command.words}`];
          assert.ok(
            list[at]?.expressions.every(({ kind }) => kind !== "other"),
            command.words,
          );
          if (expected === undefined) continue;
          assert.deepEqual(list[at]?.expressions, expected, command.words);
          compared += 1;
        }
      }
      assert.equal(compared, Object.keys(rules).length);
    });
  }
});

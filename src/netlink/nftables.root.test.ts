import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { assertGolden } from "../lib/golden.testing.ts";
import { AF_INET, bind, connect, listen, setSocketOption, SOCK_STREAM, SOL_SOCKET } from "./ffi.io.ts";
import { inNamespace, socketIn } from "./namespace.io.ts";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import { type Element, elementsOf, writeElements } from "./nftElement.ts";
import type { Expression } from "./nftExpression.ts";
import { sameExpressions } from "./nftExpressionCodec.ts";
import {
  concatenate,
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
  metaIs,
  noRouteBack,
  originalDestinationIs,
  originalPortIs,
  portIs,
  protocolIs,
  stateIs,
  statusIs,
  verdictMap,
} from "./nftMatch.ts";
import type { NftRule, RulePlace } from "./nftRule.ts";
import type { NftSet } from "./nftSet.ts";
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
  logToKernel,
  masquerade,
  redirect,
  reject,
  remember,
  returnToCaller,
  saveMark,
  setConnectionMark,
  setDscp4,
  setMark,
  translateDestination,
  translateSource,
  translateToFound,
} from "./nftStatement.ts";
import type { BaseChain, TableName } from "./nftTable.ts";
import { type NftChange, type NftNotification, removeTable } from "./nftables.ts";
import { type Nftables, openNftables } from "./nftables.io.ts";
import { writeSysctl } from "./sysctl.io.ts";
import { RefusedTransaction } from "./transaction.io.ts";

const a = parseAddress;
const p = parsePrefix;
const ip: TableName = { family: "ip", name: "calico" };
const ip6: TableName = { family: "ip6", name: "calico" };

/** A namespace of its own with our hands on its nf_tables. */
function opened(): {
  readonly name: string;
  readonly path: string;
  readonly nftables: Nftables;
  [Symbol.dispose](): void;
} {
  const namespace = temporaryNamespace();
  const nftables = openNftables(namespace.path);
  const { name, path } = namespace;
  const end = (): void => {
    nftables.close();
    namespace[Symbol.dispose]();
  };
  return { name, path, nftables, [Symbol.dispose]: end };
}

function nft(namespace: string, script: string): void {
  execFileSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], {
    input: script,
    stdio: ["pipe", "pipe", "pipe"],
  });
}

const chain = (table: TableName, name: string, base?: BaseChain): NftChange => ({
  kind: "addChain",
  chain: { table, name, ...(base !== undefined && { base }) },
});
const rule = (table: TableName, to: string, ...parts: readonly (readonly Expression[])[]): NftChange => ({
  kind: "addRule",
  rule: { table, chain: to, expressions: parts.flat() },
});
const commented = (change: NftChange, comment: string): NftChange =>
  change.kind === "addRule" ? { ...change, rule: { ...change.rule, comment } } : change;
const host = (text: string): KeyRange => prefixRange(p(`${text}/${text.includes(":") ? 128 : 32}`));
const net = (text: string): KeyRange => prefixRange(p(text));
const cali = (name: string, to: string): Element => ({
  key: interfaceBytes(name),
  data: { verdict: { kind: "goto", chain: to } },
});
const filled = (set: NftSet, ...elements: readonly Element[]): NftChange[] => [
  { kind: "addSet", set },
  { kind: "addElements", set, elements },
];

const pods: NftSet = { table: ip, name: "cali40s-pods", key: ["ipv4_addr"], interval: true };
const web: NftSet = {
  table: ip,
  name: "cali40n-web",
  key: ["ipv4_addr", "inet_proto", "inet_service"],
  interval: true,
  comment: "named port",
};
const pairs: NftSet = { table: ip, name: "pairs", key: ["ipv4_addr", "inet_service"] };
const dispatch: NftSet = { table: ip, name: "cali-from-wl", key: ["ifname"], data: "verdict" };
const fip: NftSet = { table: ip, name: "fip", key: ["ipv4_addr"], data: ["ipv4_addr"] };
const ports: NftSet = {
  table: ip,
  name: "__set%d",
  key: ["inet_service"],
  interval: true,
  anonymous: true,
  constant: true,
  id: 77,
};
const timed: NftSet = { table: ip, name: "timed", key: ["ipv4_addr"], dynamic: true, timeouts: true, size: 100 };
const ESTABLISHED = stateIs("established", "related");
const tcp = protocolIs(6);

/** Everything that there is a word for, in a layout like that of a node. */
function ruleset(): NftChange[] {
  const workload = (name: string, ...parts: readonly (readonly Expression[])[]): NftChange[] => [
    chain(ip, name),
    ...parts.map((part) => rule(ip, name, part)),
  ];
  return [
    { kind: "addTable", table: { ...ip, comment: "ours" } },
    { kind: "addTable", table: ip6 },
    { kind: "addObject", object: { table: ip, name: "hits", type: "counter" } },
    {
      kind: "addObject",
      object: { table: ip, name: "slow", type: "limit", unit: "packets", rate: 5, per: 60, burst: 10, over: true },
    },
    { kind: "addObject", object: { table: ip, name: "share", type: "quota", bytes: 1 << 20, over: true } },
    chain(ip, "filter-cali-po-web"),
    ...workload(
      "filter-cali-fw-cali1",
      [...ESTABLISHED, ...accept()],
      [...stateIs("invalid"), ...drop()],
      setMark(0, 0x30000),
      [...protocolIs(17), ...portIs("destination", 4789), ...count(), ...drop()],
      [...markIs(0, 0x20000), ...jump("filter-cali-po-web")],
      [...markIs(0x10000, 0x10000), ...returnToCaller()],
      [...logTo(2, "DPE|default"), ...drop()],
    ),
    ...filled(pods, net("10.0.0.0/8"), host("192.0.2.1"), net("224.0.0.0/3")),
    ...filled(
      web,
      concatenate(net("10.1.0.0/16"), { key: protocolBytes(6) }, portRange(80, 90)),
      concatenate(host("10.2.0.1"), { key: protocolBytes(17) }, portRange(53, 53)),
    ),
    ...filled(pairs, concatenate(host("10.0.0.1"), { key: portBytes(80) })),
    ...filled(dispatch, cali("cali1", "filter-cali-fw-cali1"), {
      ...cali("cali2", ""),
      data: { verdict: { kind: "drop" } },
    }),
    ...filled(fip, { ...host("192.0.2.10"), data: { value: host("10.0.0.1").key } }),
    { kind: "addSet", set: timed },
    ...filled(ports, portRange(80, 80), portRange(443, 443), portRange(8000, 8999)),
    rule(
      ip,
      "filter-cali-po-web",
      inSet(["source address"], 4, pods.name),
      tcp,
      [
        { kind: "payload", base: "transport", offset: 2, length: 2, into: 0 },
        { kind: "lookup", set: "__set%d", setId: 77, from: 0 },
      ],
      setMark(0x10000, 0x10000),
    ),
    commented(
      rule(ip, "filter-cali-po-web", inSet(["destination address"], 4, pods.name, { not: true }), accept()),
      "cali:abc",
    ),
    rule(
      ip,
      "filter-cali-po-web",
      inSet(["destination address", "protocol", "destination port"], 4, web.name),
      accept(),
    ),
    rule(ip, "filter-cali-po-web", tcp, inSet(["source address", "destination port"], 4, pairs.name), accept()),
    rule(ip, "filter-cali-po-web", addressIs("source", p("0.0.0.0/0")), count()),
    rule(
      ip,
      "filter-cali-po-web",
      addressIs("source", p("10.1.2.0/23"), { not: true }),
      addressIs("destination", p("10.0.0.0/8")),
      accept(),
    ),
    rule(
      ip,
      "filter-cali-po-web",
      tcp,
      portIs("source", 1024, 65535),
      portIs("destination", 22, 22, { not: true }),
      accept(),
    ),
    rule(ip, "filter-cali-po-web", protocolIs(1), icmpIs(8), accept()),
    rule(ip, "filter-cali-po-web", protocolIs(1), icmpIs(3, 4), accept()),
    rule(ip, "filter-cali-po-web", protocolIs(132, { not: true }), drop()),
    rule(ip, "filter-cali-po-web", limitPackets({ rate: 10, per: "second" }), logToKernel("calico-packet: ", 5)),
    rule(ip, "filter-cali-po-web", limitBytes({ rate: 1 << 20, per: "minute", burst: 1 << 10 }, true), drop()),
    rule(ip, "filter-cali-po-web", connectionsOver(20), drop()),
    rule(ip, "filter-cali-po-web", countAs("hits"), logTo(1, "API0|np.default/web", 80)),
    rule(
      ip,
      "filter-cali-po-web",
      remember("timed", { kind: "payload", base: "network", offset: 12, length: 4, into: 0 }, "update", 30_000),
    ),
    rule(ip, "filter-cali-po-web", setDscp4(46)),
    rule(ip, "filter-cali-po-web", metaIs("skuid", 0), statusIs("dnat"), directionIs("original"), accept()),
    rule(ip, "filter-cali-po-web", originalDestinationIs(a("192.0.2.10")), accept()),
    rule(ip, "filter-cali-po-web", tcp, originalPortIs(80), accept()),
    chain(ip, "filter-INPUT", { type: "filter", hook: "input", priority: 0, policy: "accept" }),
    rule(ip, "filter-INPUT", tcp, reject("tcp reset")),
    rule(ip, "filter-INPUT", reject({ code: 13 })),
    chain(ip, "filter-FORWARD", { type: "filter", hook: "forward", priority: 0, policy: "drop" }),
    rule(ip, "filter-FORWARD", interfaceIs("input", "cali*"), verdictMap(["input interface"], 4, dispatch.name)),
    rule(ip, "filter-FORWARD", interfaceIs("output", "eth0", { not: true }), goTo("filter-cali-fw-cali1")),
    chain(ip, "raw-PREROUTING", { type: "filter", hook: "prerouting", priority: -300 }),
    rule(ip, "raw-PREROUTING", markIs(0x80000, 0x80000), noRouteBack({ mark: true }), drop()),
    rule(ip, "raw-PREROUTING", addressTypeIs("destination", "local", { not: true }), doNotTrack()),
    chain(ip, "mangle-OUTPUT", { type: "route", hook: "output", priority: -150 }),
    rule(ip, "mangle-OUTPUT", connectionMarkIs(0x1, 0xff), setConnectionMark(0x2, 0xff)),
    rule(ip, "mangle-OUTPUT", markIs(5, 0xffffffff), saveMark()),
    chain(ip, "nat-PREROUTING", { type: "nat", hook: "prerouting", priority: -100 }),
    rule(ip, "nat-PREROUTING", lookUp(["destination address"], 4, fip.name), translateToFound("dnat", 4)),
    rule(ip, "nat-PREROUTING", tcp, portIs("destination", 81), translateDestination(a("10.0.0.1"), 8081)),
    rule(ip, "nat-PREROUTING", tcp, portIs("destination", 82), redirect(8082)),
    chain(ip, "nat-POSTROUTING", { type: "nat", hook: "postrouting", priority: 110 }),
    rule(ip, "nat-POSTROUTING", addressIs("source", p("10.0.0.1/32")), translateSource(a("192.0.2.10"))),
    rule(ip, "nat-POSTROUTING", tcp, masquerade({ first: 32768, last: 60999 }, { fullyRandom: true })),
    rule(ip, "nat-POSTROUTING", masquerade(undefined, { fullyRandom: true })),
    chain(ip6, "filter-INPUT", { type: "filter", hook: "input", priority: 0 }),
    rule(ip6, "filter-INPUT", protocolIs(58), icmpTypeWithin(130, 136), accept()),
    rule(
      ip6,
      "filter-INPUT",
      addressIs("source", p("2001:db8::/64")),
      addressIs("destination", p("2001:db8::/61")),
      drop(),
    ),
  ];
}

describe("nf_tables", () => {
  test("what we write is what nft lists", () => {
    using made = opened();
    made.nftables.apply(ruleset());
    assertGolden(join(import.meta.dirname, "golden", "ruleset.nft"), inside(made.name, "nft", "list", "ruleset"));
  });

  test("what we write is what we list", () => {
    using made = opened();
    const changes = ruleset();
    made.nftables.apply(changes);
    const contents = made.nftables.list(ip);
    assert.ok(contents);
    assert.equal(contents.table.comment, "ours");
    const written = changes.flatMap((change) =>
      change.kind === "addRule" && change.rule.table === ip ? [change.rule] : [],
    );
    for (const [name, rules] of Map.groupBy(written, (one) => one.chain)) {
      const listed: readonly NftRule[] = contents.rules.get(name) ?? [];
      assert.deepEqual(
        listed.map(({ comment }) => comment),
        rules.map(({ comment }) => comment),
      );
      for (const [at, { expressions }] of rules.entries()) {
        const named = expressions.map((one) =>
          one.kind === "lookup" && one.set === "__set%d" ? { ...one, set: "__set0" } : one,
        );
        assert.ok(
          sameExpressions(listed[at]!.expressions, named),
          `${name}: ${JSON.stringify(listed[at]?.expressions)}`,
        );
      }
    }
    const chains = changes.flatMap((change) =>
      change.kind === "addChain" && change.chain.table === ip ? [change.chain] : [],
    );
    assert.deepEqual(contents.chains.map(({ name }) => name).toSorted(), chains.map(({ name }) => name).toSorted());
    for (const change of changes) {
      if (change.kind !== "addElements" || change.set.id !== undefined) continue;
      const order = (elements: readonly KeyRange[]): string[] => elements.map((one) => JSON.stringify(one)).toSorted();
      assert.deepEqual(order(contents.elements.get(change.set.name) ?? []), order(change.elements), change.set.name);
    }
    assert.deepEqual(contents.objects.map(({ name, type }) => `${type} ${name}`).toSorted(), [
      "counter hits",
      "limit slow",
      "quota share",
    ]);
  });

  test("what nft makes of its own listing is the same to us", () => {
    using made = opened();
    made.nftables.apply(ruleset());
    const before = made.nftables.list(ip);
    const text = inside(made.name, "nft", "list", "ruleset");
    nft(made.name, `flush ruleset\n${text}`);
    const after = made.nftables.list(ip);
    assert.ok(before && after);
    for (const [name, rules] of before.rules) {
      for (const [at, { expressions }] of rules.entries()) {
        // In a concatenation nft swaps the bytes of a protocol, of which there is one.
        const theirs: readonly Expression[] = (after.rules.get(name)?.[at]?.expressions ?? []).filter(
          ({ kind }: Expression) => kind !== "byteorder",
        );
        assert.ok(sameExpressions(theirs, expressions), `${name} ${at}: ${JSON.stringify(theirs)}`);
      }
    }
    const content = (elements: ReadonlyMap<string, readonly Element[]>): unknown =>
      [...elements]
        .map(([name, list]) => [name, ...list.map((one) => JSON.stringify(one)).toSorted()].join(" "))
        .toSorted();
    assert.deepEqual(content(after.elements), content(before.elements));
  });

  test("a refused change names its place, and nothing of the transaction was done", () => {
    using made = opened();
    const { nftables } = made;
    nftables.apply([{ kind: "addTable", table: ip }, chain(ip, "c"), ...filled(pods, net("10.0.0.0/8"))]);
    const before = inside(made.name, "nft", "list", "ruleset");
    const cases: { changes: NftChange[]; at: number[]; sentence: RegExp; code: RegExp }[] = [
      {
        changes: [
          rule(ip, "c", accept()),
          commented(rule(ip, "c", inSet(["source address"], 4, "none"), accept()), "cali:x"),
        ],
        at: [1],
        sentence: /^Cannot add rule "cali:x" to chain c of table ip calico: .*\(ENOENT\) at lookup of set none$/,
        code: /^ENOENT$/,
      },
      {
        changes: [rule(ip, "c", jump("nowhere")), rule(ip, "none", accept()), rule(ip, "c", accept())],
        at: [0, 1],
        sentence: /\(ENOENT\) at jump to nowhere \(and 1 more change was refused\)$/,
        code: /^ENOENT$/,
      },
      {
        changes: [
          { kind: "addElements", set: pods, elements: [net("11.0.0.0/8"), net("10.1.0.0/16"), net("12.0.0.0/8")] },
        ],
        at: [0],
        sentence:
          /^Cannot add 11\.0\.0\.0\/8, 10\.1\.0\.0\/16, 12\.0\.0\.0\/8 to set cali40s-pods of table ip calico: .* at 10\.1\.0\.0$/,
        code: /^EEXIST$/,
      },
      {
        changes: [chain(ip, "d"), { kind: "deleteElements", set: pods, elements: [host("192.0.2.1")] }],
        at: [1],
        sentence: /Cannot delete 192\.0\.2\.1 of set cali40s-pods.*ENOENT\) at 192\.0\.2\.1$/,
        code: /^ENOENT$/,
      },
      {
        changes: [
          chain(ip, "base", { type: "filter", hook: "input", priority: 0 }),
          rule(ip, "base", jump("c")),
          chain(ip, "d"),
          rule(ip, "d", jump("c")),
          rule(ip, "c", jump("d")),
        ],
        at: [4],
        sentence: /Cannot add rule to chain c of table ip calico: too many (symbolic )?links/,
        code: /^(EMLINK|ELOOP)$/, // newer kernels, older ones
      },
    ];
    for (const { changes, at, sentence, code } of cases) {
      assert.throws(
        () => nftables.apply(changes),
        (error) => {
          assert.ok(error instanceof RefusedTransaction);
          assert.match(error.message, sentence);
          assert.match(error.code, code);
          assert.deepEqual(
            error.refusals.map((one) => one.at),
            at,
          );
          return true;
        },
      );
    }
    assert.equal(inside(made.name, "nft", "list", "ruleset"), before);
    nftables.apply([rule(ip, "c", accept())]);
    nftables.apply([]);
    assert.match(inside(made.name, "nft", "list", "ruleset"), /chain c \{\n\t\taccept/);
  });

  test("a generation that is past is refused, and `update` plans anew", () => {
    using made = opened();
    using other = { nftables: openNftables(made.path), [Symbol.dispose]: () => other.nftables.close() };
    const { nftables } = made;
    assert.equal(nftables.list(ip), undefined);
    nftables.apply([{ kind: "addTable", table: ip }]);
    const { generation } = nftables.list(ip)!;
    other.nftables.apply([chain(ip, "theirs")]);
    assert.throws(() => nftables.apply([chain(ip, "ours")], { generation }), { code: "ERESTART" });
    const seen: string[][] = [];
    nftables.update(ip, (contents) => {
      const names = contents?.chains.map(({ name }) => name) ?? [];
      seen.push(names);
      if (seen.length === 1) other.nftables.apply([chain(ip, "more")]);
      return [chain(ip, `after-${names.length}`)];
    });
    assert.deepEqual(seen, [["theirs"], ["theirs", "more"]]);
    assert.deepEqual(
      nftables.list(ip)?.chains.map(({ name }) => name),
      ["theirs", "more", "after-2"],
    );
  });

  test("rules go to their places, and are found by the handles that the kernel gave", () => {
    using made = opened();
    const { nftables } = made;
    const mark = (number: number): NftChange => rule(ip, "c", setMark(number, 0xffffffff));
    const placed = (number: number, place: RulePlace): NftChange => ({ ...mark(number), place }) as NftChange;
    nftables.apply([{ kind: "addTable", table: ip }, chain(ip, "c")]);
    const { handles } = nftables.apply([mark(1), chain(ip, "d"), mark(2)], { handles: true });
    const [first, none, second] = handles;
    assert.equal(none, undefined);
    assert.ok(first !== undefined && second !== undefined);
    nftables.apply([
      placed(3, { after: first }),
      placed(4, { before: first }),
      placed(5, "first"),
      placed(6, { instead: second }),
    ]);
    const order = (): number[] =>
      (nftables.list(ip)?.rules.get("c") ?? []).map(({ expressions: [one] }) =>
        one?.kind === "immediate" && "value" in one.data ? (one.data.value[0] ?? -1) : -1,
      );
    assert.deepEqual(order(), [5, 4, 1, 3, 6]);
    nftables.apply([{ kind: "deleteRule", rule: { table: ip, chain: "c", handle: first } }]);
    assert.deepEqual(order(), [5, 4, 3, 6]);
    nftables.apply([{ kind: "flushChain", chain: { table: ip, name: "c" } }, mark(7)]);
    assert.deepEqual(order(), [7]);
    nftables.apply(removeTable(ip));
    assert.equal(nftables.list(ip), undefined);
    nftables.apply(removeTable(ip));
    assert.equal(inside(made.name, "nft", "list", "ruleset"), "");
  });

  test("ten thousand elements, one more, one less; of each kind of set", () => {
    using made = opened();
    const { nftables } = made;
    const plain: NftSet = { table: ip, name: "plain", key: ["ipv4_addr"] };
    const endpoints: NftSet = { ...pairs, name: "endpoints", key: ["ipv4_addr", "inet_proto", "inet_service"] };
    const at = (number: number): string => `10.${number >> 16}.${(number >> 8) & 255}.${number & 255}`;
    const kinds: [NftSet, (number: number) => Element][] = [
      [plain, (number) => host(at(number))],
      [pods, (number) => net(`${at(number * 4)}/31`)],
      [
        { ...plain, name: "map", data: ["ipv4_addr"] },
        (number) => ({ ...host(at(number)), data: { value: host("192.0.2.1").key } }),
      ],
      [endpoints, (number) => concatenate(host(at(number)), { key: protocolBytes(6) }, portRange(80, 80))],
      [
        { ...web, name: "ranges" },
        (number) => concatenate(net(`${at(number * 4)}/31`), { key: protocolBytes(6) }, portRange(80, 90)),
      ],
    ];
    nftables.apply([{ kind: "addTable", table: ip }]);
    for (const [set, elementAt] of kinds) {
      // Ranges of concatenations cost the kernel far more.
      const size = set.name === "ranges" ? 1000 : 10_000;
      nftables.apply(filled(set, ...Array.from({ length: size }, (_, number) => elementAt(number))));
      nftables.apply([{ kind: "addElements", set, elements: [elementAt(size)] }]);
      nftables.apply([{ kind: "deleteElements", set, elements: [elementAt(7)] }]);
      const expected = Array.from({ length: size + 1 }, (_, number) => elementAt(number)).toSpliced(7, 1);
      const order = (list: readonly Element[]): string[] => list.map((one) => JSON.stringify(one)).toSorted();
      assert.deepEqual(order(nftables.list(ip)?.elements.get(set.name) ?? []), order(expected), set.name);
      nftables.apply([{ kind: "flushSet", set }]);
      assert.deepEqual(nftables.list(ip)?.elements.get(set.name), []);
    }
  });

  test("elements that were written before go to the set of the number, or of the name", () => {
    using made = opened();
    const { nftables } = made;
    const set: NftSet = { table: ip, name: "plain", key: ["ipv4_addr"] };
    const numbered: NftSet = { ...set, id: 77 };
    const adding = (to: NftSet, ...texts: string[]): NftChange => ({
      kind: "addWrittenElements",
      set: to,
      elements: writeElements(to, texts.map(host)),
    });
    nftables.apply([
      { kind: "addTable", table: ip },
      { kind: "addSet", set: { ...set, name: "other", id: 78 } },
      { kind: "addSet", set: numbered },
      adding(numbered, "10.0.0.1", "10.0.0.2"),
    ]);
    nftables.apply([adding(set, "10.0.0.3")]);
    const { elements } = nftables.list(ip)!;
    const keys = elements.get("plain")!.map(({ key }) => key.join("."));
    assert.deepEqual(keys.toSorted(), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert.deepEqual(elements.get("other"), []);
    assert.throws(() => nftables.apply([adding({ ...set, name: "none" }, "10.0.0.4")]), {
      code: "ENOENT",
      message: /^Cannot add 1 element to set none of table ip calico: /,
    });
  });

  test("a range gives way to one that holds it, in one transaction", () => {
    using made = opened();
    const { nftables } = made;
    nftables.apply([{ kind: "addTable", table: ip }, ...filled(pods, net("10.1.0.0/16"), net("10.2.0.0/16"))]);
    nftables.apply([
      { kind: "deleteElements", set: pods, elements: [net("10.1.0.0/16"), net("10.2.0.0/16")] },
      { kind: "addElements", set: pods, elements: [net("10.0.0.0/8")] },
    ]);
    assert.deepEqual(nftables.list(ip)?.elements.get(pods.name), [net("10.0.0.0/8")]);
    nftables.apply([
      { kind: "deleteElements", set: pods, elements: [net("10.0.0.0/8")] },
      { kind: "addElements", set: pods, elements: [net("10.0.0.0/9"), net("10.128.0.0/9")] },
    ]);
    assert.deepEqual(nftables.list(ip)?.elements.get(pods.name), [net("10.0.0.0/9"), net("10.128.0.0/9")]);
  });

  test("a watch tells of others' transactions, and not of ours", async () => {
    using made = opened();
    const { nftables } = made;
    const heard: { changes: readonly NftNotification[]; program: string }[] = [];
    let told = Promise.withResolvers<void>();
    const stop = nftables.watch({
      changed(changes, { program }) {
        heard.push({ changes, program });
        told.resolve();
      },
      overrun: (reason) => told.reject(new Error(reason)),
      failed: (failure) => told.reject(failure),
    });
    try {
      nftables.apply([{ kind: "addTable", table: ip }, chain(ip, "c"), ...filled(pods, net("10.0.0.0/8"))]);
      nft(
        made.name,
        "add rule ip calico c ip saddr @cali40s-pods accept\nadd element ip calico cali40s-pods { 192.0.2.0/24 }\n",
      );
      await told.promise;
      told = Promise.withResolvers();
      nftables.apply([chain(ip, "d")]);
      nft(made.name, "flush ruleset");
      await told.promise;
    } finally {
      stop();
    }
    assert.deepEqual(
      heard.map(({ changes, program }) => [
        program,
        ...changes.map((one) => ("change" in one ? `${one.change} ${one.kind}` : one.kind)),
      ]),
      [
        // The beginning of a range and its end are told of one by one.
        ["nft", "new rule", "new elements", "new elements"],
        ["nft", "deleted rule", "deleted set", "deleted chain", "deleted chain", "deleted table"],
      ],
    );
    const [rules, ...ends] = heard[0]?.changes ?? [];
    const elements = ends.flatMap((one) => (one.kind === "elements" ? [one.elements] : []));
    assert.ok(
      rules?.kind === "rule" &&
        sameExpressions(rules.rule.expressions, [...inSet(["source address"], 4, pods.name), ...accept()]),
    );
    assert.equal(elements[0]?.set, pods.name);
    assert.deepEqual(elementsOf(pods, elements), [net("192.0.2.0/24")]);
  });

  test("packets follow verdict maps, sets and translations", () => {
    using made = opened();
    using one = temporaryNamespace();
    using two = temporaryNamespace();
    const { nftables } = made;
    for (const [number, pod] of [one, two].entries()) {
      const net24 = `10.0.${number + 1}`;
      const run = (...words: string[]): string => inside(made.name, "ip", ...words);
      run("link", "add", `cali${number + 1}`, "type", "veth", "peer", "name", "eth0", "netns", pod.name);
      run("addr", "add", `${net24}.1/24`, "dev", `cali${number + 1}`);
      run("link", "set", `cali${number + 1}`, "up");
      inside(pod.name, "ip", "addr", "add", `${net24}.2/24`, "dev", "eth0");
      inside(pod.name, "ip", "link", "set", "eth0", "up");
      inside(pod.name, "ip", "route", "add", "default", "via", `${net24}.1`);
    }
    inNamespace(made.path, () => writeSysctl("ipv4/ip_forward", 1));
    const servers = [one, two].flatMap(({ path }) => [80, 91].map((port) => listenIn(path, port)));
    try {
      const open = {
        a80: (): boolean => connects(one.path, "10.0.2.2", 80),
        a91: (): boolean => connects(one.path, "10.0.2.2", 91),
        b80: (): boolean => connects(two.path, "10.0.1.2", 80),
      };
      assert.deepEqual([open.a80(), open.a91(), open.b80()], [true, true, true]);
      const port = (first: number, last: number): Element =>
        concatenate(net("10.0.2.0/24"), { key: protocolBytes(6) }, portRange(first, last));
      const refuse = [...tcp, ...reject("tcp reset")];
      nftables.apply([
        { kind: "addTable", table: ip },
        { kind: "addObject", object: { table: ip, name: "hits", type: "counter" } },
        chain(ip, "from-one"),
        ...filled(web, port(80, 90)),
        ...filled(dispatch, cali("cali1", "from-one"), {
          key: interfaceBytes("cali9"),
          data: { verdict: { kind: "drop" } },
        }),
        chain(ip, "forward", { type: "filter", hook: "forward", priority: 0, policy: "drop" }),
        rule(ip, "forward", ESTABLISHED, accept()),
        rule(ip, "forward", verdictMap(["input interface"], 4, dispatch.name)),
        rule(ip, "forward", refuse),
        rule(
          ip,
          "from-one",
          inSet(["destination address", "protocol", "destination port"], 4, web.name),
          countAs("hits"),
          accept(),
        ),
        rule(ip, "from-one", count(), refuse),
      ]);
      assert.deepEqual([open.a80(), open.a91(), open.b80()], [true, false, false]);
      nftables.apply([
        { kind: "deleteElements", set: web, elements: [port(80, 90)] },
        { kind: "addElements", set: web, elements: [port(91, 91)] },
        {
          kind: "addElements",
          set: dispatch,
          elements: [{ key: interfaceBytes("cali2"), data: { verdict: { kind: "accept" } } }],
        },
      ]);
      assert.deepEqual([open.a80(), open.a91(), open.b80()], [false, true, true]);
      const contents = nftables.list(ip);
      assert.partialDeepStrictEqual(contents?.objects, [{ name: "hits", type: "counter", packets: 2 }]);
      const [counted] = contents?.rules.get("from-one")?.[1]?.expressions ?? [];
      assert.ok(counted?.kind === "counter" && counted.packets !== undefined && counted.packets >= 2);

      assert.equal(connects(one.path, "192.0.2.10", 91), false);
      nftables.apply([
        ...filled(fip, { ...host("192.0.2.10"), data: { value: host("10.0.2.2").key } }),
        chain(ip, "pre", { type: "nat", hook: "prerouting", priority: -100 }),
        rule(ip, "pre", lookUp(["destination address"], 4, fip.name), translateToFound("dnat", 4)),
      ]);
      assert.equal(connects(one.path, "192.0.2.10", 91), true);
    } finally {
      for (const fd of servers) closeSync(fd);
    }
  });
});

/** A TCP server's socket: the kernel answers for it. */
function listenIn(path: string, port: number): number {
  const fd = socketIn(path, AF_INET, SOCK_STREAM, 0);
  bind(fd, address4("0.0.0.0", port));
  listen(fd, 16);
  return fd;
}

/** Whether a TCP connection comes about within half a second. */
function connects(path: string, to: string, port: number): boolean {
  const fd = socketIn(path, AF_INET, SOCK_STREAM, 0);
  try {
    const SO_SNDTIMEO = 21;
    setSocketOption(fd, SOL_SOCKET, SO_SNDTIMEO, new Uint8Array(BigInt64Array.of(0n, 500_000n).buffer));
    connect(fd, address4(to, port));
    return true;
  } catch {
    return false;
  } finally {
    closeSync(fd);
  }
}

/** `struct sockaddr_in`: family in the host's order, port, address, padding. */
function address4(address: string, port: number): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set([AF_INET, 0, ...portBytes(port), ...host(address).key]);
  return bytes;
}

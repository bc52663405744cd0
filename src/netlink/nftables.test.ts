import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { decodeMessages, encodeMessage, readAnswer, type Request } from "./framing.ts";
import { messageOf, readGolden } from "./golden.testing.ts";
import { type Data, findUserData } from "./nftData.ts";
import { present } from "./attributes.ts";
import { decodeBareElement, encodeBareElement } from "./nftBareElement.ts";
import {
  addElements,
  addWrittenElements,
  decodeElements,
  deleteElements,
  type Element,
  element,
  elementsOf,
  writeElements,
} from "./nftElement.ts";
import type { Expression } from "./nftExpression.ts";
import { expressions as expressionList, keepBytes, sameExpressions } from "./nftExpressionCodec.ts";
import {
  concatenate,
  formatKey,
  hostBytes,
  interfaceBytes,
  type KeyType,
  portBytes,
  portRange,
  prefixRange,
  protocolBytes,
} from "./nftKey.ts";
import { addressIs, inSet } from "./nftMatch.ts";
import { addRule, decodeRule, type NftRule } from "./nftRule.ts";
import { addSet, decodeSet, type NftSet } from "./nftSet.ts";
import { accept } from "./nftStatement.ts";
import { addChain, addTable, type Chain, decodeChain, decodeTable, type Table } from "./nftTable.ts";
import { describeChange } from "./nftDescribe.ts";
import { decodeNftNotification, type NftChange, requestsOf } from "./nftables.ts";

/** Fields that may be absent, as types with optional fields want them. */
function optional<Fields extends object>(fields: {
  [Name in keyof Fields]: fc.Arbitrary<Fields[Name]>;
}): fc.Arbitrary<Partial<Fields>> {
  return fc.record(fields, { requiredKeys: [], noNullPrototype: true }) as fc.Arbitrary<Partial<Fields>>;
}
/** Ordinary objects, as decoding gives. */
const record = <Fields extends object>(fields: {
  [Name in keyof Fields]: fc.Arbitrary<Fields[Name]>;
}): fc.Arbitrary<Fields> => fc.record(fields, { noNullPrototype: true }) as fc.Arbitrary<Fields>;
const merged = <A extends object, B extends object>(a: fc.Arbitrary<A>, b: fc.Arbitrary<B>): fc.Arbitrary<A & B> =>
  fc.tuple(a, b).map(([one, other]) => ({ ...one, ...other }));

const yes = fc.constant(true as const);
const u32 = fc.integer({ min: 0, max: 0xffffffff });
const positive = fc.integer({ min: 1, max: 0x7fffffff });
const count = fc.nat(Number.MAX_SAFE_INTEGER);
const name = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9_-]{0,30}$/);
const comment = fc.stringMatching(/^[ -~]{0,100}$/);
const bytes = fc.uint8Array({ minLength: 1, maxLength: 16 });
const register = fc.nat(15);
const table = record({ family: fc.constantFrom("ip", "ip6", "inet", "bridge" as const), name });

const verdict = fc.oneof(
  record({ kind: fc.constantFrom("accept", "drop", "return", "continue", "break" as const) }),
  record({ kind: fc.constantFrom("jump", "goto" as const), chain: name }),
);
const data: fc.Arbitrary<Data> = fc.oneof(record({ value: bytes }), record({ verdict }));
const kind = <K extends Expression["kind"]>(value: K): fc.Arbitrary<K> => fc.constant(value);
const natOptions = optional({ random: yes, persistent: yes, fullyRandom: yes });
const twoPorts = fc.oneof(
  fc.constant({}),
  record({ port: fc.nat(7) }),
  record({ port: fc.nat(7), lastPort: fc.integer({ min: 8, max: 15 }) }),
);

const expressions: fc.Arbitrary<Expression> = fc.oneof(
  record({ kind: kind("meta"), key: fc.constantFrom("mark", "iifname", "l4proto" as const), into: register }),
  record({ kind: kind("setMeta"), key: fc.constantFrom("mark", "priority" as const), from: register }),
  record({
    kind: kind("payload"),
    base: fc.constantFrom("network", "transport" as const),
    offset: fc.nat(40),
    length: fc.integer({ min: 1, max: 16 }),
    into: register,
  }),
  record({
    kind: kind("cmp"),
    from: register,
    operator: fc.constantFrom("eq", "neq", "lt", "gte" as const),
    value: bytes,
  }),
  record({ kind: kind("bitwise"), from: register, into: register, mask: bytes, xor: bytes }),
  record({
    kind: kind("range"),
    from: register,
    operator: fc.constantFrom("eq", "neq" as const),
    first: bytes,
    last: bytes,
  }),
  merged(
    record({ kind: kind("lookup"), set: name, from: register }),
    optional({ into: fc.oneof(register, fc.constant("verdict" as const)), invert: yes }),
  ),
  merged(
    record({ kind: kind("ct"), key: fc.constantFrom("state", "ip daddr", "proto-dst" as const), into: register }),
    optional({ direction: fc.constantFrom("original", "reply" as const) }),
  ),
  record({ kind: kind("immediate"), into: register, data }),
  merged(fc.constant({ kind: "counter" as const }), optional({ packets: count, bytes: count })),
  merged(
    record({
      kind: kind("limit"),
      type: fc.constantFrom("packets", "bytes" as const),
      rate: count,
      per: positive,
      over: fc.boolean(),
    }),
    optional({ burst: positive }),
  ),
  merged(
    fc.constant({ kind: "log" as const }),
    optional({ prefix: name, group: fc.nat(65535), snapLength: u32, queueThreshold: fc.nat(65535), level: fc.nat(7) }),
  ),
  merged(
    merged(
      record({
        kind: kind("nat"),
        type: fc.constantFrom("snat", "dnat" as const),
        family: fc.constantFrom("ip", "ip6" as const),
        address: fc.nat(3),
      }),
      optional({ lastAddress: fc.integer({ min: 4, max: 7 }) }),
    ),
    merged(twoPorts, natOptions),
  ),
  merged(fc.constant({ kind: "masquerade" as const }), merged(twoPorts, natOptions)),
  merged(fc.constant({ kind: "redirect" as const }), merged(twoPorts, natOptions)),
  record({ kind: kind("reject"), type: fc.constantFrom("icmp", "tcp reset", "icmpx" as const), code: fc.nat(255) }),
  record({
    kind: kind("fib"),
    by: fc.subarray(["saddr", "daddr", "mark", "iif", "oif", "present"] as const, { minLength: 1 }),
    result: fc.constantFrom("oif", "type" as const),
    into: register,
  }),
  fc.constant({ kind: "notrack" as const }),
  record({ kind: kind("objref"), type: fc.constantFrom("counter", "quota", "limit" as const), name }),
  record({ kind: kind("objrefMap"), from: register, set: name }),
  merged(
    record({ kind: kind("dynset"), operation: fc.constantFrom("add", "update" as const), set: name, from: register }),
    optional({ timeout: positive }),
  ),
  record({ kind: kind("other"), name: fc.stringMatching(/^x[a-z]{1,8}$/), data: bytes }),
);

const rules: fc.Arbitrary<NftRule> = merged(
  record({ table, chain: name, expressions: fc.array(expressions, { maxLength: 8 }) }),
  optional({ comment }),
);
const chains: fc.Arbitrary<Chain> = merged(
  record({ table, name }),
  optional({
    comment,
    base: merged(
      record({
        type: fc.constantFrom("filter", "nat", "route" as const),
        hook: fc.constantFrom("prerouting", "input", "forward", "output", "postrouting" as const),
        priority: fc.integer({ min: -400, max: 400 }),
      }),
      optional({ policy: fc.constantFrom("accept", "drop" as const) }),
    ),
  }),
);
const tables: fc.Arbitrary<Table> = merged(table, optional({ dormant: yes, owned: yes, persistent: yes, comment }));
const types = fc.constantFrom<KeyType>(
  "ipv4_addr",
  "ipv6_addr",
  "inet_proto",
  "inet_service",
  "mark",
  "ifname",
  "ether_addr",
);
const key = fc.array(types, { minLength: 1, maxLength: 4 });
const sets: fc.Arbitrary<NftSet> = merged(
  record({ table, name, key }),
  optional({
    data: fc.oneof(
      fc.constant("verdict" as const),
      key,
      record({ object: fc.constantFrom("counter", "quota" as const) }),
    ),
    interval: yes,
    dynamic: yes,
    timeouts: yes,
    timeout: positive,
    size: positive,
    counter: yes,
    comment,
  }),
);

describe("what is written to nf_tables is read back", () => {
  const withHandle = { handle: 0 };
  test("tables", () => {
    fc.assert(
      fc.property(tables, (one) => assert.deepEqual(decodeTable(messageOf(addTable(one))), { ...one, ...withHandle })),
    );
  });
  test("chains", () => {
    fc.assert(
      fc.property(chains, (one) => assert.deepEqual(decodeChain(messageOf(addChain(one))), { ...one, ...withHandle })),
    );
  });
  test("rules of every expression", () => {
    const seen = new Set<string>();
    const property = fc.property(rules, (rule) => {
      for (const one of rule.expressions) seen.add(one.kind);
      const expected = rule.expressions.map((one) => (one.kind === "reject" ? { ...one } : one));
      assert.deepEqual(decodeRule(messageOf(addRule(rule))), { ...rule, expressions: expected, ...withHandle });
      assert.ok(sameExpressions(rule.expressions, expected));
    });
    fc.assert(property, { numRuns: 300 });
    assert.ok(seen.size >= 22, [...seen].join());
  });
  test("expressions whose bytes are kept, as those that are written anew", () => {
    const bytesOf = (list: readonly Expression[]): Uint8Array => {
      const writer = new ByteWriter();
      expressionList.encode(writer, list);
      return writer.finish();
    };
    fc.assert(
      fc.property(fc.array(expressions, { maxLength: 5 }), (list) => {
        const before = bytesOf(list);
        assert.deepEqual(bytesOf(keepBytes(list)), before);
        assert.deepEqual(bytesOf(list), before);
      }),
    );
  });
  test("sets", () => {
    fc.assert(
      fc.property(sets, (one) => assert.deepEqual(decodeSet(messageOf(addSet(one))), { ...one, ...withHandle })),
    );
  });

  test("elements, ranges and concatenations, in as many messages as it takes", () => {
    const table4 = { family: "ip", name: "t" } as const;
    const address = fc.nat(0xffffffff).map((number) => hostBytes(number).toReversed());
    // Disjoint ranges: pairs of a sorted list.
    const ranges = fc.uniqueArray(u32, { minLength: 2, maxLength: 60 }).map((numbers) => {
      const sorted = numbers.toSorted((a, b) => a - b);
      return sorted.flatMap((first, at): Element[] => {
        const last = sorted[at + 1];
        if (at % 2 === 1 || last === undefined) return [];
        return [{ key: hostBytes(first).toReversed(), last: hostBytes(last).toReversed() }];
      });
    });
    const plain = fc
      .uniqueArray(address, { selector: String, maxLength: 50 })
      .map((keys) => keys.map((one): Element => ({ key: one })));
    const cases = fc.oneof(
      fc.tuple(fc.constant<NftSet>({ table: table4, name: "s", key: ["ipv4_addr"], interval: true }), ranges),
      fc.tuple(fc.constant<NftSet>({ table: table4, name: "s", key: ["ipv4_addr"] }), plain),
      fc.tuple(
        fc.constant<NftSet>({ table: table4, name: "s", key: ["ipv4_addr", "inet_service"], interval: true }),
        ranges.map((list) =>
          list.map(({ key: first, last }) => concatenate({ key: first, ...(last && { last }) }, portRange(1, 9))),
        ),
      ),
    );
    const property = fc.property(cases, ([set, elements]) => {
      const read = addElements(set, elements).map((request) => decodeElements(messageOf(request))!);
      assert.deepEqual(elementsOf(set, read), elements);
      assert.equal(deleteElements(set, elements).length, elements.length === 0 ? 0 : 1);
      const written = writeElements(set, elements);
      assert.equal(written.count, elements.length);
      const sent = (of: readonly Request[]): Uint8Array[] =>
        of.map((request) => messageOf(request).body.rest().slice());
      assert.deepEqual(sent(addWrittenElements(set, written)), sent(addElements(set, elements)));
    });
    fc.assert(property);

    const many = Array.from({ length: 10_000 }, (_, number): Element => ({
      key: hostBytes(number).toReversed(),
      last: hostBytes(number).toReversed(),
    }));
    const set: NftSet = { table: table4, name: "s", key: ["ipv4_addr"], interval: true };
    const messages = addElements(set, many).map(messageOf);
    assert.ok(messages.length > 4);
    const read = elementsOf(
      set,
      messages.map((message) => decodeElements(message)!),
    );
    assert.deepEqual(
      read,
      many.map(({ key: one }) => ({ key: one })),
    );
  });
});

test("bare elements are written and read without the table as with it", () => {
  const bare = merged(record({ key: bytes }), optional({ flags: fc.nat(3), last: bytes }));
  fc.assert(
    fc.property(bare, fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 2 }), (one, mutations) => {
      const [fast, clear] = [encodeBareElement, (writer: ByteWriter): void => element.encode(writer, one)].map(
        (encode) => {
          const writer = new ByteWriter();
          encode(writer, one);
          return writer.finish();
        },
      );
      assert.ok(fast && clear);
      assert.deepEqual(fast, clear);
      for (const [at, value] of mutations) if (at < fast.length) fast[at] = value;
      const read = decodeBareElement(new DataView(fast.buffer), fast, 0, fast.length);
      if (read !== undefined) assert.deepEqual(read, present(element.decode(new ByteReader(fast), "element")));
      else assert.ok(mutations.length > 0);
    }),
    { numRuns: 1000 },
  );
});

describe("mutated answers of nf_tables", () => {
  const datagrams = ["nftTable", "nftSet", "nftRule", "nftRule6"].flatMap((file) =>
    readGolden(file).flatMap(({ answers }) => answers),
  );
  test("there are some", () => assert.ok(datagrams.length >= 30));

  test("are read, or refused with MalformedBytes", () => {
    const mutation = record({
      datagram: fc.constantFrom(...datagrams),
      at: fc.array(fc.tuple(fc.double({ min: 0, max: 0.9999, noNaN: true }), fc.nat(255)), { maxLength: 4 }),
      cut: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
    });
    let refused = 0;
    const property = fc.property(mutation, ({ datagram, at, cut }) => {
      const mutated = datagram.slice(0, cut === null ? datagram.length : Math.floor(datagram.length * cut));
      for (const [place, value] of at) if (mutated.length > 0) mutated[Math.floor(place * mutated.length)] = value;
      try {
        for (const message of decodeMessages(mutated)) {
          if (readAnswer(message).kind !== "data") continue;
          const notification = decodeNftNotification(message);
          if (notification?.kind === "elements")
            elementsOf({ key: ["ipv4_addr"], interval: true }, [notification.elements]);
        }
      } catch (error) {
        assert.ok(error instanceof MalformedBytes, String(error));
        refused += 1;
      }
    });
    fc.assert(property, { numRuns: 2000 });
    assert.ok(refused > 0);
  });
});

test("what cannot be is refused before the kernel sees it", () => {
  const table4 = { family: "ip", name: "t" } as const;
  const range = { key: portBytes(1), last: portBytes(9) };
  const write = (change: NftChange): void => {
    const writer = new ByteWriter();
    for (const request of requestsOf(change)) encodeMessage(writer, request, 0, 0);
  };
  const cases: [NftChange, RegExp][] = [
    [
      { kind: "addElements", set: { table: table4, name: "s", key: ["inet_service"] }, elements: [range] },
      /set s has no ranges, and cannot take 1-9/,
    ],
    [
      {
        kind: "addChain",
        chain: {
          table: { family: "arp", name: "t" },
          name: "c",
          base: { type: "nat", hook: "postrouting", priority: 0 },
        },
      },
      /family arp has no hook postrouting/,
    ],
    [
      {
        kind: "addRule",
        rule: { table: table4, chain: "c", expressions: [{ kind: "notrack" }], comment: "x".repeat(300) },
      },
      /user data of 301 bytes/,
    ],
    [
      { kind: "addRule", rule: { table: table4, chain: "c", expressions: [{ kind: "meta", key: "mark", into: 16 }] } },
      /no register of 4 bytes number 16/,
    ],
  ];
  for (const [change, reason] of cases)
    assert.throws(
      () => write(change),
      (error) => error instanceof MalformedBytes && reason.test(error.message),
    );
  assert.throws(() => interfaceBytes("a-very-long-name"), /longer than an interface's name/);
});

test("user data that is none has no pieces", () => {
  assert.equal(findUserData(Uint8Array.of(0), 0), undefined);
  assert.equal(findUserData(Uint8Array.of(5, 9, 1), 0), undefined);
  assert.deepEqual(findUserData(Uint8Array.of(5, 0, 0, 1, 7), 0), Uint8Array.of(7));
});

test("rules are the same whatever they have counted, and whatever number their set had", () => {
  const [load, look] = inSet(["source address"], 4, "s");
  assert.ok(load && look?.kind === "lookup");
  assert.ok(
    sameExpressions([load, { ...look, setId: 4 }, { kind: "counter", packets: 1 }], [load, look, { kind: "counter" }]),
  );
  assert.ok(!sameExpressions([load, look], [load, { ...look, set: "t" }]));
  assert.ok(!sameExpressions([load, look], [load]));
  assert.ok(!sameExpressions(accept(), addressIs("source", parsePrefix("10.0.0.0/8"))));
});

describe("keys are written as nft writes them", () => {
  const net = prefixRange(parsePrefix("10.1.0.0/16"));
  const keys: [KeyType[], { key: Uint8Array; last?: Uint8Array }, string][] = [
    [["ipv4_addr"], net, "10.1.0.0/16"],
    [["ipv4_addr"], { key: net.key, last: hostBytes(0x0500010a) }, "10.1.0.0-10.1.0.5"],
    [["ipv6_addr"], prefixRange(parsePrefix("2001:db8::/61")), "2001:db8::/61"],
    [
      ["ipv4_addr", "inet_proto", "inet_service"],
      concatenate(net, { key: protocolBytes(6) }, portRange(80, 90)),
      "10.1.0.0/16 . 6 . 80-90",
    ],
    [["ifname"], { key: interfaceBytes("cali1") }, '"cali1"'],
    [["mark"], { key: hostBytes(0x10000) }, "0x10000"],
    [["ether_addr"], { key: Uint8Array.of(0xee, 0, 1, 2, 3, 4) }, "ee:00:01:02:03:04"],
    [[], { key: portBytes(80) }, "0x0050"],
  ];
  for (const [of, range, text] of keys) test(text, () => assert.equal(formatKey(of, range), text));
});

describe("sentences name the change", () => {
  const of = { family: "ip", name: "calico" } as const;
  const set = { table: of, name: "s", key: ["inet_service"] as const };
  const elements = [1, 2, 3, 4, 5].map((number) => ({ key: portBytes(number) }));
  const sentences: [NftChange, string][] = [
    [{ kind: "addTable", table: of }, "add table ip calico"],
    [{ kind: "deleteTable", table: of }, "delete table ip calico"],
    [{ kind: "addChain", chain: { table: of, name: "c" } }, "add chain c to table ip calico"],
    [{ kind: "deleteChain", chain: { table: of, name: "c" } }, "delete chain c of table ip calico"],
    [{ kind: "flushChain", chain: { table: of, name: "c" } }, "empty chain c of table ip calico"],
    [{ kind: "addRule", rule: { table: of, chain: "c", expressions: [] } }, "add rule to chain c of table ip calico"],
    [{ kind: "deleteRule", rule: { table: of, chain: "c", handle: 7 } }, "delete rule 7 of chain c of table ip calico"],
    [{ kind: "addSet", set }, "add set s to table ip calico"],
    [{ kind: "flushSet", set }, "empty set s of table ip calico"],
    [{ kind: "deleteSet", set }, "delete set s of table ip calico"],
    [{ kind: "addElements", set, elements }, "add 1, 2, 3 and 2 more to set s of table ip calico"],
    [
      { kind: "addWrittenElements", set, elements: writeElements(set, elements) },
      "add 5 elements to set s of table ip calico",
    ],
    [{ kind: "deleteElements", set, elements: elements.slice(0, 1) }, "delete 1 of set s of table ip calico"],
    [{ kind: "addObject", object: { table: of, name: "o", type: "counter" } }, "add counter o to table ip calico"],
    [
      { kind: "deleteObject", object: { table: of, name: "o", type: "counter" } },
      "delete counter o of table ip calico",
    ],
  ];
  for (const [change, sentence] of sentences) test(sentence, () => assert.equal(describeChange(change), sentence));
});

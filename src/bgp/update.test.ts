import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Family } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { ByteWriter, fromHex, toHex } from "../lib/bytes.ts";
import type { PathAttributes } from "./attributes.ts";
import { attributesArbitrary, prefixArbitrary } from "./bgp.testing.ts";
import { nextFrame } from "./message.ts";
import { decodeNlri, encodeNlri, prefixOfWords, wordsOfPrefix, type Nlri, type NlriRange } from "./nlri.ts";
import { ProtocolError } from "./notification.ts";
import { PrefixTable } from "./prefix-table.ts";
import { ByteStore } from "./byte-store.ts";
import { Chains } from "./chains.ts";
import { encodeForPacking, UpdateWriter } from "./update-writer.ts";
import { decodeUpdate, encodeEndOfRib, encodeUpdate, type UpdateContext } from "./update.ts";

const IBGP: UpdateContext = { asOctets: 4, internal: true, addPath: new Set() };
const ADD_PATH: UpdateContext = { ...IBGP, addPath: new Set<Family>([4, 6]) };

function decode(body: string, context = IBGP) {
  const bytes = fromHex(body);
  return decodeUpdate(bytes, 0, bytes.length, context);
}

function plain(ranges: readonly NlriRange[]): string[] {
  return ranges
    .flatMap(decodeNlri)
    .map(({ prefix, pathId }) => formatPrefix(prefix) + (pathId > 0 ? `#${pathId}` : ""));
}

/** Unknown attributes are sent in the order of their codes, however they came. */
function sorted(attributes: PathAttributes | undefined): unknown {
  return { ...attributes, unknown: attributes?.unknown?.toSorted((a, b) => a.code - b.code) };
}

/** Every UPDATE in a run of messages. */
function decodeAll(bytes: Uint8Array, context: UpdateContext) {
  const updates = [];
  for (let at = 0; at < bytes.length;) {
    const frame = nextFrame(bytes, at, 4096);
    assert.ok(frame, "a message is cut short");
    assert.equal(frame.type, 2);
    updates.push(decodeUpdate(bytes, frame.start, frame.end, context));
    at = frame.end;
  }
  return updates;
}

const ATTRIBUTES = "40010100 400200 400304c0000201 40050400000064";

describe("UPDATE", () => {
  test("announces and withdraws IPv4 in its own fields", () => {
    const update = decode(`0004 180a0001 0015 ${ATTRIBUTES} 1a0af40940 00`);
    assert.deepEqual(plain(update.withdrawn), ["10.0.1.0/24"]);
    assert.deepEqual(plain(update.announced.map(({ nlri }) => nlri)), ["10.244.9.64/26", "0.0.0.0/0"]);
  });

  test("bits beyond the length of a prefix mean nothing", () => {
    assert.deepEqual(plain(decode("0003 09 0aff 0000").withdrawn), ["10.128.0.0/9"]);
  });

  test("IPv6 travels in MP_REACH_NLRI, with a link-local next hop beside the global one", () => {
    const reach =
      "90 0e 002e 0002 01 20 20010db8000000000000000000000001 fe800000000000000000000000000001 00 40 20010db800090000";
    const update = decode(`0000 0040 ${reach} 40010100 400200 40050400000064`);
    const [announced] = update.announced;
    assert.deepEqual(plain([announced!.nlri]), ["2001:db8:9::/64"]);
    assert.equal(announced!.attributes.nextHop?.value, 0x20010db8000000000000000000000001n);
    assert.equal(announced!.attributes.linkLocalNextHop?.value, 0xfe800000000000000000000000000001n);
  });

  test("End-of-RIB of both families (RFC 4724 section 2)", () => {
    for (const family of [4, 6] as const) {
      const [update] = decodeAll(encodeEndOfRib(family), IBGP);
      assert.equal(update?.endOfRib, family);
      assert.deepEqual(update.withdrawn, []);
    }
    assert.equal(toHex(encodeEndOfRib(4).subarray(16)), "00170200000000");
    assert.equal(decode("0000 0003 400101").endOfRib, undefined);
  });

  test("what is written is read back, with and without path identifiers", () => {
    for (const family of [4, 6] as const) {
      const nlri = fc.record(
        { prefix: prefixArbitrary(family), pathId: fc.nat(0xffffffff) },
        { noNullPrototype: true },
      );
      const routes = fc.array(nlri, { minLength: 1, maxLength: 20 });
      fc.assert(
        fc.property(
          routes,
          routes,
          attributesArbitrary(family),
          fc.boolean(),
          (withdrawn, added, attributes, addPath) => {
            const context = addPath ? ADD_PATH : IBGP;
            const expected = (list: Nlri[]): Nlri[] =>
              addPath ? list : list.map(({ prefix }) => ({ prefix, pathId: 0 }));
            const bytes = encodeUpdate({ family, withdrawn, announced: { nlri: added, attributes } }, context);
            const [update] = decodeAll(bytes, context);
            assert.deepEqual(update?.withdrawn.flatMap(decodeNlri), expected(withdrawn));
            assert.deepEqual(
              update?.announced.flatMap((one) => decodeNlri(one.nlri)),
              expected(added),
            );
            assert.deepEqual(update?.announced[0]?.attributes, attributes);
          },
        ),
        { numRuns: 100 },
      );
    }
  });
});

const malformed: { name: string; body: string; answer: string }[] = [
  { name: "withdrawn routes past the end", body: "0009 180a0001 0000", answer: "3/1" },
  { name: "attributes past the end", body: "0000 0099 40010100", answer: "3/1" },
  { name: "no room for the length of the attributes", body: "0000 00", answer: "3/1" },
  { name: "an IPv4 prefix of 33 bits", body: "0000 0000 21 0a00000100", answer: "3/10" },
  { name: "a withdrawn prefix cut short", body: "0003 18 0a00 0000", answer: "3/10" },
  { name: "MP_REACH_NLRI twice", body: "0000 0006 800e00 800e00", answer: "3/1" },
  { name: "MP_REACH_NLRI cut short", body: "0000 0005 800e020002", answer: "3/9" },
  { name: "an IPv6 next hop of 8 bytes", body: "0000 0010 800e0d 000201 08 0102030405060708 00", answer: "3/9" },
  { name: "an IPv6 prefix of 129 bits", body: "0000 0007 800f04 000201 81", answer: "3/10" },
  { name: "an attribute that claims to be well-known", body: "0000 0003 406300 08 0a", answer: "3/2" },
];
describe("what RFC 7606 still ends the session for", () => {
  for (const { name, body, answer } of malformed) {
    test(name, () => {
      assert.throws(
        () => decode(body),
        (thrown) =>
          thrown instanceof ProtocolError && `${thrown.notification.code}/${thrown.notification.subcode}` === answer,
      );
    });
  }

  test("and what it does not: the routes count as withdrawn", () => {
    const update = decode("0000 000b 40010109 400304c0000201 180a0001");
    assert.deepEqual(plain(update.withdrawn), ["10.0.1.0/24"]);
    assert.deepEqual(update.announced, []);
    assert.match(update.treatedAsWithdraw ?? "", /ORIGIN 9/);
    assert.match(decode(`0000 0004 40010100 180a0001`).treatedAsWithdraw ?? "", /AS_PATH is missing/);
  });
});

test("mutated messages are understood, withdrawn or refused: nothing else", () => {
  const message = (family: Family) =>
    fc
      .tuple(attributesArbitrary(family), fc.array(prefixArbitrary(family), { minLength: 1, maxLength: 5 }))
      .map(([attributes, prefixes]) =>
        encodeUpdate(
          { family, announced: { attributes, nlri: prefixes.map((prefix) => ({ prefix, pathId: 7 })) } },
          ADD_PATH,
        ),
      );
  const mutation = fc.tuple(fc.nat(5000), fc.nat(255));
  fc.assert(
    fc.property(
      fc.oneof(message(4), message(6)),
      fc.array(mutation, { minLength: 1, maxLength: 8 }),
      (bytes, mutations) => {
        const hostile = bytes.slice(19);
        for (const [at, value] of mutations) hostile[at % hostile.length] = value;
        for (const context of [ADD_PATH, { ...IBGP, internal: false, asOctets: 2 as const }]) {
          try {
            const update = decodeUpdate(hostile, 0, hostile.length, context);
            // What was believed can be passed on, and then says the same.
            for (const { nlri, attributes } of update.announced) {
              const sent = encodeUpdate(
                { family: nlri.family, announced: { nlri: decodeNlri(nlri), attributes } },
                context,
              );
              const [again] = decodeAll(sent, context);
              assert.deepEqual(sorted(again?.announced[0]?.attributes), sorted(attributes));
            }
          } catch (thrown) {
            assert.ok(thrown instanceof ProtocolError, `${toHex(hostile)}: ${String(thrown)}`);
            assert.equal(thrown.notification.code, 3);
          }
        }
      },
    ),
    { numRuns: 2000 },
  );
});

describe("prefixes", () => {
  test("as words and back, and as NLRI and back", () => {
    fc.assert(
      fc.property(fc.oneof(prefixArbitrary(4), prefixArbitrary(6)), (prefix) => {
        const { family } = prefix.address;
        assert.deepEqual(prefixOfWords(family, wordsOfPrefix(prefix)), prefix);
        const writer = new ByteWriter();
        encodeNlri(writer, { prefix, pathId: 0 }, false);
        const bytes = writer.finish();
        const table = new PrefixTable(family);
        const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
        const fast = new Uint8Array(17);
        const end = table.encode(table.add(w0, w1, w2, w3, length), fast, 0);
        assert.equal(toHex(fast.subarray(0, end)), toHex(bytes));
        const range = { family, bytes, start: 0, end: bytes.length, addPath: false };
        assert.deepEqual(decodeNlri(range), [{ prefix, pathId: 0 }]);
      }),
      { numRuns: 300 },
    );
  });

  test("the table of numbers does what a Map does", () => {
    const operation = fc.tuple(fc.boolean(), fc.nat(60), fc.constantFrom(24, 25, 26));
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 300 }), (operations) => {
        const table = new PrefixTable(6, 4);
        const twin = new Map<string, number>();
        for (const [adds, number, length] of operations) {
          const key = `${number}/${length}`;
          if (adds) {
            const id = table.add(number, 0, number, 0, length);
            assert.equal(twin.get(key) ?? id, id);
            twin.set(key, id);
          } else if (twin.has(key)) {
            table.remove(twin.get(key)!);
            twin.delete(key);
          }
        }
        assert.equal(table.size, twin.size);
        assert.equal(new Set(twin.values()).size, twin.size, "two prefixes have one number");
        for (const [key, id] of twin) {
          const { w0, w2, length } = table.words(id);
          assert.equal(`${w0}/${length}`, key);
          assert.equal(table.find(w0, 0, w2, 0, length), id);
        }
        assert.equal(table.find(99, 0, 99, 0, 24), -1);
      }),
      { numRuns: 100 },
    );
  });
});

describe("the fast writer", () => {
  for (const family of [4, 6] as const) {
    test(`says what the clear one says, in messages as full as they can be: IPv${family}`, () => {
      fc.assert(
        fc.property(
          attributesArbitrary(family),
          fc.array(prefixArbitrary(family), { minLength: 1, maxLength: 20 }),
          fc.integer({ min: 1, max: 60 }),
          (attributes, some, repeat) => {
            const table = new PrefixTable(family);
            const prefixes = Array.from({ length: repeat }, () => some).flat();
            const ids = prefixes.map((prefix) => {
              const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
              return table.add(w0, w1, w2, w3, length);
            });
            const writer = new UpdateWriter(table, 4096);
            const store = new ByteStore();
            const packed = encodeForPacking(family, attributes, IBGP);
            const chains = new Chains();
            const number = store.intern(packed, 0, packed.length);
            for (const id of ids) chains.add(1, number, id, 0);
            writer.announce(chains, 0, store);
            const middle = writer.length;
            writer.withdraw(chains, 0);
            const expected = prefixes.map(formatPrefix);
            const told = decodeAll(writer.slice(0, middle), IBGP);
            assert.deepEqual(
              told.flatMap((update) => plain(update.announced.map(({ nlri }) => nlri))),
              expected,
            );
            for (const update of told) assert.deepEqual(update.announced[0]?.attributes, attributes);
            const taken = decodeAll(writer.slice(middle, writer.length), IBGP);
            assert.deepEqual(
              taken.flatMap((update) => plain(update.withdrawn)),
              expected,
            );
            // Few enough for one message: the very same bytes, but for where MP_REACH_NLRI puts its length.
            if (family === 4 && told.length === 1) {
              const nlri = prefixes.map((prefix) => ({ prefix, pathId: 0 }));
              assert.deepEqual(
                writer.slice(0, middle),
                encodeUpdate({ family, announced: { nlri, attributes } }, IBGP),
              );
            }
          },
        ),
        { numRuns: 60 },
      );
    });
  }
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc, { type Arbitrary } from "fast-check";
import type { Family } from "../ip/address.ts";
import { toHex } from "../lib/bytes.ts";
import { fromCanonical, toCanonical } from "./attribute-bytes.ts";
import type { PathAttributes } from "./attributes.ts";
import { addressArbitrary, attributesArbitrary, prefixArbitrary, record } from "./bgp.testing.ts";
import { ByteStore } from "./byte-store.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { exportBytesOf, NOT_PLAIN, REFUSED } from "./export-bytes.ts";
import { exportAttributes, exportRefusal, type ExportPolicy } from "./export-policy.ts";
import { compileFilter } from "./filters.ts";
import { IdSet } from "./id-set.ts";
import { plainCheckOf } from "./import-bytes.ts";
import { acceptedAttributes, importRefusal, type ImportPolicy } from "./import-policy.ts";
import { decodeNlri, type NlriRange } from "./nlri.ts";
import { UpdateScanner } from "./update-scan.ts";
import { encodeForPacking } from "./update-writer.ts";
import { decodeUpdate, encodeUpdate, type UpdateContext } from "./update.ts";

// Each fast form beside its clear one.

const FILTER = compileFilter({ rules: [], otherwise: "accept" }, 4, "iBGP");
const family = fc.constantFrom<Family>(4, 6);
const withFamily = family.chain((of) => fc.tuple(fc.constant(of), attributesArbitrary(of)));

test("a store of bytes does what a Map of texts does", () => {
  const operation = fc.record({
    adds: fc.boolean(),
    text: fc.string({ maxLength: 3 }),
    times: fc.integer({ max: 400, min: 1 }),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
      const store = new ByteStore();
      const twin = new Map<string, number>();
      for (const { adds, text, times } of operations) {
        const key = text.repeat(times);
        const bytes = Buffer.from(`??${key}??`);
        if (adds) {
          const id = store.intern(bytes, 2, bytes.length - 4);
          assert.equal(twin.get(key) ?? id, id);
          twin.set(key, id);
        } else if (twin.has(key)) {
          store.remove(twin.get(key)!);
          twin.delete(key);
        }
      }
      assert.equal(store.size, twin.size);
      assert.equal(new Set(twin.values()).size, twin.size, "two strings have one number");
      for (const [key, id] of twin) {
        const kept = store.slab(id).subarray(store.start(id), store.start(id) + store.length(id));
        assert.equal(Buffer.from(kept).toString(), key);
      }
    }),
    { numRuns: 100 },
  );
});

test("a set of numbers does what a Set does, and gives out the lowest first", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(5000)), fc.nat(50), (numbers, most) => {
      const set = new IdSet().addAll(numbers);
      const twin = [...new Set(numbers)].toSorted((a, b) => a - b);
      assert.equal(set.size, twin.length);
      assert.deepEqual(set.take(most), twin.slice(0, most));
      assert.deepEqual(set.take(Infinity), twin.slice(most));
      assert.equal(set.size, 0);
    }),
  );
});

test("attributes survive their canonical form, which is one for equal attributes", () => {
  fc.assert(
    fc.property(withFamily, addressArbitrary(6), fc.boolean(), ([of, plain], linkLocalNextHop, hasLinkLocal) => {
      const attributes: PathAttributes = of === 6 && hasLinkLocal ? { ...plain, linkLocalNextHop } : plain;
      const bytes = toCanonical(attributes);
      const again = fromCanonical(Buffer.from([9, ...bytes, 9]), 1, bytes.length);
      assert.deepEqual(again, attributes);
      assert.deepEqual(toCanonical(again), bytes);
    }),
    { numRuns: 200 },
  );
});

interface Said {
  readonly bytes: Uint8Array;
  readonly context: UpdateContext;
  readonly usual: boolean;
}

/** UPDATEs as they are sent, with what both sides agreed on. */
const saidArbitrary: Arbitrary<Said> = withFamily.chain(([of, attributes]) =>
  fc
    .record({
      internal: fc.boolean(),
      addPath: fc.boolean(),
      asOctets: fc.constantFrom<2 | 4>(4, 4, 4, 2),
      announced: fc.array(record({ prefix: prefixArbitrary(of), pathId: fc.nat(9) }), { maxLength: 4 }),
      withdrawn: fc.array(record({ prefix: prefixArbitrary(of), pathId: fc.nat(9) }), { maxLength: 4 }),
    })
    .map(({ internal, addPath, asOctets, announced, withdrawn }) => {
      const context: UpdateContext = { internal, asOctets, addPath: new Set<Family>(addPath ? [of] : []) };
      const message = encodeUpdate(
        { family: of, withdrawn, ...(announced.length > 0 && { announced: { nlri: announced, attributes } }) },
        context,
      );
      const told = announced.length > 0 || (of === 6 && withdrawn.length > 0);
      const rare = told && announced.length > 0 && attributes.unknown !== undefined;
      const usual = asOctets === 4 && !rare && (told || withdrawn.length > 0);
      return { bytes: message.subarray(19), context, usual };
    }),
);

const mutation = fc.record({ at: fc.nat(400), value: fc.nat(255) });
const routes = (range: NlriRange | undefined): unknown => (range === undefined ? [] : decodeNlri(range));

describe("the fast reader of UPDATEs", () => {
  const scanner = new UpdateScanner();

  /** What it reads, the clear form reads as well, and finds nothing wrong with it. */
  function compare(bytes: Uint8Array, context: UpdateContext): boolean {
    if (!scanner.scan(bytes, 0, bytes.length, context)) return false;
    const clear = decodeUpdate(bytes, 0, bytes.length, context);
    const words = toHex(bytes);
    assert.equal(clear.treatedAsWithdraw, undefined, words);
    assert.deepEqual(clear.discarded, [], words);
    assert.equal(clear.endOfRib, undefined, words);
    assert.deepEqual(routes(scanner.withdrawn), clear.withdrawn.flatMap(decodeNlri), words);
    assert.deepEqual(
      routes(scanner.announced),
      clear.announced.flatMap(({ nlri }) => decodeNlri(nlri)),
      words,
    );
    const [announced] = clear.announced;
    if (announced === undefined) return true;
    const canonical = scanner.canonical.slice(0, scanner.canonicalLength);
    assert.deepEqual(fromCanonical(canonical, 0, canonical.length), announced.attributes, words);
    assert.equal(toHex(canonical), toHex(toCanonical(announced.attributes)), words);
    return true;
  }

  test("reads what is usual, and reads it as the clear one does", () => {
    fc.assert(
      fc.property(saidArbitrary, ({ bytes, context, usual }) => {
        assert.equal(compare(bytes, context), usual, toHex(bytes));
      }),
      { numRuns: 300 },
    );
  });

  test("reads nothing that the clear one would not", () => {
    fc.assert(
      fc.property(
        saidArbitrary,
        fc.array(mutation, { minLength: 1, maxLength: 3 }),
        ({ bytes, context }, mutations) => {
          const hostile = bytes.slice();
          for (const { at, value } of mutations) hostile[at % hostile.length] = value;
          compare(hostile, context);
          compare(hostile.subarray(0, mutations[0]!.at % hostile.length), context);
        },
      ),
      { numRuns: 700 },
    );
  });
});

const small = fc.constantFrom(64512, 64513, 99, 0xffff0000, 0xffffff01, 0xffffff02, 0xffffff03, 7);
/** Attributes in which what is looked for is not rare. */
const meaningful: Arbitrary<PathAttributes> = fc
  .tuple(
    withFamily,
    fc.option(fc.array(small, { maxLength: 3, minLength: 1 })),
    fc.option(small),
    fc.array(small, { maxLength: 255 }),
  )
  .map(([[, attributes], words, one, asns]) => {
    const { communities: _, clusterList: _clusters, originatorId: _originator, ...others } = attributes;
    return {
      ...others,
      asPath: asns.length === 0 ? attributes.asPath : [{ type: "sequence" as const, asns }],
      ...(words !== null && { communities: words, clusterList: words }),
      ...(one !== null && { originatorId: one }),
    };
  });

test("what is plain on import is what the protocol neither refuses nor changes", () => {
  const own = fc.option(fc.oneof(addressArbitrary(4), addressArbitrary(6)), { nil: undefined });
  const seen = { plain: 0, not: 0 };
  fc.assert(
    fc.property(meaningful, own, fc.boolean(), fc.boolean(), (attributes, ownAddress, internal, ours) => {
      const policy: ImportPolicy = {
        ownAsns: [64512, 64513],
        allowOwnAs: 0,
        routerId: 99,
        clusterId: 7,
        internal,
        ownAddress: ours ? attributes.nextHop : ownAddress,
        filter: FILTER,
      };
      const bytes = toCanonical(attributes);
      const plain = plainCheckOf(policy)(bytes, 0, bytes.length);
      seen[plain ? "plain" : "not"] += 1;
      const untouched = acceptedAttributes(attributes, [], policy) === attributes;
      assert.equal(plain, importRefusal(attributes, policy) === undefined && untouched);
    }),
    { numRuns: 300 },
  );
  assert.ok(seen.plain > 10 && seen.not > 10, JSON.stringify(seen));
});

test("what is told, made from bytes, is what the clear form makes of the attributes", () => {
  const source: Arbitrary<RibPeer> = record<RibPeer>({
    index: fc.constantFrom(LOCAL_PEER, 3),
    name: fc.constant("peer"),
    address: addressArbitrary(4),
    internal: fc.boolean(),
    client: fc.boolean(),
    routerId: fc.constant(0x0a000003),
  });
  const policyArbitrary = record<Omit<ExportPolicy, "filter">>({
    family,
    internal: fc.boolean(),
    client: fc.boolean(),
    clusterId: fc.constant(99),
    localAsn: fc.constant(4_200_000_000),
    asOctets: fc.constantFrom<2 | 4>(4, 4, 4, 2),
    longestMessage: fc.constant(4096),
    addPath: fc.constant(false),
    nextHopMode: fc.constantFrom<ExportPolicy["nextHopMode"]>("auto", "self", "keep"),
    ownNextHop: fc.oneof(addressArbitrary(4), addressArbitrary(6), fc.constant(undefined)),
    extendedNextHop: fc.boolean(),
    gracefulShutdown: fc.nat(3).map((number) => number === 0),
  });
  const seen = { plain: 0, refused: 0, told: 0 };
  fc.assert(
    fc.property(meaningful, source, policyArbitrary, fc.boolean(), (received, peer, change, bare) => {
      const policy = { ...change, filter: FILTER };
      const { localPref: _, nextHop: _hop, ...own } = received;
      const attributes: PathAttributes = bare && peer.index === LOCAL_PEER ? own : received;
      const bytes = toCanonical(attributes);
      const out = new Uint8Array(65_536);
      const length = exportBytesOf(policy)(bytes, 0, bytes.length, peer, out);
      if (length === NOT_PLAIN) return;
      seen.plain += 1;
      seen[length === REFUSED ? "refused" : "told"] += 1;
      const refusal = exportRefusal(attributes, peer, policy);
      assert.equal(length === REFUSED, refusal !== undefined, String(refusal));
      if (length === REFUSED) return;
      const clear = encodeForPacking(policy.family, exportAttributes(attributes, peer, policy, []), policy);
      assert.equal(toHex(out.subarray(0, length)), toHex(clear));
    }),
    { numRuns: 900 },
  );
  assert.ok(seen.refused > 20 && seen.told > 20, JSON.stringify(seen));
});

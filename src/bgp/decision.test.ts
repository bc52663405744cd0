import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { AttributeTable } from "./attribute-table.ts";
import type { PathAttributes } from "./attributes.ts";
import { decide, explainLoss, LAST_RESORT, LOCAL_PEER, type Candidate } from "./decision.ts";

const address = (value: number) => ({ family: 4 as const, value: BigInt(value) });
/** The metric of a next hop is the last byte of its address. */
const table = new AttributeTable((hop) => ({ metric: Number(hop.value & 255n) }));

function candidate(attributes: Partial<PathAttributes>, peer: Partial<Candidate["peer"]> = {}, pathId = 0): Candidate {
  const index = peer.index ?? 1;
  return {
    set: table.get(table.intern({ origin: "igp", asPath: [{ type: "sequence", asns: [100] }], ...attributes })),
    peer: {
      index,
      name: `peer${index}`,
      address: address(index),
      internal: false,
      client: false,
      routerId: index,
      ...peer,
    },
    pathId,
  };
}

/** RFC 4271 section 9.1.2.2 word for word: one step after the other removes paths from the set. */
function naive(candidates: readonly Candidate[]): { best: Candidate; equal: readonly Candidate[] } {
  let left = [...candidates];
  const keep = (worth: (one: Candidate) => number): void => {
    const highest = Math.max(...left.map(worth));
    left = left.filter((one) => worth(one) === highest);
  };
  const isLocal = ({ peer }: Candidate): boolean => peer.index === LOCAL_PEER;
  keep((one) => (isLocal(one) && one.pathId !== LAST_RESORT ? 1 : 0));
  keep((one) => (isLocal(one) && one.pathId === LAST_RESORT ? 0 : 1));
  keep(({ set }) => set.attributes.localPref ?? 100);
  keep(
    ({ set }) => -set.attributes.asPath.reduce((sum, { type, asns }) => sum + (type === "set" ? 1 : asns.length), 0),
  );
  keep(({ set }) => -["igp", "egp", "incomplete"].indexOf(set.attributes.origin));
  const neighbor = ({ set }: Candidate): number => {
    const [first] = set.attributes.asPath;
    return first?.type === "sequence" ? first.asns[0]! : 0;
  };
  const med = ({ set }: Candidate): number => set.attributes.med ?? 0;
  left = left.filter((one) => !left.some((other) => neighbor(other) === neighbor(one) && med(other) < med(one)));
  keep(({ peer }) => (peer.internal ? 0 : 1));
  keep(({ set }) => -Number((set.attributes.nextHop?.value ?? 0n) & 255n));
  const equal = left;
  keep(({ set, peer }) => -(set.attributes.originatorId ?? peer.routerId));
  keep(({ set }) => -(set.attributes.clusterList?.length ?? 0));
  keep(({ peer }) => -Number(peer.address.value));
  keep(({ pathId }) => -pathId);
  return { best: left[0]!, equal };
}

test("chooses as the RFC's own words do", () => {
  const path = fc.record(
    {
      origin: fc.constantFrom("igp" as const, "incomplete" as const),
      asPath: fc.constantFrom(
        [],
        [{ type: "sequence" as const, asns: [100] }],
        [{ type: "sequence" as const, asns: [200] }],
        [{ type: "set" as const, asns: [1, 2] }],
      ),
      nextHop: fc.constantFrom(address(0x0a000001), address(0x0a000002)),
      localPref: fc.constantFrom(100, 200),
      med: fc.nat(2),
      originatorId: fc.nat(2),
      clusterList: fc.constantFrom([1], [1, 2]),
    },
    { requiredKeys: ["origin", "asPath", "nextHop"] },
  );
  const peer = fc.record({ index: fc.nat(3), internal: fc.boolean(), routerId: fc.nat(2) });
  const candidates = fc.array(fc.tuple(path, peer, fc.nat(2)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(candidates, (list) => {
      const paths = list.map(([attributes, who, pathId]) =>
        candidate(attributes, { ...who, address: address(who.index) }, pathId),
      );
      const { best, equal } = decide(paths);
      const expected = naive(paths);
      assert.deepEqual(new Set(equal), new Set(expected.equal));
      assert.equal(best, expected.best);
      for (const loser of paths) if (loser !== best) assert.ok(explainLoss(best, loser).length > 0);
    }),
    { numRuns: 1000 },
  );
});

describe("says why a path was not chosen", () => {
  const cases: { by: string; winner: Candidate; loser: Candidate }[] = [
    { by: "our own route comes first", winner: candidate({}, { index: 0 }), loser: candidate({ localPref: 900 }) },
    { by: "higher local preference", winner: candidate({ localPref: 200 }), loser: candidate({}) },
    { by: "shorter AS path", winner: candidate({ asPath: [] }), loser: candidate({}) },
    { by: "better origin", winner: candidate({}), loser: candidate({ origin: "egp" }) },
    { by: "lower MED", winner: candidate({ med: 1 }), loser: candidate({ med: 2 }) },
    { by: "eBGP before iBGP", winner: candidate({}), loser: candidate({}, { internal: true, index: 2 }) },
    {
      by: "nearer next hop",
      winner: candidate({ nextHop: address(0x0a000001) }),
      loser: candidate({ nextHop: address(0x0a000002) }),
    },
    { by: "lower router ID", winner: candidate({}, { routerId: 1 }), loser: candidate({}, { routerId: 2 }) },
    { by: "shorter cluster list", winner: candidate({ clusterList: [1] }), loser: candidate({ clusterList: [1, 2] }) },
    { by: "lower path identifier", winner: candidate({}, {}, 1), loser: candidate({}, {}, 2) },
    { by: "lower peer address", winner: candidate({}, { index: 1 }), loser: candidate({}, { index: 2, routerId: 1 }) },
  ];
  for (const { by, winner, loser } of cases) {
    test(by, () => {
      assert.equal(decide([loser, winner]).best, winner);
      assert.ok(explainLoss(winner, loser).endsWith(by), explainLoss(winner, loser));
    });
  }
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import type { EndpointChains, TierChain } from "../policy/chains.ts";
import type { CompiledPolicy } from "../policy/ruleTable.ts";
import { travelling, passHook } from "./packetPath.testing.ts";
import { grouped } from "./policyGroups.ts";
import { factsOf, ruleNode, type RuleNode } from "./ruleWorld.testing.ts";

type Action = "allow" | "deny" | "pass";

/** Each policy has one rule, for one port. */
interface Ask {
  readonly id: string;
  readonly port: number;
  readonly action: Action;
}

const PORTS = [80, 81, 82];
const INTERFACE = "cali1";

const compiled = ({ id, port, action }: Ask): CompiledPolicy => {
  const destination = { ports: { ranges: [{ first: port, last: port }], sets: [] } };
  const rule = { action, protocol: 6, source: {}, destination, index: 0, origin: "ingress[0]" };
  return { id, ingress: [rule], egress: [], problems: [] };
};

function endpoint(tiers: readonly TierChain[], interfaceName = INTERFACE): EndpointChains {
  return {
    kind: "workload",
    id: `wep/${interfaceName}`,
    interfaceName,
    addresses: ["10.0.0.1"],
    normal: { ingress: tiers, egress: [] },
    profiles: [],
    local: { floatingIPs: [], allowedSourcePrefixes: [] },
  };
}

function node(endpoints: readonly EndpointChains[], asks: readonly Ask[]): RuleNode {
  const made = ruleNode([4]);
  made.builder.setFacts(factsOf());
  made.builder.update({
    endpoints: new Map(endpoints.map((of) => [of.id, of])),
    policies: new Map(asks.map((ask) => [ask.id, compiled(ask)])),
    profiles: new Map(),
    sets: [],
  });
  made.refresh();
  return made;
}

/** Whether a connection to the port of the workload may be made. */
function passes({ rulesets }: RuleNode, destinationPort: number): boolean {
  const [source, destination] = [parseAddress("10.9.9.9"), parseAddress("10.0.0.1")];
  const packet = { family: 4, protocol: 6, source, destination, sourcePort: 1, destinationPort } as const;
  const one = travelling(packet, { in: "eth0", out: INTERFACE });
  return passHook(rulesets[4], "FORWARD", one, { local: [], isReversePath: true }) === "accept";
}

/** By the plain meaning of tiers. */
function isAllowed(tiers: readonly (readonly Ask[])[], port: number): boolean {
  for (const asks of tiers) {
    const action = asks.find((ask) => ask.port === port)?.action ?? "deny";
    if (action !== "pass") return action === "allow";
  }
  return false;
}

describe("long lists of policies", () => {
  test("are the same pieces in the same order, and differ in few where the lists do", () => {
    const ids = Array.from({ length: 1000 }, (_, at) => `gnp/policy-${at}`);
    const before = grouped(ids);
    const after = grouped([...ids.slice(0, 500), "gnp/another", ...ids.slice(500)]);
    assert.deepEqual(before.flat(), ids);
    assert.ok(before.length > 30 && before.length < 120, `${before.length} pieces`);
    const known = new Set(before.map((piece) => piece.join()));
    assert.ok(after.filter((piece) => !known.has(piece.join())).length <= 2);
    assert.deepEqual(grouped(ids.slice(0, 4)).length, 4);
  });

  test("mean what they mean one by one", () => {
    const anyTier = fc.array(
      fc.record({
        port: fc.constantFrom(...PORTS, 83, 84, 85, 86, 87),
        action: fc.constantFrom<Action>("allow", "deny", "pass"),
      }),
      { minLength: 1, maxLength: 40 },
    );
    fc.assert(
      fc.property(fc.array(anyTier, { minLength: 1, maxLength: 3 }), (wishes) => {
        const tiers = wishes.map((asks, tier) => asks.map((ask, at): Ask => ({ ...ask, id: `gnp/${tier}-${at}` })));
        const chains = tiers.map((asks, tier): TierChain => {
          return { tier: `t${tier}`, policies: asks.map(({ id }) => id), end: "deny" };
        });
        const made = node([endpoint(chains)], tiers.flat());
        for (const port of PORTS) assert.equal(passes(made, port), isAllowed(tiers, port), `port ${port}`);
      }),
      { numRuns: 60 },
    );
  });

  test("are shared by all endpoints that have them, and go with the last", () => {
    const asks = Array.from({ length: 100 }, (_, at): Ask => ({ id: `gnp/${at}`, port: 80, action: "allow" }));
    const tiers: TierChain[] = [{ tier: "default", policies: asks.map(({ id }) => id), end: "deny" }];
    const names = Array.from({ length: 50 }, (_, at) => `cali${at}`);
    const made = node(
      names.map((name) => endpoint(tiers, name)),
      asks,
    );
    const { chains } = made.rulesets[4];
    const groups = [...chains.keys()].filter((key) => key.startsWith("filter/cali-gi-"));
    const rules = [...chains.values()].reduce((sum, chain) => sum + chain.rules.length, 0);
    assert.ok(groups.length > 2 && groups.length < 15, `${groups.length} groups`);
    assert.ok(rules < 50 * 40, `${rules} rules`);
    const gone = new Map(names.map((name) => [`wep/${name}`, undefined]));
    const policies = new Map(asks.map(({ id }) => [id, undefined]));
    made.builder.update({ endpoints: gone, policies, profiles: new Map(), sets: [] });
    made.refresh();
    assert.deepEqual(
      [...chains.keys()].filter((key) => /cali-(gi|pi|tw|fw)-/.test(key)),
      [],
    );
  });

  test("of a policy that nobody knows let nothing through", () => {
    const tiers: TierChain[] = [{ tier: "default", policies: ["gnp/known", "gnp/unknown", "gnp/last"], end: "pass" }];
    const asks: Ask[] = [
      { id: "gnp/known", port: 80, action: "allow" },
      { id: "gnp/last", port: 81, action: "allow" },
    ];
    const made = node([endpoint(tiers)], asks);
    assert.deepEqual([passes(made, 80), passes(made, 81)], [true, false]);
  });
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyJourney, anyRuleset } from "./anyRules.testing.ts";
import type { TableChange } from "./keptTable.ts";
import { changeTo } from "./iptables.testing.ts";
import { runChain, type Machine } from "./nftMachine.testing.ts";
import { nftRuleset } from "./nftRuleset.ts";
import { distinct } from "./nftWorld.testing.ts";
import { passHook, type Travelling } from "./packetPath.testing.ts";
import type { Ruleset } from "./ruleset.testing.ts";

/** How many rulesets are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 150);

function machineOf({ chains, sets }: TableChange): Omit<Machine, "surroundings"> {
  return {
    chains: new Map([...chains].map(([name, one]) => [name, one?.drafts() ?? []])),
    sets: new Map(
      [...sets].map(([name, one]) => [
        name,
        one === undefined ? [] : [...one.set.members].map((member) => one.set.form.encode(member)),
      ]),
    ),
  };
}

/** Only a connection is translated, and one that there is cannot become untracked. */
function asCanBe(one: Travelling, { chains }: Ruleset): Travelling {
  const endsTracking = [...chains.values()].some(({ rules }) =>
    rules.some(({ actions }) => actions.some((action) => action.do === "notrack")),
  );
  return { ...one, noted: [], isDnat: one.isDnat && one.state !== "invalid" && !endsTracking };
}
/** What a rule notes is in an order of the renderer's. */
const trace = (one: Travelling): object => ({ ...one, noted: one.noted.toSorted() });

describe("rules of nf_tables", () => {
  for (const family of [4, 6] as const) {
    test(`do with IPv${family} packets what the ruleset says`, () => {
      fc.assert(
        fc.property(
          anyRuleset(family, "raw"),
          fc.array(anyJourney(family), { minLength: 8, maxLength: 8 }),
          (ruleset, journeys) => {
            const machine = machineOf(nftRuleset(family)(changeTo(distinct(ruleset))));
            for (const { one, surroundings } of journeys) {
              const [plain, run] = [asCanBe(one, ruleset), asCanBe(one, ruleset)];
              const expected = passHook(ruleset, "PREROUTING", plain, surroundings);
              const outcome = runChain({ ...machine, surroundings }, "raw-PREROUTING", run);
              assert.equal(outcome === "end" ? "accept" : outcome, expected);
              assert.deepEqual(trace(run), trace(plain));
            }
          },
        ),
        { numRuns: RUNS },
      );
    });
  }
});

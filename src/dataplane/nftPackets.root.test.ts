import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress } from "../ip/address.ts";
import { openConntrack } from "../netlink/conntrack.io.ts";
import { PROTOCOL } from "../policy/model.ts";
import { anyJourney, anyRuleset, type Journey } from "./anyRules.testing.ts";
import { forwarder, WORLD, type Forwarder } from "./forwarder.testing.ts";
import { changeTo } from "./iptables.testing.ts";
import { openNftKernelRules } from "./nftRules.io.ts";
import { distinct } from "./nftWorld.testing.ts";
import { passHook, type Travelling } from "./packetPath.testing.ts";
import type { Counted, RuleAction } from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";

/** How many rulesets are tried: more for a long search (CARACAL_POLICY_RUNS=1000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 20);

type Door = "cali1" | "cali2" | "eth0";

/** Sees packets where all of them pass, after conntrack. Each rule is counted by itself. */
function prepared(ruleset: Ruleset): Ruleset {
  let index = 0;
  const isDone = (action: RuleAction): boolean => action.do !== "notrack" && action.do !== "log";
  const chains = [...ruleset.chains].map(([key, chain]) => {
    const rules = chain.rules.map((rule) => {
      const actions = rule.actions.filter(isDone);
      const counted: Counted = { of: "rule", direction: "ingress", index: (index += 1) };
      const ends: RuleAction[] = [{ do: "mark", value: 0, mask: 0x4 }];
      return { ...rule, actions: actions.length === 0 ? ends : actions, counted };
    });
    return [key, { ...chain, rules }] as const;
  });
  return distinct({ ...ruleset, chains: new Map(chains) });
}

/** As it comes to the hook PREROUTING of a node that is no way back to anybody. */
function coming({ one }: Journey, by: Door): Travelling {
  return { packet: one.packet, in: by, mark: 0, state: "new", isDnat: false, noted: [] };
}

/** A node would tell itself what it cannot deliver, and conntrack has its own mind about SCTP and some ICMP. */
const canBeSent = ({ one: { packet } }: Journey): boolean =>
  formatAddress(packet.source) !== WORLD[packet.family].node &&
  packet.source.value !== packet.destination.value &&
  packet.protocol !== PROTOCOL.SCTP &&
  (packet.icmp === undefined || packet.icmp.type === (packet.family === 4 ? 8 : 128));

const tuple = ({ one: { packet } }: Journey): string => {
  const ends = [`${packet.source.value} ${packet.sourcePort}`, `${packet.destination.value} ${packet.destinationPort}`];
  return `${packet.protocol} ${packet.icmp?.type} ${ends.toSorted().join()}`;
};

describe("packets of a kernel with our rules", () => {
  for (const family of [4, 6] as const) {
    test(`meet the rules of IPv${family} that they should`, async () => {
      using node: Forwarder = forwarder();
      const conntrack = openConntrack(node.path);
      const rules = openNftKernelRules({ family, namespace: node.path });
      const anyTraffic = fc.uniqueArray(
        fc.tuple(anyJourney(family), fc.constantFrom<Door[]>("cali1", "cali2", "eth0")),
        {
          maxLength: 8,
          selector: ([journey]) => tuple(journey),
        },
      );
      try {
        await fc.assert(
          fc.asyncProperty(anyRuleset(family, "mangle").map(prepared), anyTraffic, async (ruleset, traffic) => {
            // Anew, so that counts begin at zero.
            await rules.remove();
            conntrack.deleteWhere(() => true);
            assert.deepEqual(await rules.apply(changeTo(ruleset)), []);
            const expected: string[] = [];
            for (const [journey, by] of traffic.filter(([one]) => canBeSent(one))) {
              const one = coming(journey, by);
              passHook(ruleset, "PREROUTING", one, { local: [WORLD[family].node], isReversePath: false });
              expected.push(...one.noted.filter((noted) => noted.startsWith("rule ")));
              node.send(by, journey.one.packet);
            }
            const found = async (): Promise<string[]> =>
              (await rules.counts()).flatMap(({ counted: { of, direction, index }, packets }) =>
                Array.from({ length: packets }, () => `${of} ${direction} ${index}`),
              );
            await eventually(async () => assert.deepEqual((await found()).toSorted(), expected.toSorted()));
          }),
          { numRuns: RUNS },
        );
      } finally {
        rules.close();
        conntrack.close();
      }
    });
  }
});

async function eventually(what: () => Promise<void>): Promise<void> {
  let [last, isDone]: [unknown, boolean] = [undefined, false];
  for (let attempt = 0; attempt < 100 && !isDone; attempt += 1) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- until it is so
      await what();
      isDone = true;
    } catch (error) {
      last = error;
      // oxlint-disable-next-line no-await-in-loop
      await new Promise((resolve) => void setTimeout(resolve, 2));
    }
  }
  if (!isDone) throw last;
}

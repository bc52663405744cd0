/** What of policy is not in force as it was written, and why: by the ids that the compiler uses. */
import type { Refusal } from "../dataplane/ruleset.ts";
import type { Family } from "../ip/address.ts";
import type { Difference } from "../policy/compile.ts";
import type { Update } from "../policy/model.ts";

export interface PolicyProblems {
  /** What the objects say that cannot be taken as written. */
  told(update: Update): void;
  /** What the compiler could not express, in place of what was told of the same. */
  compiled(difference: Difference): void;
  /** All that the kernel refuses of a family now. Returns what it did not refuse before. */
  refused(family: Family, refusals: readonly Refusal[]): readonly Refusal[];
  /** The kernel is asked anew. */
  startOver(): void;
  /** Of a policy, a profile or an endpoint: one sentence each. */
  of(kind: Update["kind"], id: string): readonly string[];
  /** Everything of which the kernel refused something. */
  refusedOrigins(): readonly string[];
  /** What of this origin the kernel refused. */
  refusals(origin: string): readonly string[];
  list(): readonly { readonly id: string; readonly reason: string }[];
}

/** By what the builder knows an object. */
export function originOf({ kind, id }: { readonly kind: Update["kind"]; readonly id: string }): string {
  return kind === "profile" ? `pro/${id}` : id;
}

export function policyProblems(): PolicyProblems {
  const ofObjects = new Map<string, readonly string[]>();
  const ofRules = new Map<string, readonly string[]>();
  const refused = new Map<Family, readonly Refusal[]>();

  const keyOf = (kind: Update["kind"], id: string): string => `${kind} ${id}`;
  function note(where: Map<string, readonly string[]>, key: string, problems: readonly string[]): void {
    if (problems.length === 0) where.delete(key);
    else where.set(key, problems);
  }
  const refusedOrigins = (): string[] => [...new Set([...refused.values()].flat().map(({ origin }) => origin))];
  /** By what the builder calls origin: the ids of policies and endpoints, `pro/` and the name of a profile. */
  function refusalsOf(origin: string): string[] {
    const found = [...refused.values()].flat().filter((each) => each.origin === origin);
    return [...new Set(found.map(({ reason }) => reason))].map((reason) => `the kernel refused it: ${reason}`);
  }
  return {
    told({ kind, id, value }) {
      const problems = value !== undefined && "problems" in value ? (value.problems ?? []) : [];
      if (problems.length > 0 || ofObjects.size > 0) note(ofObjects, keyOf(kind, id), problems);
    },
    compiled({ policies, profiles }) {
      for (const [id, policy] of policies) note(ofRules, keyOf("policy", id), policy?.problems ?? []);
      // A service account's profile decides nothing, whether it is there or not.
      for (const [id, profile] of profiles)
        if (!id.startsWith("ksa.")) note(ofRules, keyOf("profile", id), profile?.problems ?? []);
    },
    refused(family, refusals) {
      const before = refused.get(family) ?? [];
      refused.set(family, refusals);
      const isKnown = (one: Refusal): boolean =>
        before.some(({ origin, reason }) => origin === one.origin && reason === one.reason);
      return refusals.filter((one) => !isKnown(one));
    },
    startOver: () => refused.clear(),
    of(kind, id) {
      const key = keyOf(kind, id);
      return [...(ofRules.get(key) ?? ofObjects.get(key) ?? []), ...refusalsOf(originOf({ kind, id }))];
    },
    refusedOrigins,
    refusals: refusalsOf,
    list() {
      const written = [...new Set([...ofObjects.keys(), ...ofRules.keys()])].flatMap((key) =>
        (ofRules.get(key) ?? ofObjects.get(key) ?? []).map((reason) => ({
          id: key.slice(key.indexOf(" ") + 1),
          reason,
        })),
      );
      return [...written, ...refusedOrigins().flatMap((id) => refusalsOf(id).map((reason) => ({ id, reason })))];
    },
  };
}

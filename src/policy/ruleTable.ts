/** The rules of the policies (or profiles) that somebody asks, compiled, with the address sets that they look at. */
import { compileRules, type CompiledRule } from "./compileRule.ts";
import type { Policy, Rule } from "./model.ts";
import type { AddressSets } from "./sets.ts";

/** The rules of a policy or a profile. */
export interface CompiledPolicy {
  /** A policy's id, or a profile's name. */
  readonly id: string;
  readonly ingress: readonly CompiledRule[];
  readonly egress: readonly CompiledRule[];
  /** Of the object and of its rules: what could not be taken as written, and what was done instead. */
  readonly problems: readonly string[];
}

export type PolicyRules = Pick<Policy, "ingress" | "egress" | "problems">;

export interface RuleTable {
  /** Ids of those that changed. */
  readonly dirty: Set<string>;
  readonly compiled: Map<string, CompiledPolicy>;
  retain(id: string): void;
  release(id: string): void;
  take(): Map<string, CompiledPolicy | undefined>;
}

/** @param source of the rules of an id; undefined where there are none */
export function ruleTable(
  source: (id: string) => PolicyRules | undefined,
  sets: Pick<AddressSets, "retain" | "release">,
): RuleTable {
  const dirty = new Set<string>();
  const users = new Map<string, number>();
  const compiled = new Map<string, CompiledPolicy>();
  const setsOf = new Map<string, readonly string[]>();
  const count = (id: string, by: 1 | -1): void => {
    const now = (users.get(id) ?? 0) + by;
    if (now === 0) users.delete(id);
    else users.set(id, now);
    if (now === 0 || (now === 1 && by === 1)) dirty.add(id);
  };
  return {
    dirty,
    compiled,
    retain: (id) => count(id, 1),
    release: (id) => count(id, -1),
    take() {
      const changes = new Map<string, CompiledPolicy | undefined>();
      for (const id of dirty) {
        const rules = users.has(id) ? source(id) : undefined;
        const before = setsOf.get(id) ?? [];
        if (rules === undefined) {
          setsOf.delete(id);
          if (compiled.delete(id)) changes.set(id, undefined);
        } else {
          const used: string[] = [];
          const compile = (list: readonly Rule[]) =>
            compileRules(list, (spec) => {
              const set = sets.retain(spec);
              used.push(set);
              return set;
            });
          const [ingress, egress] = [compile(rules.ingress), compile(rules.egress)];
          setsOf.set(id, used);
          const problems = [...rules.problems, ...ingress.problems, ...egress.problems];
          const now: CompiledPolicy = { id, ingress: ingress.rules, egress: egress.rules, problems };
          const known = compiled.get(id);
          if (known === undefined || JSON.stringify(known) !== JSON.stringify(now)) {
            compiled.set(id, now);
            changes.set(id, now);
          }
        }
        // After the new ones were retained, so that a set that both use stays as it is.
        for (const set of before) sets.release(set);
      }
      dirty.clear();
      return changes;
    },
  };
}

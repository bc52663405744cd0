/** What an agent says of policy: by the names that people give their objects. */
import type { RuleCount } from "../dataplane/ruleset.ts";
import type { PolicyEngineStatus } from "./policyEngine.ts";
import { originOf, type PolicyProblems } from "./policyProblems.ts";
import { identityOf, isReached, reachOf, type ReachTables } from "./policyReach.ts";

/**
 * Why the objects (`namespace/name`, `name`) are not in force here as they were written: a sentence for each reason. What
 * they share in with others counts, as an address set does that a rule of another object looks at.
 */
export function problemsOf(
  problems: PolicyProblems,
  kind: string,
  objects: readonly string[],
  tables: () => ReachTables,
): string[] {
  const refused = problems.refusedOrigins();
  return objects.flatMap((object) => {
    const identity = identityOf(kind, object);
    if (identity === undefined) return [];
    const reach = refused.length === 0 ? undefined : reachOf(identity, tables());
    const own = originOf(identity);
    const others = refused.filter((origin) => origin !== own && reach !== undefined && isReached(reach, origin));
    return [
      ...problems.of(identity.kind, identity.id),
      ...others.flatMap((origin) => problems.refusals(origin).map((reason) => `${origin}: ${reason}`)),
    ].map((reason) => `${kind} ${object}: ${reason}`);
  });
}

/** What stands in `caracal node status`. */
export function policyStatus(status: PolicyEngineStatus, problems: PolicyProblems): object {
  const { renderer, told, inKernel, failure, fault, size } = status;
  return {
    renderer: renderer ?? null,
    /** Changes that this node has heard of, and those of them that are in the kernel. */
    generation: told,
    inForce: inKernel,
    failure: failure ?? null,
    /** Why the settings are not carried out, but those before. */
    fault: fault ?? null,
    ...size,
    problems: problems.list(),
  };
}

/** One line of `caracal policy counters`. */
export interface PolicyCount {
  /** A policy's id, `pro/<name>`, `tier/<name>` or `profiles`. */
  readonly of: string;
  readonly direction: "ingress" | "egress";
  /** Absent for the end of a tier or of all profiles. */
  readonly rule?: number;
  readonly packets: number;
  readonly bytes: number;
}

/** Of both families, and of all interfaces, together. */
export function policyCounts(counts: readonly RuleCount[]): PolicyCount[] {
  const sums = new Map<string, PolicyCount>();
  for (const { counted, packets, bytes } of counts) {
    const { of, direction, index } = counted;
    const key = `${of} ${direction} ${index ?? ""}`;
    const before = sums.get(key) ?? { packets: 0, bytes: 0 };
    const rule = index === undefined ? {} : { rule: index };
    sums.set(key, { of, direction, ...rule, packets: before.packets + packets, bytes: before.bytes + bytes });
  }
  return [...sums.values()];
}

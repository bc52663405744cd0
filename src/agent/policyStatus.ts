/** What an agent says of policy: by the names that people give their objects. */
import type { RuleCount } from "../dataplane/ruleset.ts";
import { policyId } from "../policy/convertPolicy.ts";
import type { PolicyKind, Update } from "../policy/model.ts";
import type { KindId } from "../resources/registry.ts";
import type { PolicyEngineStatus } from "./policyEngine.ts";
import type { PolicyProblems } from "./policyProblems.ts";

const POLICY_KINDS: Readonly<Partial<Record<KindId, PolicyKind>>> = {
  NetworkPolicy: "knp",
  ClusterNetworkPolicy: "kcnp",
  CalicoNetworkPolicy: "np",
  GlobalNetworkPolicy: "gnp",
  StagedNetworkPolicy: "snp",
  StagedGlobalNetworkPolicy: "sgnp",
  StagedKubernetesNetworkPolicy: "sknp",
};

/** By what the compiler knows an object that may be in force otherwise than it was written; undefined for other kinds. */
function identityOf(kind: string, name: string, namespace?: string): { kind: Update["kind"]; id: string } | undefined {
  const policy = POLICY_KINDS[kind as KindId];
  if (policy !== undefined) return { kind: "policy", id: policyId(policy, name, namespace) };
  if (kind === "Profile") return { kind: "profile", id: name };
  return kind === "HostEndpoint" ? { kind: "endpoint", id: `hep/${name}` } : undefined;
}

/** Why the objects (`namespace/name`, `name`) are not in force here as they were written: a sentence for each reason. */
export function problemsOf(problems: PolicyProblems, kind: string, objects: readonly string[]): string[] {
  return objects.flatMap((object) => {
    const slash = object.indexOf("/");
    const [namespace, name] = slash < 0 ? [undefined, object] : [object.slice(0, slash), object.slice(slash + 1)];
    const identity = identityOf(kind, name, namespace);
    return identity === undefined
      ? []
      : problems.of(identity.kind, identity.id).map((reason) => `${kind} ${object}: ${reason}`);
  });
}

/** What stands in `caracal node status`. */
export function policyStatus(status: PolicyEngineStatus, problems: PolicyProblems): object {
  const { renderer, told, inKernel, failure, size } = status;
  return {
    renderer: renderer ?? null,
    /** Changes that this node has heard of, and those of them that are in the kernel. */
    generation: told,
    inForce: inKernel,
    failure: failure ?? null,
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

/** Putting selectors together from the parts in which objects give them, and the labels that the system sets itself. */
import type { LabelSelector } from "../resources/labelSelector.ts";
import { cachedSelector, type Selector } from "../resources/selector.ts";

export const NAMESPACE_LABEL = "projectcalico.org/namespace";
export const ORCHESTRATOR_LABEL = "projectcalico.org/orchestrator";
export const SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount";
/** The label, behind a prefix, by which namespaces and service accounts are selected by name. */
export const NAME_LABEL = "projectcalico.org/name";
/** Before the keys of labels that an endpoint has from its namespace, and from its service account. */
export const NAMESPACE_PREFIX = "pcns.";
export const SERVICE_ACCOUNT_PREFIX = "pcsa.";

export function equals(key: string, value: string): Selector {
  return { op: "==", key, value };
}

/** All of the given selectors; undefined where there is none. */
export function allOf(...parts: readonly (Selector | undefined)[]): Selector | undefined {
  const operands = parts.filter((part) => part !== undefined);
  return operands.length > 1 ? { op: "&&", operands } : operands[0];
}

/** The selector with `prefix` before every key. */
export function withPrefix(prefix: string, selector: Selector): Selector {
  switch (selector.op) {
    case "all":
    case "global":
      return selector;
    case "!":
      return { op: "!", operand: withPrefix(prefix, selector.operand) };
    case "&&":
    case "||":
      return { op: selector.op, operands: selector.operands.map((operand) => withPrefix(prefix, operand)) };
    default:
      return { ...selector, key: prefix + selector.key };
  }
}

/** The selector with something else in the place of every `all()`. */
function withoutAll(selector: Selector, instead: Selector): Selector {
  if (selector.op === "all") return instead;
  if (selector.op === "!") return { op: "!", operand: withoutAll(selector.operand, instead) };
  if (selector.op !== "&&" && selector.op !== "||") return selector;
  return { op: selector.op, operands: selector.operands.map((operand) => withoutAll(operand, instead)) };
}

const inSomeNamespace: Selector = { op: "has", key: NAMESPACE_LABEL };

/**
 * A selector of namespaces, over the labels that endpoints have from them. `all()` is every namespace, which leaves out
 * host endpoints and global network sets; `global()` is those.
 */
export function namespaces(selector: Selector): Selector {
  if (selector.op === "global") return { op: "!", operand: inSomeNamespace };
  return withoutAll(withPrefix(NAMESPACE_PREFIX, selector), inSomeNamespace);
}

/** A selector of service accounts, over the labels that endpoints have from them. */
export function serviceAccounts(selector: Selector): Selector {
  return withPrefix(SERVICE_ACCOUNT_PREFIX, selector);
}

/** As `serviceAccounts`, where `all()` is every endpoint that has a service account. */
export function anyServiceAccount(selector: Selector): Selector {
  return withoutAll(serviceAccounts(selector), { op: "has", key: SERVICE_ACCOUNT_LABEL });
}

export function parsed(text: string | undefined): Selector | undefined {
  // Thousands of rules may ask for the same few.
  return text === undefined || text === "" ? undefined : cachedSelector(text);
}

/** The terms of Kubernetes' object form: matchLabels by key, then matchExpressions as they stand. */
function terms(selector: LabelSelector): Selector[] {
  const labels = Object.entries(selector.matchLabels ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return [
    ...labels.map(([key, value]) => equals(key, value)),
    ...(selector.matchExpressions ?? []).map(({ key, operator, values = [] }): Selector => {
      if (operator === "Exists") return { op: "has", key };
      if (operator === "DoesNotExist") return { op: "!", operand: { op: "has", key } };
      return { op: operator === "In" ? "in" : "not in", key, values: [...new Set(values)].sort() };
    }),
  ];
}

/** Pods by Kubernetes' object form; absent: all pods. Nothing but pods: sets and host endpoints are left out. */
export function pods(selector: LabelSelector | undefined): Selector {
  const orchestrator = equals(ORCHESTRATOR_LABEL, "k8s");
  return allOf(orchestrator, ...(selector === undefined ? [] : terms(selector))) ?? orchestrator;
}

/** What is in a namespace that Kubernetes' object form selects. */
export function inNamespaces(selector: LabelSelector): Selector {
  return namespaces(allOf(...terms(selector)) ?? { op: "all" });
}

export function inNamespace(namespace: string): Selector {
  return equals(NAMESPACE_LABEL, namespace);
}

/** Calico's rules, as the user writes them, to the rules of the model. */
import { parsePrefix } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import type { Protocol } from "../resources/fields.ts";
import type { EntityRule, Rule as CalicoRule } from "../resources/rule.ts";
import type { Selector } from "../resources/selector.ts";
import { unreadableIn } from "../resources/unreadable.ts";
import { hasPorts, PROTOCOL, type Action, type Direction, type Entity, type PortMatch, type Rule } from "./model.ts";
import { allOf, inNamespace, namespaces, parsed, SERVICE_ACCOUNT_LABEL, serviceAccounts } from "./selectors.ts";

/** A rule that cannot be taken as written. */
class RuleError extends Failure<"bad-rule"> {
  constructor(reason: string) {
    super("bad-rule", reason);
  }
}

export function refuse(reason: string): never {
  throw new RuleError(reason);
}

export interface Converted {
  readonly rules: Rule[];
  readonly problems: string[];
}

const ACTIONS: Readonly<Record<string, Action>> = { Allow: "allow", Deny: "deny", Log: "log", Pass: "pass" };

/**
 * Converts each rule by itself. One that cannot be taken as written must never let more through: in place of a Deny or
 * Pass everything is denied, and an Allow or Log is left out. Each is named in `problems`.
 */
export function convertEach<Item extends { readonly action: string }>(
  items: readonly Item[],
  direction: Direction,
  convertOne: (item: Item, origin: string) => readonly Rule[],
): Converted {
  const rules: Rule[] = [];
  const problems: string[] = [];
  for (const [index, item] of items.entries()) {
    const origin = `${direction}[${index}]`;
    try {
      const why = unreadableIn(item);
      rules.push(...(why === undefined ? convertOne(item, origin) : refuse(why)));
    } catch (thrown) {
      const isDropped = item.action === "Allow" || item.action === "Accept" || item.action === "Log";
      const instead = isDropped ? "it is left out" : "everything is denied in its place";
      problems.push(`${origin}: ${messageOf(thrown)}; ${instead}`);
      if (!isDropped) rules.push({ action: "deny", source: {}, destination: {}, origin });
    }
  }
  return { rules, problems };
}

/** @param namespace of the policy; absent for global policies and profiles */
export function convertRules(
  rules: readonly CalicoRule[],
  direction: Direction,
  namespace: string | undefined,
): Converted {
  return convertEach(rules, direction, (rule, origin) => [convertRule(rule, direction, namespace, origin)]);
}

const RULE_FIELDS: ReadonlySet<string> = new Set<keyof CalicoRule>([
  "action",
  "ipVersion",
  "protocol",
  "notProtocol",
  "icmp",
  "notICMP",
  "source",
  "destination",
  "http",
  "metadata",
]);
const ENTITY_FIELDS: ReadonlySet<string> = new Set<keyof EntityRule>([
  "nets",
  "notNets",
  "selector",
  "notSelector",
  "namespaceSelector",
  "services",
  "ports",
  "notPorts",
  "serviceAccounts",
]);

/** A field of a newer version narrows a rule in a way that we do not know: not to look at it would widen the rule. */
function refuseUnknown(value: object, known: ReadonlySet<string>, where: string): void {
  for (const field of Object.keys(value)) {
    if (!known.has(field)) refuse(`${where}${field} is a field that this version does not know`);
  }
}

function convertRule(rule: CalicoRule, direction: Direction, namespace: string | undefined, origin: string): Rule {
  const action = ACTIONS[rule.action] ?? refuse(`the action ${String(rule.action)} is not known`);
  refuseUnknown(rule, RULE_FIELDS, "");
  const sides = { source: rule.source ?? {}, destination: rule.destination ?? {} };
  const { protocol, notProtocol, icmp, notICMP, ipVersion, metadata } = rule;
  const number = protocol === undefined ? undefined : protocolNumber(protocol);
  for (const [side, { ports = [], notPorts = [] }] of Object.entries(sides)) {
    if (ports.length + notPorts.length > 0 && !hasPorts(number)) refuse(`${side}.ports need protocol TCP, UDP or SCTP`);
  }
  const badSide = direction === "ingress" ? "destination" : "source";
  if (sides[badSide].services !== undefined) {
    refuse(`${badSide}.services may not stand in an ${direction} rule`);
  }
  return {
    action,
    ...(ipVersion === undefined ? {} : { family: ipVersion }),
    ...(number === undefined ? {} : { protocol: number }),
    ...(notProtocol === undefined ? {} : { notProtocol: protocolNumber(notProtocol) }),
    ...(icmp === undefined ? {} : { icmp }),
    ...(notICMP === undefined ? {} : { notIcmp: notICMP }),
    source: convertEntity(sides.source, namespace, "source."),
    destination: convertEntity(sides.destination, namespace, "destination."),
    origin,
    ...(metadata?.annotations === undefined ? {} : { annotations: metadata.annotations }),
  };
}

export function protocolNumber(protocol: Protocol): number {
  return typeof protocol === "number" ? protocol : PROTOCOL[protocol];
}

/** Most rules ask nothing of one of the sides. */
const ANYTHING: Entity = {};

function convertEntity(entity: EntityRule, namespace: string | undefined, where: string): Entity {
  if (Object.keys(entity).length === 0) return ANYTHING;
  refuseUnknown(entity, ENTITY_FIELDS, where);
  const { nets, notNets, services, ports, notPorts } = entity;
  return {
    ...(nets === undefined || nets.length === 0 ? {} : { nets: nets.map(parsePrefix) }),
    ...(notNets === undefined || notNets.length === 0 ? {} : { notNets: notNets.map(parsePrefix) }),
    ...selectorsOf(entity, namespace),
    ...(ports === undefined || ports.length === 0 ? {} : { ports: ports.map(convertPort) }),
    ...(notPorts === undefined || notPorts.length === 0 ? {} : { notPorts: notPorts.map(convertPort) }),
    ...(services === undefined ? {} : { service: serviceName(services, namespace, where) }),
  };
}

function serviceName(
  { name, namespace }: { name: string; namespace?: string },
  own: string | undefined,
  where: string,
): string {
  const of = namespace ?? own ?? refuse(`${where}services.namespace is required in a policy without a namespace`);
  return `${of}/${name}`;
}

/**
 * One selector for all that says which endpoints are meant. As soon as any of it is given in a namespaced policy, and
 * no namespaces are, the policy's own namespace is meant. Beside that, a notSelector narrows it; alone (in a global
 * policy) it also matches addresses that belong to nobody.
 */
function selectorsOf(entity: EntityRule, namespace: string | undefined): Pick<Entity, "selector" | "notSelector"> {
  const own = parsed(entity.selector);
  const not = parsed(entity.notSelector);
  const ofNamespaces = parsed(entity.namespaceSelector);
  const selector = allOf(serviceAccountsOf(entity), own);
  const isScoped = selector !== undefined || not !== undefined || ofNamespaces !== undefined;
  const scope =
    ofNamespaces === undefined
      ? namespace === undefined
        ? undefined
        : inNamespace(namespace)
      : namespaces(ofNamespaces);
  const positive = isScoped ? allOf(scope, selector) : undefined;
  if (not === undefined) return positive === undefined ? {} : { selector: positive };
  if (positive === undefined) return { notSelector: not };
  return { selector: { op: "&&", operands: [positive, { op: "!", operand: not }] } };
}

function serviceAccountsOf({ serviceAccounts: match }: EntityRule): Selector | undefined {
  if (match === undefined) return undefined;
  const selector = parsed(match.selector);
  const names = [...new Set(match.names ?? [])].sort();
  return allOf(
    selector === undefined ? undefined : serviceAccounts(selector),
    names.length === 0 ? undefined : { op: "in", key: SERVICE_ACCOUNT_LABEL, values: names },
  );
}

/** `80`, `"8000:8080"` or `"http"`. */
function convertPort(port: number | string): PortMatch {
  if (typeof port === "number") return { first: port, last: port };
  const range = /^([0-9]+):([0-9]+)$/.exec(port);
  return range === null ? { name: port } : { first: Number(range[1]), last: Number(range[2]) };
}

/** A rule of Calico's policies and profiles: what a packet must match, and what then happens. */
import {
  familyOf,
  hasPorts,
  nameOf,
  net,
  protocol,
  ruleNamespaceSelector,
  rulePort,
  selector,
  type Protocol,
} from "./fields.ts";
import { labelKey } from "./names.ts";
import {
  arrayOf,
  int,
  mapOf,
  object,
  oneOf,
  oneOfNumber,
  optional,
  refine,
  string,
  text,
  withDefault,
  type Check,
  type Infer,
  type Schema,
} from "./schema.ts";

const NETS_MAX = 256;
const PORTS_MAX = 50;
const HTTP_MAX = 20;

const entityFields = object({
  nets: optional(arrayOf(net, NETS_MAX)),
  notNets: optional(arrayOf(net, NETS_MAX)),
  selector: optional(selector),
  notSelector: optional(selector),
  namespaceSelector: optional(ruleNamespaceSelector),
  services: optional(object({ name: nameOf, namespace: optional(nameOf) })),
  ports: optional(arrayOf(rulePort, PORTS_MAX)),
  notPorts: optional(arrayOf(rulePort, PORTS_MAX)),
  serviceAccounts: optional(object({ names: optional(arrayOf(nameOf)), selector: optional(selector) })),
});
/** One side of a packet. All that is given must hold; an empty one matches everything. */
export interface EntityRule extends Infer<typeof entityFields> {}

const entity: Schema<EntityRule> = refine(entityFields, (value, fault) => {
  if (value.services === undefined) return;
  for (const field of ["nets", "notNets", "selector", "notSelector", "namespaceSelector", "serviceAccounts"] as const) {
    if (value[field] !== undefined) fault("must be absent, because services is given", field);
  }
});

/** ICMP type and code; a code needs its type, as in the kernel's own match. */
const icmp = refine(object({ type: optional(int(0, 254)), code: optional(int(0, 255)) }), ({ type, code }, fault) => {
  if (code !== undefined && type === undefined) fault("is required with code", "type");
});

const httpPathText = text("a path", (value) => {
  if (/^\/[^?# ]*$/.test(value)) return value;
  throw new TypeError(`"${value}" is not a path: it must begin with "/" and have no "?", "#" or space`);
});
const httpPath = refine(object({ exact: optional(httpPathText), prefix: optional(httpPathText) }), (value, fault) => {
  if (Object.keys(value).length !== 1) fault("expected either exact or prefix");
});
const httpMethod = text("an HTTP method", (value) => {
  if (/^[A-Z]+$/.test(value)) return value;
  throw new TypeError(`"${value}" is not an HTTP method such as GET`);
});

/** Matched by an application-layer proxy only; the kernel sees the rest of the rule. */
const http = object({
  methods: optional(arrayOf(httpMethod, HTTP_MAX)),
  paths: optional(arrayOf(httpPath, HTTP_MAX)),
});

const fields = object({
  action: oneOf("Allow", "Deny", "Log", "Pass"),
  ipVersion: optional(oneOfNumber(4, 6)),
  protocol: optional(protocol),
  notProtocol: optional(protocol),
  icmp: optional(icmp),
  notICMP: optional(icmp),
  source: withDefault(entity, {}),
  destination: withDefault(entity, {}),
  http: optional(http),
  metadata: optional(object({ annotations: optional(mapOf(string, labelKey)) })),
});
export interface Rule extends Infer<typeof fields> {}

const isIcmp = (value: Protocol | undefined): boolean => value === "ICMP" || value === 1;
const isIcmpV6 = (value: Protocol | undefined): boolean => value === "ICMPv6" || value === 58;

const check: Check<Rule> = (rule, fault) => {
  for (const side of ["source", "destination"] as const) {
    for (const field of ["ports", "notPorts"] as const) {
      if ((rule[side][field] ?? []).length > 0 && !hasPorts(rule.protocol)) {
        fault("needs protocol TCP, UDP or SCTP", `${side}.${field}`);
      }
    }
  }
  if (rule.icmp !== undefined && !isIcmp(rule.protocol) && !isIcmpV6(rule.protocol)) {
    fault("needs protocol ICMP or ICMPv6", "icmp");
  }
  for (const field of ["protocol", "notProtocol"] as const) {
    if (isIcmp(rule[field]) && rule.ipVersion === 6) fault(`must be 4 with ${field} ICMP`, "ipVersion");
    if (isIcmpV6(rule[field]) && rule.ipVersion === 4) fault(`must be 6 with ${field} ICMPv6`, "ipVersion");
  }
  checkFamilies(rule, fault);
  if (rule.destination.services !== undefined) {
    for (const field of ["ports", "notPorts"] as const) {
      if (rule.destination[field] !== undefined)
        fault("must be absent: services bring their own ports", `destination.${field}`);
    }
  }
  if (rule.http !== undefined) {
    if (rule.action !== "Allow") fault("may stand in Allow rules only", "http");
    if (rule.protocol !== undefined && rule.protocol !== "TCP" && rule.protocol !== 6)
      fault("needs protocol TCP", "http");
  }
};

/** A packet has one IP version, so a rule that names nets of both could never match. */
const checkFamilies: Check<Rule> = (rule, fault) => {
  let first: 4 | 6 | undefined = rule.ipVersion;
  for (const side of ["source", "destination"] as const) {
    for (const field of ["nets", "notNets"] as const) {
      for (const [i, value] of (rule[side][field] ?? []).entries()) {
        const family = familyOf(value);
        first ??= family;
        if (family === first) continue;
        const why = rule.ipVersion === undefined ? `other nets of the rule are IPv${first}` : `ipVersion is ${first}`;
        fault(`"${value}" is IPv${family}, but ${why}`, `${side}.${field}[${i}]`);
      }
    }
  }
};

const rule: Schema<Rule> = refine(fields, check);

/** The most rules that a policy may have in one direction. */
export const RULES_MAX = 1024;

/** The rules of one direction, and what only that direction allows. */
function rulesOf(direction: "ingress" | "egress") {
  return refine(arrayOf(rule, RULES_MAX), (rules, fault) => {
    for (const [i, item] of rules.entries()) {
      const side = direction === "ingress" ? "destination" : "source";
      if (item[side].services !== undefined)
        fault(`may not stand in the ${side} of an ${direction} rule`, `[${i}].${side}.services`);
      if (direction === "egress" && item.http !== undefined) fault("may not stand in an egress rule", `[${i}].http`);
    }
  });
}
export const ingressRules = rulesOf("ingress");
export const egressRules = rulesOf("egress");

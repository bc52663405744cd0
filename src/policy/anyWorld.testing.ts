/** Random worlds, and random changes to them, in which the same few labels, addresses and ports meet often. */
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import { parseSelector } from "../resources/selector.ts";
import type { Packet } from "./match.ts";
import {
  familyOfNet,
  icmpOf,
  parseNet,
  PROTOCOL,
  type Endpoint,
  type Entity,
  type PortMatch,
  type Rule,
  type Update,
} from "./model.ts";

export const NODES = ["node1", "node2"];
const V4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.1", "198.51.100.1"];
const V6 = ["2001:db8::1", "2001:db8::2", "2001:db8:1::1"];
const NETS = ["10.0.0.0/30", "10.0.0.2", "10.0.0.0/16", "0.0.0.0/0", "198.51.100.0/24", "2001:db8::/64", "::/0"];
const PORTS = [80, 81, 8080];

const optional = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 1 });
/** An object without the fields that are undefined. */
function object<Value extends object>(fields: { [Key in keyof Value]-?: fc.Arbitrary<Value[Key] | undefined> }) {
  return fc
    .record(fields as Record<string, fc.Arbitrary<unknown>>)
    .map((all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Value);
}

const SELECTORS = [
  "all()",
  "a == '1'",
  "a == '2'",
  "a != '1'",
  "has(b)",
  "!has(b)",
  "a in {'1', '2'}",
  "a == '1' && b == '1'",
  "a == '1' || b == '2'",
  "!(a == '1' && has(b))",
  "projectcalico.org/namespace == 'n'",
  "p == '1'",
  "a contains '1'",
];
const selector = fc.constantFrom(...SELECTORS).map(parseSelector);

const port: fc.Arbitrary<PortMatch> = fc.oneof(
  fc.constantFrom(...PORTS).map((number) => ({ first: number, last: number })),
  fc.constant({ first: 80, last: 90 }),
  fc.constantFrom("http", "dns").map((name) => ({ name })),
);
const ports = fc.uniqueArray(port, { minLength: 1, maxLength: 3, selector: (of) => JSON.stringify(of) });
const nets = fc.uniqueArray(fc.constantFrom(...NETS), { minLength: 1, maxLength: 3 }).map((list) => list.map(parseNet));

function entity(hasPorts: boolean): fc.Arbitrary<Entity> {
  const never = fc.constant(undefined);
  return object<Entity>({
    nets: optional(nets),
    notNets: optional(nets),
    selector: optional(selector),
    notSelector: optional(selector),
    ports: hasPorts ? optional(ports) : never,
    notPorts: hasPorts ? optional(ports) : never,
    service: fc.option(fc.constantFrom("n/s", "n/t"), { nil: undefined, freq: 9 }),
  });
}

const icmp = object<{ type?: number; code?: number }>({
  type: optional(fc.constantFrom(8, 128)),
  code: fc.option(fc.constantFrom(0, 1), { nil: undefined, freq: 3 }),
});

const rule: fc.Arbitrary<Rule> = fc
  .constantFrom(undefined, PROTOCOL.TCP, PROTOCOL.UDP, PROTOCOL.ICMP, PROTOCOL.ICMPv6, 47)
  .chain((protocol) => {
    const side = entity(protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP);
    return object<Rule>({
      action: fc.constantFrom("allow", "allow", "deny", "pass", "log"),
      family: fc.option(fc.constantFrom(4, 6), { nil: undefined, freq: 5 }),
      protocol: fc.constant(protocol),
      notProtocol: fc.option(fc.constantFrom(PROTOCOL.TCP, PROTOCOL.ICMP), { nil: undefined, freq: 4 }),
      icmp: fc.option(icmp, { nil: undefined, freq: protocol === 1 || protocol === 58 ? 1 : 20 }),
      notIcmp: fc.option(icmp, { nil: undefined, freq: 6 }),
      // Most rules look at one side only, so that some match.
      source: fc.oneof(side, fc.constant({}), fc.constant({})),
      destination: fc.oneof(side, fc.constant({}), fc.constant({})),
      origin: fc.constant("r"),
      annotations: fc.constant(undefined),
    });
  });
const rules = fc.array(rule, { maxLength: 3 });

const labels = fc.dictionary(fc.constantFrom("a", "b"), fc.constantFrom("1", "2"), { maxKeys: 2 });
const profileNames = fc.uniqueArray(fc.constantFrom("p", "q", "missing"), { maxLength: 2 });

function endpoint(id: string): fc.Arbitrary<Endpoint> {
  const kind = id.startsWith("wep") ? "workload" : id.startsWith("hep") ? "host" : "set";
  const addresses = [...V4.slice(0, 4), ...V6];
  return fc
    .record({
      labels,
      profiles: profileNames,
      nets: fc.uniqueArray(fc.constantFrom(...(kind === "set" ? NETS : addresses)), { maxLength: 3 }),
      ports: fc.uniqueArray(
        fc.record({
          name: fc.constantFrom("http", "dns"),
          protocol: fc.constantFrom(PROTOCOL.TCP, PROTOCOL.UDP),
          port: fc.constantFrom(...PORTS),
        }),
        { maxLength: 2, selector: (of) => JSON.stringify(of) },
      ),
      node: fc.constantFrom(...NODES),
      interfaceName: fc.constantFrom("eth0", "*", undefined),
    })
    .map(({ node, interfaceName, ports: named, labels: own, ...rest }): Endpoint => {
      const common = { id, kind, name: id, ...rest } as const;
      if (kind === "set") return { ...common, labels: own, ports: [] };
      if (kind === "host") {
        return {
          ...common,
          labels: own,
          ports: named,
          node,
          ...(interfaceName === undefined ? {} : { interfaceName }),
        };
      }
      const inNamespace = { ...own, "projectcalico.org/namespace": id.endsWith("1") ? "n" : "m" };
      return { ...common, labels: inNamespace, ports: named, node, interfaceName: id.replaceAll("/", "") };
    });
}

const policyIds = ["gnp/a", "gnp/b", "gnp/c", "np/n/a", "np/n/d", "sgnp/a"] as const;
const policy = (id: (typeof policyIds)[number]) =>
  object<NonNullable<Extract<Update, { kind: "policy" }>["value"]>>({
    id: fc.constant(id),
    kind: fc.constant(id.startsWith("gnp") ? "gnp" : id.startsWith("np") ? "np" : "sgnp"),
    namespace: fc.constant(id.startsWith("np") ? "n" : undefined),
    name: fc.constant(id.slice(-1)),
    tier: fc.constantFrom("default", "default", "t", "u"),
    order: fc.constantFrom(1, 2, Infinity),
    selector,
    directions: fc.constantFrom(["ingress"], ["egress"], ["ingress", "egress"]),
    ingress: rules,
    egress: rules,
    stage: fc.constantFrom("normal", "normal", "normal", "untracked", "preDNAT"),
    applyOnForward: fc.boolean(),
    draft: fc.constant(id === "sgnp/a" ? { action: "set", replaces: "gnp/a" } : undefined),
    problems: fc.constant([]),
  });

const IDS = {
  endpoint: ["wep/n/1", "wep/n/2", "wep/m/1", "wep/m/2", "wep/m/3", "hep/1", "hep/2", "gnetset/1", "gnetset/2"],
  profile: ["p", "q", "projectcalico-default-allow"],
  tier: ["t", "u", "default"],
  slice: ["n/s-1", "n/s-2", "n/t-1"],
};

const ofId = <Value>(
  kind: Update["kind"],
  ids: readonly string[],
  value: (id: string) => fc.Arbitrary<Value>,
  goes: number,
): fc.Arbitrary<Update> =>
  fc
    .constantFrom(...ids)
    .chain((id) => fc.option(value(id), { nil: undefined, freq: goes }).map((made) => ({ id, made })))
    .map(({ id, made }) => (made === undefined ? { kind, id } : { kind, id, value: made }) as Update);

/** @param goes of so many updates, about one takes an object away */
function updateWith(goes: number): fc.Arbitrary<Update> {
  return fc.oneof(
    { weight: 6, arbitrary: ofId("endpoint", IDS.endpoint, endpoint, goes) },
    { weight: 6, arbitrary: ofId("policy", policyIds, (id) => policy(id as (typeof policyIds)[number]), goes) },
    {
      weight: 2,
      arbitrary: ofId(
        "profile",
        IDS.profile,
        (name) =>
          fc.record({
            name: fc.constant(name),
            labels: fc.dictionary(fc.constantFrom("a", "p"), fc.constantFrom("1", "2")),
            ingress: rules,
            egress: rules,
            problems: fc.constant([]),
          }),
        goes,
      ),
    },
    {
      weight: 1,
      arbitrary: ofId(
        "tier",
        IDS.tier,
        (name) =>
          fc.record({
            name: fc.constant(name),
            order: fc.constantFrom(1, 5, Infinity),
            defaultAction: fc.constantFrom("deny", "pass"),
          }),
        goes,
      ),
    },
    {
      weight: 1,
      arbitrary: ofId(
        "slice",
        IDS.slice,
        (id) =>
          fc.record({
            id: fc.constant(id),
            service: fc.constantFrom("n/s", "n/t"),
            addresses: fc.uniqueArray(fc.constantFrom(...V4, ...V6), { maxLength: 3 }),
            ports: fc.uniqueArray(fc.record({ protocol: fc.constant(PROTOCOL.TCP), port: fc.constantFrom(...PORTS) }), {
              maxLength: 2,
              selector: (of) => of.port,
            }),
          }),
        goes,
      ),
    },
  );
}

/** One change to a world, of any kind. */
export const anyUpdate = updateWith(4);
/** The changes that make a world: few objects go. */
export const anyHistory = fc.array(updateWith(30), { minLength: 15, maxLength: 35 });

export const anyPacket: fc.Arbitrary<Packet> = fc.constantFrom<4 | 6>(4, 4, 6).chain((family) => {
  const address = fc.constantFrom(...[...V4, ...V6].filter((text) => familyOfNet(text) === family)).map(parseAddress);
  const payload = fc.oneof(
    fc.record({
      protocol: fc.constantFrom(PROTOCOL.TCP, PROTOCOL.UDP),
      sourcePort: fc.constantFrom(80, 40000),
      destinationPort: fc.constantFrom(...PORTS),
    }),
    fc.record({
      protocol: fc.constant(icmpOf(family)),
      icmp: fc.record({ type: fc.constantFrom(8, 128, 0), code: fc.constantFrom(0, 1) }),
    }),
    fc.record({ protocol: fc.constantFrom(47, PROTOCOL.ICMP, PROTOCOL.ICMPv6).filter((of) => of !== icmpOf(family)) }),
  );
  return fc.tuple(address, address, payload).map(([source, destination, rest]) => ({
    family,
    source,
    destination,
    ...rest,
  }));
});

/**
 * What policy means for packets, paragraph by paragraph of Calico's documentation: rows of objects and of flows in a small
 * cluster. The evaluator is held against them, and so are the kernels of a lab.
 */
import type { worldOf } from "./world.testing.ts";

export const PLACES = [
  "namespace a env=prod",
  "namespace b env=dev",
  "pod a/x 10.0.0.1 2001:db8::1 app=x",
  "pod a/y 10.0.0.2 2001:db8::2 app=y @node2 http:TCP:8080 sa=reader",
  "pod b/z 10.0.1.1 app=z @node2",
  "{apiVersion: v1, kind: ServiceAccount, metadata: {name: reader, namespace: a, labels: {team: red}}}",
];

let serial = 0;
export const named = (kind: string, spec: string, name: string, namespace?: string): string =>
  `{apiVersion: projectcalico.org/v3, kind: ${kind}, metadata: {name: ${name}${
    namespace === undefined ? "" : `, namespace: ${namespace}`
  }}, spec: ${spec}}`;
export const gnp = (spec: string, name = `g${(serial += 1)}`): string => named("GlobalNetworkPolicy", spec, name);
const np = (spec: string, name = `n${(serial += 1)}`): string => named("NetworkPolicy", spec, name, "a");
export const tier = (name: string, spec: string): string => named("Tier", spec, name);
export const TO_X = "selector: app == 'x'";

export interface EvaluationRow {
  readonly name: string;
  readonly objects: string[];
  /** As `expectFlows` reads them. */
  readonly flows: string;
  readonly settings?: Parameters<typeof worldOf>[1];
}

export interface EvaluationTable {
  readonly title: string;
  readonly table: readonly EvaluationRow[];
}

/** Tables, and what adds one. */
export function openTables(): {
  tables: EvaluationTable[];
  rows: (title: string, table: readonly EvaluationRow[]) => void;
} {
  const tables: EvaluationTable[] = [];
  return { tables, rows: (title, table) => void tables.push({ title, table }) };
}

const { tables, rows } = openTables();

rows("evaluation (order of tiers and policies)", [
  {
    name: "tiers go by order, one without an order last, and of equal ones the first by name",
    objects: [
      tier("late", "{}"),
      tier("b", "{order: 5}"),
      tier("a", "{order: 5}"),
      gnp(`{tier: late, ${TO_X}, ingress: [{action: Deny}]}`),
      gnp(`{tier: a, ${TO_X}, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}, {action: Pass}]}`),
      gnp(`{tier: b, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1, 2]}}, {action: Pass}]}`),
    ],
    flows: "b/z -> a/x TCP/1 yes\n b/z -> a/x TCP/2 no\n b/z -> a/x TCP/3 no",
  },
  {
    name: "a tier without a policy that applies is skipped",
    objects: [tier("t", "{order: 1}"), gnp(`{tier: t, selector: app == 'nobody', ingress: [{action: Deny}]}`)],
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "a tier whose policies govern the other direction only is skipped",
    objects: [tier("t", "{order: 1}"), gnp(`{tier: t, ${TO_X}, types: [Egress], egress: [{action: Allow}]}`)],
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "policies go by order, one without an order last",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Deny}]}`),
      gnp(`{order: 10, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}]}`),
      gnp(`{order: 9.5, ${TO_X}, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1, 2]}}]}`),
    ],
    flows: "b/z -> a/x TCP/1 yes\n b/z -> a/x TCP/2 yes\n b/z -> a/x TCP/3 no",
  },
  {
    name: "policies of equal order go by name, then namespace, then kind",
    objects: [
      np(`{order: 1, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}]}`, "same"),
      gnp(`{order: 1, ${TO_X}, ingress: [{action: Allow}]}`, "same"),
      gnp(`{order: 1, ${TO_X}, ingress: [{action: Deny}]}`, "z-last"),
    ],
    // same//GlobalNetworkPolicy sorts before same/a/NetworkPolicy.
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "Deny drops, Allow accepts, and nothing after them is asked",
    objects: [
      gnp(
        `{${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}, {action: Allow}, {action: Deny}]}`,
      ),
    ],
    flows: "b/z -> a/x TCP/1 no\n b/z -> a/x TCP/2 yes",
  },
  {
    name: "Log goes on with the next rule",
    objects: [gnp(`{${TO_X}, ingress: [{action: Log}, {action: Allow}]}`)],
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "a policy that only logs denies by the end of its tier",
    objects: [gnp(`{${TO_X}, ingress: [{action: Log}]}`)],
    flows: "b/z -> a/x TCP/1 no",
  },
  {
    name: "Pass leaves the tier for the next one",
    objects: [
      tier("t", "{order: 1}"),
      gnp(`{tier: t, order: 1, ${TO_X}, ingress: [{action: Pass}]}`),
      gnp(`{tier: t, order: 2, ${TO_X}, ingress: [{action: Deny}]}`),
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}]}`),
    ],
    flows: "b/z -> a/x TCP/1 yes\n b/z -> a/x TCP/2 no",
  },
  {
    name: "Pass in the last tier goes to the profiles",
    objects: [gnp(`{${TO_X}, ingress: [{action: Pass}]}`)],
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "the end of a tier drops what no rule matched",
    objects: [gnp(`{${TO_X}, ingress: [{action: Allow, protocol: UDP}]}`)],
    flows: "b/z -> a/x TCP/1 no\n b/z -> a/x UDP/1 yes",
  },
  {
    name: "a tier whose default action is Pass goes on instead",
    objects: [
      tier("t", "{order: 1, defaultAction: Pass}"),
      gnp(`{tier: t, ${TO_X}, ingress: [{action: Deny, protocol: UDP}]}`),
    ],
    flows: "b/z -> a/x TCP/1 yes\n b/z -> a/x UDP/1 no",
  },
  {
    name: "a tier that has only drafts for the endpoint does not drop",
    objects: [
      tier("t", "{order: 1}"),
      named("StagedGlobalNetworkPolicy", `{tier: t, ${TO_X}, ingress: [{action: Deny}]}`, "draft"),
    ],
    flows: "b/z -> a/x TCP/1 yes",
  },
  {
    name: "a policy in a tier that does not exist comes last and denies what it does not allow",
    objects: [gnp(`{tier: nowhere, ${TO_X}, ingress: [{action: Allow, protocol: UDP}]}`)],
    flows: "b/z -> a/x UDP/1 yes\n b/z -> a/x TCP/1 no",
  },
  {
    name: "drafts of namespaced policies decide nothing either, whatever they would do",
    objects: [
      named("StagedNetworkPolicy", `{${TO_X}, ingress: [{action: Deny}]}`, "draft", "a"),
      named("StagedKubernetesNetworkPolicy", "{podSelector: {}, policyTypes: [Ingress, Egress]}", "draft", "a"),
      named("StagedGlobalNetworkPolicy", "{stagedAction: Delete}", "kept"),
      gnp(`{${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [2]}}, {action: Allow}]}`, "kept"),
    ],
    flows: "b/z -> a/x TCP/1 yes\n b/z -> a/x TCP/2 no\n b/z -> a/y TCP/1 yes",
  },
  {
    name: "Kubernetes' own policies stand in the tier default with order 1000",
    objects: [
      `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a},
        spec: {podSelector: {}, ingress: [{ports: [{port: 1}, {port: 2}]}]}}`,
      gnp(`{order: 999, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}]}`),
      gnp(
        `{order: 1001, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [2]}}, {action: Allow, protocol: TCP, destination: {ports: [3]}}]}`,
      ),
    ],
    // What Kubernetes' policies do not allow goes on to the next policy of the tier.
    flows: "b/z -> a/x TCP/1 no\n b/z -> a/x TCP/2 yes\n b/z -> a/x TCP/3 yes\n b/z -> a/x TCP/4 no",
  },
  {
    name: "egress of the source and ingress of the destination both decide",
    objects: [
      gnp(`{selector: app == 'z', types: [Egress], egress: [{action: Allow, protocol: TCP}]}`),
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}]}`),
    ],
    flows:
      "b/z -> a/x TCP/1 yes\n b/z -> a/x TCP/2 no\n b/z -> a/x UDP/1 no\n b/z -> a/y TCP/2 yes\n a/y -> a/x TCP/1 yes",
  },
  {
    name: "without types, a policy with only egress rules governs egress, with none ingress, with both both",
    objects: [
      gnp(`{selector: app == 'x', egress: [{action: Deny}]}`),
      gnp(`{selector: app == 'y'}`),
      gnp(`{selector: app == 'z', ingress: [{action: Deny}], egress: [{action: Deny}]}`),
    ],
    flows: `a/x -> 198.51.100.1 TCP/1 no
      198.51.100.1 -> a/x TCP/1 yes
      a/y -> 198.51.100.1 TCP/1 yes
      198.51.100.1 -> a/y TCP/1 no
      b/z -> 198.51.100.1 TCP/1 no
      198.51.100.1 -> b/z TCP/1 no`,
  },
]);

rows("profiles", [
  {
    name: "they are asked in order, the first decision counts, and none at all denies",
    objects: [
      named("Profile", "{ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}]}", "first"),
      named("Profile", "{ingress: [{action: Allow, protocol: TCP}]}", "second"),
      named(
        "WorkloadEndpoint",
        `{orchestrator: k8s, node: node1, ipNetworks: [10.0.9.1/32], interfaceName: cali9, profiles: [first, second]}`,
        "wep",
        "a",
      ),
    ],
    flows: "b/z -> 10.0.9.1 TCP/1 no\n b/z -> 10.0.9.1 TCP/2 yes\n b/z -> 10.0.9.1 UDP/2 no",
  },
  {
    name: "Kubernetes' policies mean pods: other workloads go their own way",
    objects: [
      `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}}}`,
      named(
        "WorkloadEndpoint",
        `{orchestrator: cni, node: node1, ipNetworks: [10.0.9.1/32], interfaceName: cali9, profiles: [kns.a]}`,
        "wep",
        "a",
      ),
    ],
    flows: "b/z -> 10.0.9.1 TCP/1 yes\n b/z -> a/x TCP/1 no",
  },
  {
    name: "one that does not exist denies",
    objects: ["pod lost/w 10.0.9.2"],
    flows: "b/z -> lost/w TCP/1 no\n lost/w -> b/z TCP/1 no",
  },
]);

rows("rules", [
  {
    name: "a selector in a namespaced policy means its own namespace, namespaceSelector others",
    objects: [
      np(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {selector: has(app)}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {namespaceSelector: env == 'dev'}, destination: {ports: [2]}},
        {action: Allow, protocol: TCP, source: {namespaceSelector: all()}, destination: {ports: [3]}}]}`),
    ],
    flows: `a/y -> a/x TCP/1 yes
      b/z -> a/x TCP/1 no
      b/z -> a/x TCP/2 yes
      a/y -> a/x TCP/2 no
      b/z -> a/x TCP/3 yes
      198.51.100.1 -> a/x TCP/3 no`,
  },
  {
    name: "a namespaced policy selects endpoints of its own namespace only",
    objects: [np("{selector: all(), ingress: [{action: Deny}]}")],
    flows: "b/z -> a/x TCP/1 no\n a/x -> b/z TCP/1 yes",
  },
  {
    name: "in a global policy a selector means everything that has labels, and global() what is in no namespace",
    objects: [
      named("GlobalNetworkSet", "{nets: [198.51.100.0/24]}", "gs").replace("name: gs", "name: gs, labels: {app: out}"),
      named("NetworkSet", "{nets: [203.0.113.0/24]}", "ns", "b").replace("name: ns", "name: ns, labels: {app: out}"),
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'out'}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {selector: app == 'out', namespaceSelector: global()}, destination: {ports: [2]}},
        {action: Allow, protocol: TCP, source: {selector: app == 'out', namespaceSelector: env == 'dev'}, destination: {ports: [3]}}]}`),
    ],
    flows: `198.51.100.1 -> a/x TCP/1 yes
      203.0.113.1 -> a/x TCP/1 yes
      198.51.100.1 -> a/x TCP/2 yes
      203.0.113.1 -> a/x TCP/2 no
      198.51.100.1 -> a/x TCP/3 no
      203.0.113.1 -> a/x TCP/3 yes`,
  },
  {
    name: "service accounts are matched by name and by label",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [reader]}}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {serviceAccounts: {selector: team == 'red'}}, destination: {ports: [2]}},
        {action: Allow, protocol: TCP, source: {serviceAccounts: {names: [writer], selector: team == 'red'}}, destination: {ports: [3]}}]}`),
    ],
    flows: `a/y -> a/x TCP/1 yes
      b/z -> a/x TCP/1 no
      a/y -> a/x TCP/2 yes
      b/z -> a/x TCP/2 no
      a/y -> a/x TCP/3 no`,
  },
  {
    name: "service accounts in a namespaced policy are those of its namespace, unless it says otherwise",
    objects: [
      "pod b/reader 10.0.1.9 sa=reader",
      np(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [reader]}}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {serviceAccounts: {names: [reader]}, namespaceSelector: all()}, destination: {ports: [2]}}]}`),
    ],
    flows: `a/y -> a/x TCP/1 yes
      b/reader -> a/x TCP/1 no
      b/reader -> a/x TCP/2 yes
      b/z -> a/x TCP/2 no`,
  },
  {
    name: "namespaces by name, and every form that a selector has",
    objects: [
      gnp(`{${TO_X}, ingress: [
        {action: Allow, protocol: TCP, source: {namespaceSelector: projectcalico.org/name == 'b'}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {selector: "app in {'y', 'q'} && !has(nothing)"}, destination: {ports: [2]}},
        {action: Allow, protocol: TCP, source: {selector: "app not in {'y'} && has(app)"}, destination: {ports: [3]}},
        {action: Allow, protocol: TCP, source: {selector: "app contains 'z' || app starts with 'zz'"}, destination: {ports: [4]}},
        {action: Allow, protocol: TCP, source: {selector: "!(app ends with 'y')"}, destination: {ports: [5]}},
        {action: Allow, protocol: TCP, source: {selector: "missing != 'v'"}, destination: {ports: [6]}}]}`),
    ],
    flows: `b/z -> a/x TCP/1 yes
      a/y -> a/x TCP/1 no
      a/y -> a/x TCP/2 yes
      b/z -> a/x TCP/2 no
      a/y -> a/x TCP/3 no
      b/z -> a/x TCP/3 yes
      b/z -> a/x TCP/4 yes
      a/y -> a/x TCP/4 no
      b/z -> a/x TCP/5 yes
      a/y -> a/x TCP/5 no
      b/z -> a/x TCP/6 yes
      198.51.100.1 -> a/x TCP/6 no`,
  },
  {
    name: "serviceAccountSelector and namespaceSelector narrow what a policy applies to",
    objects: [
      gnp("{selector: all(), serviceAccountSelector: team == 'red', ingress: [{action: Deny}]}"),
      gnp("{selector: all(), namespaceSelector: env == 'dev', ingress: [{action: Deny}]}"),
    ],
    flows: "a/x -> a/y TCP/1 no\n a/y -> a/x TCP/1 yes\n a/x -> b/z TCP/1 no",
  },
  {
    name: "labels that the system sets cannot be had by writing them",
    objects: [
      `pod b/false 10.0.1.9 sa=${"long-".repeat(13)}name projectcalico.org/serviceaccount=reader projectcalico.org/namespace=a`,
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {serviceAccounts: {names: [reader]}}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {selector: projectcalico.org/namespace == 'a'}, destination: {ports: [2]}}]}`),
    ],
    flows: `a/y -> a/x TCP/1 yes
      a/y -> a/x TCP/2 yes
      b/false -> a/x TCP/1 no
      b/false -> a/x TCP/2 no`,
  },
  {
    name: "networks of sets may overlap, and may be everything",
    objects: [
      ...[
        ["some", "[198.51.100.0/24, 198.51.100.0/28, 198.51.100.7]"],
        ["more", "[198.51.0.0/16]"],
        ["all", '[0.0.0.0/0, "::/0"]'],
      ].map(([name, nets]) =>
        named("GlobalNetworkSet", `{nets: ${nets}}`, `${name}`).replace("}, spec", `, labels: {nets: ${name}}}, spec`),
      ),
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {selector: nets == 'some'}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {selector: "nets in {'some', 'more'}"}, destination: {ports: [2]}},
        {action: Allow, protocol: TCP, source: {selector: nets == 'all'}, destination: {ports: [3]}}]}`),
    ],
    flows: `198.51.100.7 -> a/x TCP/1 yes
      198.51.100.77 -> a/x TCP/1 yes
      198.51.99.1 -> a/x TCP/1 no
      198.51.99.1 -> a/x TCP/2 yes
      203.0.113.1 -> a/x TCP/2 no
      203.0.113.1 -> a/x TCP/3 yes
      2001:db8:9::1 -> a/x TCP/3 yes`,
  },
  {
    name: "notSelector alone, in a global policy, also matches addresses that belong to nobody",
    objects: [gnp(`{${TO_X}, ingress: [{action: Allow, source: {notSelector: app == 'z'}}]}`)],
    flows: "a/y -> a/x TCP/1 yes\n b/z -> a/x TCP/1 no\n 198.51.100.1 -> a/x TCP/1 yes",
  },
  {
    name: "notSelector alone, in a namespaced policy, means others of the own namespace",
    objects: [np(`{${TO_X}, ingress: [{action: Allow, source: {notSelector: app == 'nobody'}}]}`)],
    flows: "a/y -> a/x TCP/1 yes\n b/z -> a/x TCP/1 no\n 198.51.100.1 -> a/x TCP/1 no",
  },
  {
    name: "notSelector narrows a selector beside it",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, source: {selector: has(app), notSelector: app == 'z'}}]}`),
      gnp(
        `{selector: app == 'y', ingress: [{action: Allow, source: {namespaceSelector: all(), notSelector: app == 'z'}}]}`,
      ),
    ],
    flows: `a/y -> a/x TCP/1 yes
      b/z -> a/x TCP/1 no
      198.51.100.1 -> a/x TCP/1 no
      a/x -> a/y TCP/1 yes
      b/z -> a/y TCP/1 no
      198.51.100.1 -> a/y TCP/1 no`,
  },
  {
    name: "more than fifteen ports, and protocols by name and number",
    objects: [
      gnp(`{${TO_X}, ingress: [
        {action: Allow, protocol: TCP, destination: {ports: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, "40:50", 60]}},
        {action: Allow, protocol: UDP, source: {ports: [7, "90:91"]}, destination: {notPorts: [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, "40:50"]}},
        {action: Allow, protocol: 47}, {action: Allow, protocol: 132}]}`),
    ],
    flows: `b/z -> a/x TCP/1 yes
      b/z -> a/x TCP/2 no
      b/z -> a/x TCP/31 yes
      b/z -> a/x TCP/33 yes
      b/z -> a/x TCP/50 yes
      b/z -> a/x TCP/51 no
      b/z -> a/x TCP/60 yes
      b/z -> a/x UDP/2/7 yes
      b/z -> a/x UDP/2/8 no
      b/z -> a/x UDP/33/91 no
      b/z -> a/x UDP/45/91 no
      b/z -> a/x UDP/51/91 yes
      b/z -> a/x 47 yes
      b/z -> a/x 48 no
      b/z -> a/x SCTP/9 yes
      b/z -> a/x ICMP/8 no`,
  },
  {
    name: "what a rule says of HTTP the kernel passes over: the rest of it counts",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}, http: {methods: [GET]}}]}`),
    ],
    flows: "b/z -> a/x TCP/80 yes\n b/z -> a/x TCP/81 no",
  },
  {
    name: "nets, notNets, ports, notPorts, protocol and notProtocol",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, source: {nets: [198.51.100.0/24], notNets: [198.51.100.7]}},
        {action: Allow, protocol: UDP, destination: {notPorts: [53, "60:70"]}},
        {action: Allow, notProtocol: TCP, source: {nets: [203.0.113.0/24]}}]}`),
    ],
    flows: `198.51.100.1 -> a/x TCP/1 yes
      198.51.100.7 -> a/x TCP/1 no
      a/y -> a/x UDP/1 yes
      a/y -> a/x UDP/53 no
      a/y -> a/x UDP/65 no
      203.0.113.1 -> a/x TCP/1 no
      203.0.113.1 -> a/x SCTP/1 yes`,
  },
  {
    name: "a net of one family matches no packet of the other; a negated one excludes none",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: TCP, source: {nets: [0.0.0.0/0]}, destination: {ports: [1]}},
        {action: Allow, protocol: TCP, source: {notNets: [0.0.0.0/0]}, destination: {ports: [2]}}]}`),
    ],
    flows: `198.51.100.1 -> a/x TCP/1 yes
      2001:db8:9::1 -> a/x TCP/1 no
      198.51.100.1 -> a/x TCP/2 no
      2001:db8:9::1 -> a/x TCP/2 yes`,
  },
  {
    name: "ipVersion matches one family",
    objects: [gnp(`{${TO_X}, ingress: [{action: Allow, ipVersion: 6}]}`)],
    flows: "198.51.100.1 -> a/x TCP/1 no\n 2001:db8:9::1 -> a/x TCP/1 yes",
  },
  {
    name: "ICMP type and code",
    objects: [
      gnp(`{${TO_X}, ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}, {action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}},
        {action: Allow, protocol: ICMPv6, notICMP: {type: 128}}]}`),
    ],
    flows: `b/z -> a/x ICMP/8/5 yes
      b/z -> a/x ICMP/3/4 yes
      b/z -> a/x ICMP/3/1 no
      b/z -> a/x ICMP/0 no
      2001:db8:9::1 -> a/x ICMPv6/129 yes
      2001:db8:9::1 -> a/x ICMPv6/128 no`,
  },
  {
    name: "a named port is what the endpoint with the address calls so, and of the rule's protocol",
    objects: [
      gnp(`{selector: app == 'x', egress: [{action: Allow, protocol: TCP, destination: {ports: [http, "90:91"]}}]}`),
    ],
    flows: `a/x -> a/y TCP/8080 yes
      a/x -> b/z TCP/8080 no
      a/x -> a/y UDP/8080 no
      a/x -> b/z TCP/91 yes`,
  },
  {
    name: "a service in a destination is its addresses with its ports, in a source its addresses",
    objects: [
      `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
        metadata: {name: s-1, namespace: a, labels: {kubernetes.io/service-name: s}},
        endpoints: [{addresses: [10.0.0.2]}], ports: [{port: 8080}]}`,
      np("{selector: app == 'x', types: [Egress], egress: [{action: Allow, destination: {services: {name: s}}}]}"),
      gnp(`{selector: app == 'z', ingress: [{action: Allow, source: {services: {name: s, namespace: a}}}]}`),
    ],
    flows: `a/x -> a/y TCP/8080 yes
      a/x -> a/y TCP/80 no
      a/x -> a/y UDP/8080 no
      a/y -> b/z TCP/5 yes
      a/x -> b/z TCP/5 no`,
  },
  {
    name: "an endpoint's own label comes before the same label of a profile",
    objects: [
      "pod b/own 10.0.1.2 pcns.env=prod",
      np(`{${TO_X}, ingress: [{action: Allow, source: {namespaceSelector: env == 'prod'}}]}`),
    ],
    flows: "b/own -> a/x TCP/1 yes\n b/z -> a/x TCP/1 no",
  },
]);

rows("encapsulated packets of a workload", [
  { name: "are dropped", objects: [], flows: "a/x -> a/y UDP/4789 no\n a/x -> a/y 4 no\n a/x -> a/y UDP/4790 yes" },
  {
    name: "pass where the settings allow them",
    objects: [],
    settings: { settings: { allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: true } },
    flows: "a/x -> a/y UDP/4789 yes\n a/x -> a/y 4 yes",
  },
]);

export const EVALUATION: readonly EvaluationTable[] = tables;

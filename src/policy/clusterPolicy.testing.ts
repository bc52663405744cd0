/** What ClusterNetworkPolicy promises, and what that means for packets in the cluster of the Kubernetes sentences. */
import { type FlowRow, policy } from "./kubernetesPolicy.testing.ts";

let serial = 0;
const cluster = (spec: string): string => `
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: { name: c${(serial += 1)} }
spec: ${spec}
`;
const ALL = "subject: { namespaces: {} }";
const DENY_ALL = policy("deny", "{ podSelector: {}, policyTypes: [Ingress, Egress] }");
const ALLOW_ALL = policy("allow", "{ podSelector: {}, policyTypes: [Ingress], ingress: [{}] }");

export const CLUSTER_POLICIES: readonly FlowRow[] = [
  {
    name: "Accept in the Admin tier comes before all NetworkPolicies",
    objects: [
      DENY_ALL,
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Accept, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 yes\n 198.51.100.1 -> default/db TCP/80 no",
  },
  {
    name: "Deny in the Admin tier cannot be overruled",
    objects: [
      ALLOW_ALL,
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 no\n 198.51.100.1 -> default/db TCP/80 yes",
  },
  {
    name: "Pass leaves the decision to the NetworkPolicies, before a lower priority of the same tier",
    objects: [
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Pass, from: [{ namespaces: {} }] }] }`),
      cluster(`{ tier: Admin, priority: 20, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 yes",
  },
  {
    name: "the Baseline tier counts where no NetworkPolicy selects the pod",
    objects: [
      policy("p", "{ podSelector: { matchLabels: { role: db } }, ingress: [{}] }"),
      cluster(`{ tier: Baseline, priority: 1, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 yes\n mine/any -> default/plain TCP/80 no",
  },
  {
    name: "what its rules do not match passes",
    objects: [
      cluster(`{ tier: Admin, priority: 1, ${ALL}, egress: [{ action: Deny, to: [{ networks: [198.51.100.0/24] }],
        protocols: [{ tcp: { destinationPort: { range: { start: 80, end: 90 } } } }] }] }`),
    ],
    flows: `default/db -> 198.51.100.1 TCP/85 no
      default/db -> 198.51.100.1 TCP/91 yes
      default/db -> 198.51.100.1 UDP/85 yes
      default/db -> 203.0.113.1 TCP/85 yes`,
  },
  {
    name: "subject and peers select pods within namespaces",
    objects: [
      cluster(`{ tier: Admin, priority: 1,
        subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { role: db } } } },
        ingress: [{ action: Deny, from: [{ pods: { namespaceSelector: { matchLabels: { user: alice } },
          podSelector: { matchLabels: { role: client } } } }] }] }`),
    ],
    flows: `alice/client -> default/db TCP/80 no
      alice/other -> default/db TCP/80 yes
      alice/client -> default/plain TCP/80 yes`,
  },
  {
    name: "the lower priority comes first, whatever the names",
    objects: [
      cluster(`{ tier: Admin, priority: 11, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] }`),
      cluster(`{ tier: Admin, priority: 9, ${ALL}, ingress: [{ action: Accept, from: [{ namespaces: {} }],
        protocols: [{ tcp: {} }] }] }`),
      cluster(`{ tier: Admin, priority: 0, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }],
        protocols: [{ tcp: { destinationPort: { number: 81 } } }] }] }`),
    ],
    flows: `mine/any -> default/db TCP/80 yes
      mine/any -> default/db TCP/81 no
      mine/any -> default/db UDP/80 no`,
  },
  {
    name: "of a policy's rules the first that matches counts",
    objects: [
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [
        { action: Accept, from: [{ namespaces: { matchLabels: { user: alice } } }] },
        { action: Deny, from: [{ namespaces: {} }] },
        { action: Accept, from: [{ namespaces: { matchLabels: { project: myproject } } }] }] }`),
    ],
    flows: "alice/client -> default/db TCP/80 yes\n mine/any -> default/db TCP/80 no",
  },
  {
    name: "egress goes to namespaces, to pods, and to networks of either family",
    objects: [
      "pod default/six 10.1.0.6 2001:db8::6",
      cluster(`{ tier: Admin, priority: 1, ${ALL}, egress: [
        { action: Accept, to: [{ namespaces: { matchLabels: { project: myproject } } },
          { pods: { namespaceSelector: { matchLabels: { user: alice } }, podSelector: { matchLabels: { role: client } } } },
          { networks: [198.51.100.0/24, 203.0.113.7/32] }, { networks: ["2001:db8:9::/64"] }] },
        { action: Deny, to: [{ networks: [0.0.0.0/0, "::/0"] }] }] }`),
    ],
    flows: `default/six -> mine/any TCP/80 yes
      default/six -> alice/client TCP/80 yes
      default/six -> alice/other TCP/80 no
      default/six -> 198.51.100.1 TCP/80 yes
      default/six -> 203.0.113.7 TCP/80 yes
      default/six -> 203.0.113.8 TCP/80 no
      default/six -> 2001:db8:9::1 TCP/80 yes
      default/six -> 2001:db8:8::1 TCP/80 no`,
  },
  {
    name: "what Admin accepts at the destination, the source's own policy may deny",
    objects: [
      policy("out", "{ podSelector: {}, policyTypes: [Egress] }", "mine"),
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Accept, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 no\n other/client -> default/db TCP/80 yes",
  },
  {
    name: "a NetworkPolicy that selects the pod comes before all of the Baseline tier, also where it denies",
    objects: [
      policy("p", "{ podSelector: { matchLabels: { role: db } }, ingress: [{ ports: [{ port: 81 }] }] }"),
      cluster(`{ tier: Baseline, priority: 1, ${ALL}, ingress: [{ action: Accept, from: [{ namespaces: {} }],
        protocols: [{ tcp: { destinationPort: { number: 80 } } }] }, { action: Deny, from: [{ namespaces: {} }] }] }`),
    ],
    flows: `mine/any -> default/db TCP/81 yes
      mine/any -> default/db TCP/80 no
      mine/any -> default/plain TCP/80 yes
      mine/any -> default/plain TCP/81 no`,
  },
  {
    name: "Pass in the Baseline tier leaves what follows in it, and the pod is as without policy",
    objects: [
      cluster(
        `{ tier: Baseline, priority: 1, ${ALL}, ingress: [{ action: Pass, from: [{ namespaces: { matchLabels: { user: alice } } }] }] }`,
      ),
      cluster(`{ tier: Baseline, priority: 2, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "alice/client -> default/db TCP/80 yes\n mine/any -> default/db TCP/80 no",
  },
  {
    name: "Calico's tiers come before and after, by their order: that of Admin is 1000",
    objects: [
      "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: early}, spec: {order: 999, defaultAction: Pass}}",
      "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: late}, spec: {order: 1001, defaultAction: Pass}}",
      ...[
        ["early", 80],
        ["late", 81],
      ].map(
        ([tier, port]) => `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: ${tier}},
          spec: {tier: ${tier}, selector: role == 'db', ingress: [{action: Deny, protocol: TCP, destination: {ports: [${port}]}}]}}`,
      ),
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Accept, from: [{ namespaces: {} }] }] }`),
    ],
    flows: "mine/any -> default/db TCP/80 no\n mine/any -> default/db TCP/81 yes",
  },
  {
    name: "protocols: a transport whole, by port and by range, and SCTP",
    objects: [
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }], protocols: [
        { udp: {} }, { tcp: { destinationPort: { range: { start: 80, end: 82 } } } }, { sctp: { destinationPort: { number: 7 } } }] }] }`),
    ],
    flows: `mine/any -> default/db UDP/1 no
      mine/any -> default/db TCP/79 yes
      mine/any -> default/db TCP/80 no
      mine/any -> default/db TCP/82 no
      mine/any -> default/db TCP/83 yes
      mine/any -> default/db SCTP/7 no
      mine/any -> default/db SCTP/8 yes
      mine/any -> default/db ICMP/8 yes`,
  },
  {
    name: "a named port is the pod's own, whatever its protocol",
    objects: [
      "pod default/dns 10.1.0.8 dns:UDP:5353",
      cluster(`{ tier: Admin, priority: 1, ${ALL}, ingress: [{ action: Deny, from: [{ namespaces: {} }],
        protocols: [{ destinationNamedPort: dns }] }] }`),
    ],
    flows:
      "mine/any -> default/dns UDP/5353 no\n mine/any -> default/dns TCP/5353 yes\n mine/any -> default/db UDP/5353 yes",
  },
];

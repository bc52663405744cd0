/** The sentences of the Kubernetes documentation on network policies, each with what it means for packets. */

export interface FlowRow {
  readonly name: string;
  readonly objects?: readonly string[];
  /** As `expectFlows` reads them. */
  readonly flows: string;
}

export const KUBERNETES_PLACES = [
  "namespace default",
  "namespace other",
  "namespace mine project=myproject",
  "namespace alice user=alice",
  "pod default/db 10.1.0.1 role=db",
  "pod default/frontend 10.1.0.2 role=frontend @node2",
  "pod default/plain 10.1.0.3 @node3",
  "pod mine/any 10.1.1.1",
  "pod other/frontend 10.1.2.1 role=frontend",
  "pod alice/client 10.1.3.1 role=client",
  "pod alice/other 10.1.3.2 role=other",
  "pod other/client 10.1.2.2 role=client",
  "pod default/client 10.1.0.4 role=client",
];

export const policy = (name: string, spec: string, namespace = "default"): string => `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: ${name}, namespace: ${namespace} }
spec: ${spec}
`;

const EXAMPLE = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: test-network-policy, namespace: default }
spec:
  podSelector: { matchLabels: { role: db } }
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - ipBlock: { cidr: 172.17.0.0/16, except: [172.17.1.0/24] }
        - namespaceSelector: { matchLabels: { project: myproject } }
        - podSelector: { matchLabels: { role: frontend } }
      ports: [{ protocol: TCP, port: 6379 }]
  egress:
    - to: [{ ipBlock: { cidr: 10.0.0.0/24 } }]
      ports: [{ protocol: TCP, port: 5978 }]
`;

export const SENTENCES: readonly FlowRow[] = [
  {
    name: "By default, a pod is non-isolated for egress; all outbound connections are allowed",
    flows: "default/db -> 198.51.100.1 TCP/443 yes\n default/db -> mine/any UDP/53 yes",
  },
  {
    name: "By default, a pod is non-isolated for ingress; all inbound connections are allowed",
    flows: "198.51.100.1 -> default/db TCP/5432 yes\n mine/any -> default/db ICMP/8 yes",
  },
  {
    name: "A pod is isolated for egress if any policy selects it and has Egress in its policyTypes",
    objects: [policy("p", "{ podSelector: { matchLabels: { role: db } }, policyTypes: [Egress] }")],
    flows: `default/db -> mine/any TCP/80 no
      default/plain -> mine/any TCP/80 yes
      mine/any -> default/db TCP/80 yes`,
  },
  {
    name: "When a pod is isolated for egress, only what the egress list of some policy allows is allowed",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Egress], egress: [{ to: [{ podSelector: {} }] }] }")],
    flows: "default/db -> default/plain TCP/80 yes\n default/db -> mine/any TCP/80 no",
  },
  {
    name: "A pod is isolated for ingress if any policy selects it and has Ingress in its policyTypes",
    objects: [policy("p", "{ podSelector: { matchLabels: { role: db } }, policyTypes: [Ingress] }")],
    flows: `mine/any -> default/db TCP/80 no
      mine/any -> default/plain TCP/80 yes
      default/db -> mine/any TCP/80 yes`,
  },
  {
    name: "Connections from the pod's node are always allowed",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Ingress] }")],
    flows: "@node1 -> default/db TCP/80 yes\n @node2 -> default/db TCP/80 no",
  },
  {
    name: "A pod cannot block access to itself",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Ingress, Egress] }")],
    flows: "default/db -> default/db TCP/80 yes",
  },
  {
    name: "Network policies do not conflict; they are additive",
    objects: [
      policy("a", "{ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] }"),
      policy("b", "{ podSelector: {}, ingress: [{ ports: [{ port: 443 }] }] }"),
      policy("c", "{ podSelector: {} }"),
    ],
    flows: `mine/any -> default/db TCP/80 yes
      mine/any -> default/db TCP/443 yes
      mine/any -> default/db TCP/81 no`,
  },
  {
    name: "Both the egress policy of the source and the ingress policy of the destination need to allow it",
    objects: [
      policy("in", "{ podSelector: { matchLabels: { role: db } }, ingress: [{ from: [{ podSelector: {} }] }] }"),
      policy("out", "{ podSelector: { matchLabels: { role: frontend } }, policyTypes: [Egress] }"),
    ],
    flows: `default/plain -> default/db TCP/80 yes
      default/frontend -> default/db TCP/80 no
      mine/any -> default/db TCP/80 no`,
  },
  {
    name: "An empty podSelector selects all pods in the namespace",
    objects: [policy("p", "{ podSelector: {} }")],
    flows: `mine/any -> default/db TCP/80 no
      mine/any -> default/plain TCP/80 no
      default/db -> other/frontend TCP/80 yes`,
  },
  {
    name: "Without policyTypes, Ingress is always set",
    objects: [policy("p", "{ podSelector: {} }")],
    flows: "mine/any -> default/db TCP/80 no\n default/db -> mine/any TCP/80 yes",
  },
  {
    name: "policyTypes decides: a list of rules of a direction that it leaves out counts for nothing",
    objects: [
      policy("p", "{ podSelector: {}, policyTypes: [Egress], ingress: [{ ports: [{ port: 80 }] }], egress: [{}] }"),
    ],
    flows: "mine/any -> default/db TCP/81 yes\n default/db -> mine/any TCP/81 yes",
  },
  {
    name: "Isolation for egress and for ingress are declared independently, by one policy or by two",
    objects: [
      policy("in", "{ podSelector: {}, policyTypes: [Ingress], ingress: [{ ports: [{ port: 80 }] }] }"),
      policy("out", "{ podSelector: {}, policyTypes: [Egress], egress: [{ ports: [{ port: 443 }] }] }"),
    ],
    flows: `mine/any -> default/db TCP/80 yes
      mine/any -> default/db TCP/443 no
      default/db -> mine/any TCP/443 yes
      default/db -> mine/any TCP/80 no
      default/plain -> default/db TCP/80 no
      default/plain -> default/db TCP/443 no`,
  },
  {
    name: "A policy may have several rules; each allows what it matches",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, ingress: [{ ports: [{ port: 53, protocol: UDP }, { port: 53 }, { port: 54 }] },
           { from: [{ podSelector: {} }], ports: [{ port: 80 }] }] }`,
      ),
    ],
    flows: `mine/any -> default/db UDP/53 yes
      mine/any -> default/db TCP/53 yes
      mine/any -> default/db TCP/54 yes
      mine/any -> default/db UDP/54 no
      mine/any -> default/db TCP/80 no
      default/plain -> default/db TCP/80 yes`,
  },
  {
    name: "A rule without from matches all sources, as one with an empty list does",
    objects: [
      policy("p", "{ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }, { from: [], ports: [{ port: 81 }] }] }"),
    ],
    flows: `198.51.100.1 -> default/db TCP/80 yes
      198.51.100.1 -> default/db TCP/81 yes
      198.51.100.1 -> default/db TCP/82 no
      mine/any -> default/db TCP/81 yes`,
  },
  {
    name: "A rule without ports matches all traffic of its peers, whatever the protocol",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }], ports: [] }] }")],
    flows: `default/plain -> default/db TCP/1 yes
      default/plain -> default/db UDP/1 yes
      default/plain -> default/db SCTP/1 yes
      default/plain -> default/db ICMP/8 yes
      default/plain -> default/db 47 yes
      mine/any -> default/db ICMP/8 no`,
  },
  {
    name: "Without policyTypes, Egress is set if the policy has any egress rules",
    objects: [policy("p", "{ podSelector: {}, egress: [{ ports: [{ port: 80 }] }] }")],
    flows: `mine/any -> default/db TCP/80 no
      default/db -> mine/any TCP/80 yes
      default/db -> mine/any TCP/81 no`,
  },
  {
    name: "Each rule allows traffic which matches both the from and ports sections",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 80 }] }] }")],
    flows: `default/plain -> default/db TCP/80 yes
      default/plain -> default/db TCP/81 no
      mine/any -> default/db TCP/80 no`,
  },
  {
    name: "The example isolates role=db pods in the default namespace for both directions",
    objects: [EXAMPLE],
    flows: `mine/any -> default/db TCP/80 no
      default/db -> mine/any TCP/80 no
      mine/any -> default/plain TCP/80 yes`,
  },
  {
    name: "The example allows TCP 6379 from frontends, from myproject, and from 172.17.0.0/16 except 172.17.1.0/24",
    objects: [EXAMPLE],
    flows: `default/frontend -> default/db TCP/6379 yes
      default/frontend -> default/db UDP/6379 no
      mine/any -> default/db TCP/6379 yes
      172.17.0.1 -> default/db TCP/6379 yes
      172.17.2.1 -> default/db TCP/6379 yes
      172.17.255.255 -> default/db TCP/6379 yes
      172.17.1.1 -> default/db TCP/6379 no
      172.18.0.1 -> default/db TCP/6379 no
      other/frontend -> default/db TCP/6379 no
      default/plain -> default/db TCP/6379 no`,
  },
  {
    name: "The example allows connections to 10.0.0.0/24 on TCP 5978",
    objects: [EXAMPLE],
    flows: `default/db -> 10.0.0.77 TCP/5978 yes
      default/db -> 10.0.1.77 TCP/5978 no
      default/db -> 10.0.0.77 TCP/5979 no`,
  },
  {
    name: "podSelector selects particular pods in the same namespace as the policy",
    objects: [
      policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { role: client } } }] }] }"),
    ],
    flows: "default/client -> default/db TCP/80 yes\n other/client -> default/db TCP/80 no",
  },
  {
    name: "namespaceSelector selects particular namespaces for which all pods should be allowed",
    objects: [
      policy(
        "p",
        "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { user: alice } } }] }] }",
      ),
    ],
    flows: `alice/client -> default/db TCP/80 yes
      alice/other -> default/db TCP/80 yes
      other/client -> default/db TCP/80 no`,
  },
  {
    name: "An empty namespaceSelector selects all namespaces, but nothing outside them",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: {} }] }] }")],
    flows: "other/client -> default/db TCP/80 yes\n 198.51.100.1 -> default/db TCP/80 no",
  },
  {
    name: "A single entry with both selects particular pods within particular namespaces",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, ingress: [{ from: [
          { namespaceSelector: { matchLabels: { user: alice } }, podSelector: { matchLabels: { role: client } } }] }] }`,
      ),
    ],
    flows: `alice/client -> default/db TCP/80 yes
      alice/other -> default/db TCP/80 no
      default/client -> default/db TCP/80 no`,
  },
  {
    name: "Two entries allow pods of the local namespace with the label, or any pod of the other namespaces",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, ingress: [{ from: [
          { namespaceSelector: { matchLabels: { user: alice } } }, { podSelector: { matchLabels: { role: client } } }] }] }`,
      ),
    ],
    flows: `alice/other -> default/db TCP/80 yes
      default/client -> default/db TCP/80 yes
      other/client -> default/db TCP/80 no`,
  },
  {
    name: "ipBlock selects particular IP CIDR ranges to allow as ingress sources or egress destinations",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, policyTypes: [Ingress, Egress],
           ingress: [{ from: [{ ipBlock: { cidr: 198.51.100.0/24 } }] }], egress: [{ to: [{ ipBlock: { cidr: 203.0.113.0/24 } }] }] }`,
      ),
    ],
    flows: `198.51.100.9 -> default/db TCP/80 yes
      203.0.113.9 -> default/db TCP/80 no
      default/db -> 203.0.113.9 TCP/80 yes
      default/db -> 198.51.100.9 TCP/80 no`,
  },
  {
    name: "ipBlock means addresses, whoever has them: also pods",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.1.1.0/24 } }] }] }")],
    flows: "mine/any -> default/db TCP/80 yes\n other/client -> default/db TCP/80 no",
  },
  {
    name: "ipBlock of IPv6, with except, says nothing of IPv4",
    objects: [
      "pod default/six 10.1.0.6 2001:db8::6",
      policy(
        "p",
        `{ podSelector: {}, ingress: [{ from: [
          { ipBlock: { cidr: "2001:db8:9::/64", except: ["2001:db8:9::8/125"] } }] }] }`,
      ),
    ],
    flows: `2001:db8:9::1 -> default/six TCP/80 yes
      2001:db8:9::9 -> default/six TCP/80 no
      2001:db8:8::1 -> default/six TCP/80 no
      198.51.100.1 -> default/six TCP/80 no`,
  },
  {
    name: "Default deny all ingress: pods that no other policy selects are still isolated, egress is as it was",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Ingress] }")],
    flows: "mine/any -> default/plain TCP/80 no\n default/plain -> mine/any TCP/80 yes",
  },
  {
    name: "Allow all ingress: no additional policy can cause any incoming connection to be denied",
    objects: [
      policy("p", "{ podSelector: {}, ingress: [{}], policyTypes: [Ingress] }"),
      policy("q", "{ podSelector: {}, policyTypes: [Ingress] }"),
    ],
    flows: "mine/any -> default/db TCP/80 yes\n 198.51.100.1 -> default/db 47 yes",
  },
  {
    name: "Default deny all egress: ingress is as it was",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Egress] }")],
    flows: "default/plain -> mine/any TCP/80 no\n mine/any -> default/plain TCP/80 yes",
  },
  {
    name: "Allow all egress: no additional policy can cause any outgoing connection to be denied",
    objects: [
      policy("p", "{ podSelector: {}, egress: [{}], policyTypes: [Egress] }"),
      policy("q", "{ podSelector: {}, policyTypes: [Egress] }"),
    ],
    flows: "default/plain -> mine/any TCP/80 yes",
  },
  {
    name: "Default deny all ingress and all egress",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Ingress, Egress] }")],
    flows: "default/plain -> mine/any TCP/80 no\n mine/any -> default/plain TCP/80 no",
  },
  {
    name: "A deny all policy denies TCP, UDP and SCTP; here also ICMP and every other protocol",
    objects: [policy("p", "{ podSelector: {}, policyTypes: [Ingress, Egress] }")],
    flows: `mine/any -> default/db TCP/1 no
      mine/any -> default/db UDP/1 no
      mine/any -> default/db SCTP/1 no
      mine/any -> default/db ICMP/8 no
      mine/any -> default/db 47 no
      default/db -> mine/any ICMP/8 no
      default/db -> mine/any 47 no`,
  },
  {
    name: "You can set the protocol field of a NetworkPolicy to SCTP",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ ports: [{ protocol: SCTP, port: 7777 }] }] }")],
    flows: "mine/any -> default/db SCTP/7777 yes\n mine/any -> default/db TCP/7777 no",
  },
  {
    name: "You can target a range of ports instead of a single port, with endPort",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ ports: [{ port: 32000, endPort: 32768 }] }] }")],
    flows: `mine/any -> default/db TCP/31999 no
      mine/any -> default/db TCP/32000 yes
      mine/any -> default/db TCP/32768 yes
      mine/any -> default/db TCP/32769 no`,
  },
  {
    name: "A port without a protocol is a TCP port",
    objects: [policy("p", "{ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] }")],
    flows: "mine/any -> default/db TCP/80 yes\n mine/any -> default/db UDP/80 no",
  },
  {
    name: "A protocol without a port means all its ports",
    objects: [
      policy("p", "{ podSelector: {}, ingress: [{ ports: [{ protocol: UDP }, { protocol: UDP, port: 1 }] }] }"),
    ],
    flows: "mine/any -> default/db UDP/99 yes\n mine/any -> default/db TCP/99 no",
  },
  {
    name: "A port can be the name of a container's port",
    objects: [
      "pod default/named 10.1.0.9 web:TCP:8080",
      policy("p", "{ podSelector: {}, ingress: [{ ports: [{ port: web }] }] }"),
    ],
    flows: `mine/any -> default/named TCP/8080 yes
      mine/any -> default/named UDP/8080 no
      mine/any -> default/named TCP/80 no
      mine/any -> default/db TCP/8080 no`,
  },
  {
    name: "A port's name means each pod's own number, also of the destination of an egress rule",
    objects: [
      "pod default/named 10.1.0.9 web:TCP:8080",
      "pod default/other-named 10.1.0.10 web:TCP:9090",
      policy("in", "{ podSelector: {}, ingress: [{ ports: [{ port: web }] }] }"),
      policy("out", "{ podSelector: {}, policyTypes: [Egress], egress: [{ ports: [{ port: web }] }] }"),
    ],
    flows: `mine/any -> default/named TCP/8080 yes
      mine/any -> default/other-named TCP/9090 yes
      mine/any -> default/other-named TCP/8080 no
      default/db -> default/other-named TCP/9090 yes
      default/db -> default/named TCP/9090 no
      default/db -> mine/any TCP/8080 no`,
  },
  {
    name: "A namespace can be targeted by its name, which it has as a label by itself",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: mine } } }] }] }`,
      ),
    ],
    flows:
      "mine/any -> default/db TCP/80 yes\n other/client -> default/db TCP/80 no\n default/db -> default/plain TCP/80 no",
  },
  {
    name: "Pods on the host's network are their node: no policy selects them, and no peer means them",
    objects: [
      `{apiVersion: v1, kind: Pod, metadata: {name: on-host, namespace: default, labels: {role: frontend}},
        spec: {nodeName: node2, hostNetwork: true, containers: [{name: main}]}, status: {podIPs: [{ip: 192.0.2.12}]}}`,
      policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { role: frontend } } }] }] }"),
    ],
    flows: `@node2 -> default/db TCP/80 no
      default/frontend -> default/db TCP/80 yes
      mine/any -> @node2 TCP/80 yes`,
  },
  {
    name: "matchExpressions target several namespaces",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, policyTypes: [Egress], egress: [{ to: [{ namespaceSelector: { matchExpressions: [
           { key: kubernetes.io/metadata.name, operator: In, values: [mine, alice] }] } }] }] }`,
      ),
    ],
    flows: `default/db -> mine/any TCP/80 yes
      default/db -> alice/client TCP/80 yes
      default/db -> other/client TCP/80 no`,
  },
  {
    name: "NotIn and DoesNotExist hold where the label is absent, Exists where it has any value",
    objects: [
      policy(
        "p",
        `{ podSelector: {}, ingress: [
          { from: [{ podSelector: { matchExpressions: [{ key: role, operator: NotIn, values: [frontend, client] }] } }], ports: [{ port: 1 }] },
          { from: [{ podSelector: { matchExpressions: [{ key: role, operator: DoesNotExist }] } }], ports: [{ port: 2 }] },
          { from: [{ podSelector: { matchExpressions: [{ key: role, operator: Exists }] } }], ports: [{ port: 3 }] }] }`,
      ),
    ],
    flows: `default/plain -> default/db TCP/1 yes
      default/frontend -> default/db TCP/1 no
      default/plain -> default/db TCP/2 yes
      default/frontend -> default/db TCP/2 no
      default/plain -> default/db TCP/3 no
      default/frontend -> default/db TCP/3 yes`,
  },
];

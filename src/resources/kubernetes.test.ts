import { testRefusals } from "./malformed.testing.ts";

const pod = (fields: object, container: object = {}) => ({
  spec: { containers: [{ name: "c", ...container }], ...fields },
});

testRefusals([
  [
    "Pod",
    { spec: { containers: [{ name: "a" }], containrs: [] } },
    'spec.containrs: unknown field, did you mean "containers"?',
  ],
  ["Pod", { spec: { containers: [] } }, "spec.containers: must have at least one item"],
  ["Pod", { spec: {} }, "spec.containers: is required (a list)"],
  ["Pod", pod({}, { prots: [] }), 'spec.containers[0].prots: unknown field, did you mean "ports"?'],
  [
    "Pod",
    pod({}, { ports: [{ containerPort: 0, name: "a--b", protocol: "tcp" }] }),
    'spec.containers[0].ports[0].name: "a--b" is not a port name: at most 15 lower-case letters, digits and single "-", with at least one letter',
    "spec.containers[0].ports[0].containerPort: 0 is not 1 to 65535",
    'spec.containers[0].ports[0].protocol: "tcp" is not TCP, UDP or SCTP, did you mean "TCP"?',
  ],
  [
    "Pod",
    pod({ initContainers: [{ name: "c" }] }),
    'spec.containers[0].name: "c" is the name of initContainers[0] too',
  ],
  ["Pod", pod({ hostNetwork: "true" }), 'spec.hostNetwork: expected true or false, not the text "true"'],
  [
    "Pod",
    { ...pod({}), status: { podIPs: [{ ip: "10.0.0.300" }] } },
    'status.podIPs[0].ip: "10.0.0.300" is not an IP address: "300" is not a number from 0 to 255',
  ],
  [
    "Node",
    { spec: { taints: [{ key: "a", effect: "No" }] } },
    'spec.taints[0].effect: "No" is not NoSchedule, PreferNoSchedule or NoExecute',
  ],
  [
    "Namespace",
    { metadata: { name: "a.b" } },
    'metadata.name: "a.b" is not a name: lower-case letters, digits and "-" only, beginning and ending with a letter or digit',
  ],
  ["ServiceAccount", { spec: {} }, "spec: unknown field"],
  [
    "Service",
    { metadata: { name: "1a" }, spec: {} },
    'metadata.name: "1a" is not a service name: at most 63 lower-case letters, digits and "-", beginning with a letter',
  ],
  [
    "Service",
    { spec: { clusterIP: "none", ports: [{ targetPort: 80 }] } },
    "spec.ports[0].port: is required (a whole number, 1 to 65535)",
    'spec.clusterIP: "none" is not an IP address: expected four octets like 192.0.2.1',
  ],
  [
    "EndpointSlice",
    { addressType: "ipv4", endpoints: [{}] },
    'addressType: "ipv4" is not IPv4, IPv6 or FQDN, did you mean "IPv4"?',
    "endpoints[0].addresses: is required (a list)",
  ],
  [
    "NetworkPolicy",
    {
      spec: {
        ingress: [
          {
            from: [
              {},
              { ipBlock: { cidr: "10.0.0.0/8", except: ["11.0.0.0/16"] } },
              { podSelector: {}, ipBlock: { cidr: "10.0.0.0/8" } },
            ],
          },
        ],
      },
    },
    "spec.ingress[0].from[0]: expected podSelector, namespaceSelector or ipBlock",
    'spec.ingress[0].from[1].ipBlock.except[0]: "11.0.0.0/16" is not inside 10.0.0.0/8',
    "spec.ingress[0].from[2].ipBlock: must be absent beside podSelector or namespaceSelector",
  ],
  [
    "NetworkPolicy",
    { spec: { egress: [{ ports: [{ port: "http", endPort: 90 }, { port: 90, endPort: 80 }, { port: "80" }] }] } },
    "spec.egress[0].ports[0].endPort: needs a port that is a number",
    "spec.egress[0].ports[1].endPort: 80 is less than port 90",
    'spec.egress[0].ports[2].port: expected a whole number, 1 to 65535 or a port name, not the text "80"',
  ],
  [
    "NetworkPolicy",
    {
      spec: {
        podSelector: {
          matchExpressions: [
            { key: "a", operator: "In" },
            { key: "b", operator: "Exists", values: ["c"] },
            { key: "", operator: "in" },
          ],
        },
      },
    },
    "spec.podSelector.matchExpressions[0].values: is required with operator In",
    "spec.podSelector.matchExpressions[1].values: must be absent with operator Exists",
    'spec.podSelector.matchExpressions[2].key: "" is not a key: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit',
    'spec.podSelector.matchExpressions[2].operator: "in" is not In, NotIn, Exists or DoesNotExist, did you mean "In"?',
  ],
  ["NetworkPolicy", { spec: { selector: "all()" } }, "spec.selector: unknown field"],
  [
    "ClusterNetworkPolicy",
    { spec: { tier: "Admin", priority: 1001, subject: {} } },
    "spec.priority: 1001 is not 0 to 1000",
    "spec.subject: expected exactly one of namespaces, pods",
  ],
  [
    "ClusterNetworkPolicy",
    {
      spec: {
        tier: "Admin",
        priority: 1,
        subject: { namespaces: {} },
        ingress: [
          { action: "Accept", from: [], protocols: [{ tcp: { destinationPort: { range: { start: 2, end: 1 } } } }] },
        ],
      },
    },
    "spec.ingress[0].from: must have at least one item",
    "spec.ingress[0].protocols[0].tcp.destinationPort.range.end: 1 is not greater than start 2",
  ],
  [
    "WorkloadEndpoint",
    {
      spec: {
        orchestrator: "k8s",
        node: "a",
        interfaceName: "cali0123456789abc",
        ipNetworks: ["10.0.0.0/24"],
        mac: "x",
      },
    },
    'spec.ipNetworks[0]: "10.0.0.0/24" is more than one address',
    'spec.interfaceName: "cali0123456789abc" is not an interface name: 1 to 15 letters, digits, "_", "." and "-"',
    'spec.mac: "x" is not a MAC address such as 02:00:00:00:00:01',
  ],
]);

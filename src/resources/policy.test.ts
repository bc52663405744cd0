import { testRefusals } from "./malformed.testing.ts";

const rule = (fields: object) => ({ spec: { ingress: [{ action: "Allow", ...fields }] } });
const egress = (fields: object) => ({ spec: { egress: [{ action: "Allow", ...fields }] } });

testRefusals([
  [
    "CalicoNetworkPolicy",
    { spec: { selector: "a = 'b'" } },
    "spec.selector: expected an operator such as == or in after the label a, at character 3",
  ],
  [
    "CalicoNetworkPolicy",
    { spec: { selector: `a == '${"b".repeat(1018)}'` } },
    "spec.selector: is 1025 characters long, more than 1024",
  ],
  [
    "CalicoNetworkPolicy",
    { spec: { selector: "!global()" } },
    "spec.selector: global() may stand only in the namespaceSelector of a rule's source or destination",
  ],
  [
    "CalicoNetworkPolicy",
    { spec: { tier: "a.b" } },
    'spec.tier: "a.b" is not a name: lower-case letters, digits and "-" only, beginning and ending with a letter or digit',
  ],
  ["CalicoNetworkPolicy", { spec: { types: ["Ingress", "Ingress"] } }, "spec.types[1]: Ingress stands there twice"],
  ["CalicoNetworkPolicy", { spec: { order: "10" } }, 'spec.order: expected a number, not the text "10"'],
  ["CalicoNetworkPolicy", { spec: { doNotTrack: true } }, "spec.doNotTrack: unknown field"],
  [
    "CalicoNetworkPolicy",
    { spec: { ingress: Array.from({ length: 1025 }, () => ({ action: "Allow" })) } },
    "spec.ingress: has 1025 items, more than 1024",
  ],
  [
    "CalicoNetworkPolicy",
    { spec: { ingress: [{}] } },
    "spec.ingress[0].action: is required (Allow, Deny, Log or Pass)",
  ],
  ["CalicoNetworkPolicy", rule({ action: "Drop" }), 'spec.ingress[0].action: "Drop" is not Allow, Deny, Log or Pass'],
  ["CalicoNetworkPolicy", rule({ ipVersion: 5 }), "spec.ingress[0].ipVersion: 5 is not 4 or 6"],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "TPC" }),
    'spec.ingress[0].protocol: "TPC" is not TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255',
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: 256, notProtocol: "0" }),
    "spec.ingress[0].protocol: 256 is not 1 to 255",
    "spec.ingress[0].notProtocol: 0 is not 1 to 255",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ destination: { ports: [80] } }),
    "spec.ingress[0].destination.ports: needs protocol TCP, UDP or SCTP",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "ICMP", source: { notPorts: ["http"] } }),
    "spec.ingress[0].source.notPorts: needs protocol TCP, UDP or SCTP",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "TCP", destination: { ports: [0, "70000", "9:8", "a b", "1:x"] } }),
    "spec.ingress[0].destination.ports[0]: 0 is not 1 to 65535",
    'spec.ingress[0].destination.ports[1]: "70000" is not 1 to 65535',
    'spec.ingress[0].destination.ports[2]: "9:8" is not a range: 9 is greater than 8',
    'spec.ingress[0].destination.ports[3]: "a b" is not a port number, a range such as 8000:8080, or a port name',
    'spec.ingress[0].destination.ports[4]: "1:x" is not a port number, a range such as 8000:8080, or a port name',
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "TCP", destination: { ports: Array.from({ length: 51 }, (_, i) => i + 1) } }),
    "spec.ingress[0].destination.ports: has 51 items, more than 50",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ source: { nets: Array.from({ length: 257 }, () => "10.0.0.0/8") } }),
    "spec.ingress[0].source.nets: has 257 items, more than 256",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ source: { nets: ["10.0.0.0/8"] }, destination: { notNets: ["fd00::/8"] } }),
    'spec.ingress[0].destination.notNets[0]: "fd00::/8" is IPv6, but other nets of the rule are IPv4',
  ],
  [
    "CalicoNetworkPolicy",
    rule({ ipVersion: 6, source: { nets: ["10.0.0.0/8"] } }),
    'spec.ingress[0].source.nets[0]: "10.0.0.0/8" is IPv4, but ipVersion is 6',
  ],
  ["CalicoNetworkPolicy", rule({ icmp: { type: 8 } }), "spec.ingress[0].icmp: needs protocol ICMP or ICMPv6"],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "ICMP", icmp: { code: 1 } }),
    "spec.ingress[0].icmp.type: is required with code",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "ICMP", icmp: { type: 255, code: 256 } }),
    "spec.ingress[0].icmp.type: 255 is not 0 to 254",
    "spec.ingress[0].icmp.code: 256 is not 0 to 255",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ protocol: "ICMPv6", ipVersion: 4 }),
    "spec.ingress[0].ipVersion: must be 6 with protocol ICMPv6",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ notProtocol: "ICMP", ipVersion: 6 }),
    "spec.ingress[0].ipVersion: must be 4 with notProtocol ICMP",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ source: { namespaceSelector: "global() || has(a)" } }),
    "spec.ingress[0].source.namespaceSelector: global() cannot be combined with other selectors",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ source: { services: { name: "a" }, selector: "all()", nets: ["10.0.0.0/8"] } }),
    "spec.ingress[0].source.nets: must be absent, because services is given",
    "spec.ingress[0].source.selector: must be absent, because services is given",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ destination: { services: { name: "a" } } }),
    "spec.ingress[0].destination.services: may not stand in the destination of an ingress rule",
  ],
  [
    "CalicoNetworkPolicy",
    egress({ source: { services: { name: "a" } } }),
    "spec.egress[0].source.services: may not stand in the source of an egress rule",
  ],
  [
    "CalicoNetworkPolicy",
    egress({ protocol: "TCP", destination: { services: { name: "a" }, ports: [1] } }),
    "spec.egress[0].destination.ports: must be absent: services bring their own ports",
  ],
  [
    "CalicoNetworkPolicy",
    egress({ http: { methods: ["GET"] } }),
    "spec.egress[0].http: may not stand in an egress rule",
  ],
  [
    "CalicoNetworkPolicy",
    rule({ action: "Deny", http: { methods: ["GET"] } }),
    "spec.ingress[0].http: may stand in Allow rules only",
  ],
  ["CalicoNetworkPolicy", rule({ protocol: "UDP", http: {} }), "spec.ingress[0].http: needs protocol TCP"],
  [
    "CalicoNetworkPolicy",
    rule({ http: { methods: ["get"], paths: [{ exact: "a" }, { exact: "/a", prefix: "/b" }, { prefix: "/?" }] } }),
    'spec.ingress[0].http.methods[0]: "get" is not an HTTP method such as GET',
    'spec.ingress[0].http.paths[0].exact: "a" is not a path: it must begin with "/" and have no "?", "#" or space',
    "spec.ingress[0].http.paths[1]: expected either exact or prefix",
    'spec.ingress[0].http.paths[2].prefix: "/?" is not a path: it must begin with "/" and have no "?", "#" or space',
  ],
  [
    "CalicoNetworkPolicy",
    rule({ metadata: { annotations: { "a b": "c" } } }),
    'spec.ingress[0].metadata.annotations["a b"]: "a b" is not a key: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit',
  ],
  [
    "GlobalNetworkPolicy",
    { spec: { doNotTrack: true, preDNAT: true, egress: [{ action: "Allow" }], types: ["Egress"] } },
    "spec.preDNAT: cannot be true, because doNotTrack is",
    "spec.egress: must be absent, because preDNAT is true",
    "spec.types: cannot hold Egress, because preDNAT is true",
    "spec.applyOnForward: must be true, because doNotTrack is",
    "spec.applyOnForward: must be true, because preDNAT is",
  ],
  [
    "GlobalNetworkPolicy",
    egress({ destination: { services: { name: "a" } } }),
    "spec.egress[0].destination.services.namespace: is required in a policy without a namespace",
  ],
  [
    "StagedNetworkPolicy",
    { spec: { stagedAction: "Remove" } },
    'spec.stagedAction: "Remove" is not Set, Delete, Learn or Ignore',
  ],
  [
    "StagedNetworkPolicy",
    { spec: { stagedAction: "Delete", tier: "a", order: 1, selector: "has(a)" } },
    "spec.order: must be absent, because stagedAction is Delete",
    "spec.selector: must be absent, because stagedAction is Delete",
  ],
  ["StagedGlobalNetworkPolicy", { spec: { preDNAT: true } }, "spec.applyOnForward: must be true, because preDNAT is"],
  [
    "StagedKubernetesNetworkPolicy",
    { spec: { stagedAction: "Delete", ingress: [] } },
    "spec.ingress: must be absent, because stagedAction is Delete",
  ],
  [
    "Tier",
    { metadata: { name: "a.b" } },
    'metadata.name: "a.b" is not a name: lower-case letters, digits and "-" only, beginning and ending with a letter or digit',
  ],
  ["Tier", { metadata: { name: "default" }, spec: { order: 5 } }, "spec.order: must be 1000000 for the tier default"],
  ["Tier", { spec: { defaultAction: "Allow" } }, 'spec.defaultAction: "Allow" is not Deny or Pass'],
  [
    "NetworkSet",
    { metadata: { name: "x", labels: { "projectcalico.org/namespace": "y" } } },
    'metadata.labels["projectcalico.org/namespace"]: is set by the system',
  ],
  [
    "GlobalNetworkSet",
    { spec: { nets: ["10.0.0.0/8", 5] } },
    "spec.nets[1]: expected a CIDR or an IP address, not the number 5",
  ],
  ["HostEndpoint", { spec: {} }, "spec.node: is required (a name)"],
  ["HostEndpoint", { spec: { node: "a" } }, "spec.interfaceName: is required (or expectedIPs)"],
  [
    "HostEndpoint",
    { spec: { node: "a", interfaceName: "eth*", expectedIPs: ["10.0.0.0/8"] } },
    'spec.interfaceName: "eth*" is not "*" or an interface name of 1 to 15 letters, digits, "_", "." and "-"',
    'spec.expectedIPs[0]: "10.0.0.0/8" is not an IP address: "0/8" is not a number from 0 to 255',
  ],
  [
    "HostEndpoint",
    { spec: { node: "a", interfaceName: "*", ports: [{ name: "a", protocol: "ICMP", port: 1 }] } },
    "spec.ports[0].protocol: ICMP has no ports",
  ],
  ["Profile", { spec: { labelsToApply: { a: 1 } } }, 'spec.labelsToApply["a"]: expected a string, not the number 1'],
]);

/** What policy means for packets of the hosts themselves, and of workloads to their own: rows as in `evaluation.testing.ts`. */
import { gnp, named, openTables } from "./evaluation.testing.ts";

const { tables, rows } = openTables();

export const HOSTS = {
  interfaces: {
    node1: [{ name: "eth0", addresses: ["192.0.2.11"] }],
    node2: [{ name: "eth0", addresses: ["192.0.2.12"] }],
  },
};
const hep = (spec: string, name = "h1"): string =>
  named("HostEndpoint", spec, name).replace(`name: ${name}`, `name: ${name}, labels: {host: yes, hep: ${name}}`);
export const ETH0 = hep("{node: node2, interfaceName: eth0}");
const EVERY = hep("{node: node2, interfaceName: '*', profiles: [projectcalico-default-allow]}");
export const ON_HOST = "selector: has(host)";

rows("host endpoints", [
  {
    name: "a node without one is not policed",
    objects: [],
    settings: HOSTS,
    flows: "198.51.100.1 -> @node2 TCP/1 yes",
  },
  {
    name: "with one and no policy, its own traffic is denied both ways, but for failsafe ports",
    objects: [ETH0],
    settings: HOSTS,
    flows: `198.51.100.1 -> @node2 TCP/1 no
      198.51.100.1 -> @node2 TCP/22 yes
      198.51.100.1 -> @node2 UDP/22 no
      @node2 -> 198.51.100.1 TCP/1 no
      @node2 -> 198.51.100.1 UDP/53 yes
      @node1 -> @node2 TCP/1 no`,
  },
  {
    name: "with one and no policy, what it forwards is allowed",
    objects: [ETH0],
    settings: HOSTS,
    flows: "198.51.100.1 -> a/y TCP/1 yes\n a/y -> 198.51.100.1 TCP/1 yes",
  },
  {
    name: "policy without applyOnForward governs the node's own traffic only",
    objects: [ETH0, gnp(`{${ON_HOST}, ingress: [{action: Allow, protocol: UDP}]}`)],
    settings: HOSTS,
    flows: "198.51.100.1 -> @node2 UDP/1 yes\n 198.51.100.1 -> @node2 TCP/1 no\n 198.51.100.1 -> a/y TCP/1 yes",
  },
  {
    name: "policy with applyOnForward governs both, without failsafe ports for what is forwarded",
    objects: [ETH0, gnp(`{${ON_HOST}, applyOnForward: true, ingress: [{action: Allow, protocol: UDP}]}`)],
    settings: HOSTS,
    flows: `198.51.100.1 -> @node2 UDP/1 yes
      198.51.100.1 -> a/y UDP/1 yes
      198.51.100.1 -> a/y TCP/1 no
      198.51.100.1 -> a/y TCP/22 no
      a/y -> 198.51.100.1 TCP/1 yes`,
  },
  {
    name: "a failsafe port may be for some networks only, and the list may be empty",
    objects: [ETH0],
    settings: {
      ...HOSTS,
      settings: {
        failsafeInboundHostPorts: [{ protocol: "TCP", port: 22, net: "192.0.2.0/24" }],
        failsafeOutboundHostPorts: [],
      },
    },
    flows: "192.0.2.9 -> @node2 TCP/22 yes\n 198.51.100.1 -> @node2 TCP/22 no\n @node2 -> 192.0.2.9 UDP/53 no",
  },
  {
    name: "an automatic host endpoint breaks nothing when it is made",
    objects: [EVERY],
    settings: HOSTS,
    flows: `198.51.100.1 -> @node2 TCP/1 yes
      @node2 -> 198.51.100.1 TCP/1 yes
      a/x -> a/y TCP/1 yes
      a/y -> b/z TCP/1 yes`,
  },
  {
    name: "normal policy of a wildcard never governs host to local workload",
    objects: [EVERY, gnp(`{${ON_HOST}, egress: [{action: Deny}]}`)],
    settings: HOSTS,
    flows: "@node2 -> a/y TCP/1 yes\n @node2 -> a/x TCP/1 no",
  },
  {
    name: "forward policy of a wildcard governs also what passes between local workloads",
    objects: [EVERY, gnp(`{${ON_HOST}, applyOnForward: true, ingress: [{action: Allow, protocol: TCP}]}`)],
    settings: HOSTS,
    flows: "a/y -> b/z TCP/1 yes\n a/y -> b/z UDP/1 no",
  },
  {
    name: "forward policy of a wildcard governs egress to its workloads, and of a named interface what leaves by it",
    objects: [EVERY, gnp(`{${ON_HOST}, applyOnForward: true, egress: [{action: Allow, protocol: TCP}]}`)],
    settings: HOSTS,
    flows: `198.51.100.1 -> a/y TCP/1 yes
      198.51.100.1 -> a/y UDP/1 no
      a/y -> 198.51.100.1 TCP/1 yes
      a/y -> 198.51.100.1 UDP/1 no`,
  },
  {
    name: "one with a name of its own takes the interface from the wildcard",
    objects: [
      EVERY,
      hep("{node: node2, interfaceName: eth0}", "h2"),
      gnp("{selector: hep == 'h2', ingress: [{action: Allow, protocol: UDP}]}"),
    ],
    settings: HOSTS,
    flows: "198.51.100.1 -> @node2 UDP/1 yes\n 198.51.100.1 -> @node2 TCP/1 no",
  },
  {
    name: "one without an interface is found by its address",
    objects: [hep("{node: node2, expectedIPs: [192.0.2.12]}")],
    settings: HOSTS,
    flows: "198.51.100.1 -> @node2 TCP/1 no",
  },
  {
    name: "doNotTrack: Allow ends the matter for the node itself, Deny drops, and its end drops nothing",
    objects: [
      ETH0,
      gnp(`{${ON_HOST}, doNotTrack: true, applyOnForward: true, types: [Ingress, Egress],
        ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}, {action: Deny, protocol: TCP, destination: {ports: [2]}}],
        egress: [{action: Allow, protocol: TCP, destination: {ports: [3]}}]}`),
      gnp(
        `{${ON_HOST}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}, {action: Allow}], egress: [{action: Allow, protocol: UDP}]}`,
      ),
    ],
    settings: HOSTS,
    flows: `198.51.100.1 -> @node2 TCP/1 yes
      198.51.100.1 -> @node2 TCP/2 no
      198.51.100.1 -> @node2 TCP/4 yes
      @node2 -> 198.51.100.1 TCP/3 yes
      @node2 -> 198.51.100.1 TCP/4 no
      @node2 -> 198.51.100.1 UDP/4 yes
      198.51.100.1 -> a/y TCP/2 no
      198.51.100.1 -> a/y TCP/4 yes`,
  },
  {
    name: "a forwarded packet that an untracked policy allows still meets the workload's policy",
    objects: [
      ETH0,
      gnp(`{${ON_HOST}, doNotTrack: true, applyOnForward: true, ingress: [{action: Allow}]}`),
      gnp("{selector: app == 'y', ingress: [{action: Deny}]}"),
    ],
    settings: HOSTS,
    flows: "198.51.100.1 -> a/y TCP/1 no\n 198.51.100.1 -> b/z TCP/1 yes",
  },
  {
    name: "preDNAT: Allow skips the host endpoint's other policy, Deny drops, and its end drops nothing",
    objects: [
      ETH0,
      gnp(
        `{${ON_HOST}, preDNAT: true, applyOnForward: true, ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}, {action: Deny, protocol: TCP, destination: {ports: [2]}}]}`,
      ),
      gnp(`{${ON_HOST}, applyOnForward: true, ingress: [{action: Allow, protocol: UDP}]}`),
    ],
    settings: HOSTS,
    flows: `198.51.100.1 -> a/y TCP/1 yes
      198.51.100.1 -> a/y TCP/2 no
      198.51.100.1 -> a/y TCP/3 no
      198.51.100.1 -> a/y UDP/3 yes
      198.51.100.1 -> @node2 TCP/1 yes
      198.51.100.1 -> @node2 TCP/22 yes`,
  },
  {
    name: "profiles count for the node's own traffic alone",
    objects: [
      named("Profile", "{ingress: [{action: Allow, protocol: UDP}], egress: []}", "some"),
      hep("{node: node2, interfaceName: eth0, profiles: [some]}"),
    ],
    settings: HOSTS,
    flows: `198.51.100.1 -> @node2 UDP/1 yes
      198.51.100.1 -> @node2 TCP/1 no
      198.51.100.1 -> a/y TCP/1 yes
      a/y -> 198.51.100.1 TCP/1 yes`,
  },
  {
    name: "its ports have names",
    objects: [
      hep(
        "{node: node2, interfaceName: eth0, expectedIPs: [192.0.2.12], profiles: [projectcalico-default-allow], ports: [{name: api, protocol: TCP, port: 8443}]}",
      ),
      gnp("{selector: app == 'x', egress: [{action: Allow, protocol: TCP, destination: {ports: [api]}}]}"),
    ],
    settings: HOSTS,
    flows: "a/x -> @node2 TCP/8443 yes\n a/x -> @node2 TCP/8444 no\n a/x -> b/z TCP/8443 no",
  },
  {
    name: "what governs host endpoints only does not touch workloads",
    objects: [
      gnp("{selector: all(), doNotTrack: true, applyOnForward: true, ingress: [{action: Deny}]}"),
      gnp("{selector: all(), preDNAT: true, applyOnForward: true, ingress: [{action: Deny}]}"),
    ],
    settings: HOSTS,
    flows: "198.51.100.1 -> a/y TCP/1 yes",
  },
]);

const HOSTS_V6 = { interfaces: { node2: [{ name: "eth0", addresses: ["2001:db8:f::2"] }] } };
const UNTRACKED = (rule: string): string =>
  gnp(
    `{${ON_HOST}, doNotTrack: true, applyOnForward: true, types: [Ingress, Egress], ingress: [${rule}], egress: [${rule}]}`,
  );

rows("host endpoints never hold back", [
  {
    name: "neighbour discovery, nor reports of listeners",
    objects: [ETH0, gnp(`{${ON_HOST}, types: [Ingress, Egress]}`), UNTRACKED("{action: Deny, protocol: ICMPv6}")],
    settings: HOSTS_V6,
    flows: `2001:db8:9::1 -> @node2 ICMPv6/135 yes
      @node2 -> 2001:db8:9::1 ICMPv6/136 yes
      @node2 -> 2001:db8:9::1 ICMPv6/143 yes
      2001:db8:9::1 -> @node2 ICMPv6/128 no`,
  },
  {
    name: "in untracked policy, what may be an answer of or to a failsafe port; policy of connections knows better",
    objects: [
      ETH0,
      UNTRACKED("{action: Deny, protocol: TCP, destination: {ports: [9]}}"),
      gnp(`{${ON_HOST}, types: [Ingress], ingress: [{action: Allow, protocol: TCP}]}`),
    ],
    settings: {
      ...HOSTS,
      settings: { failsafeOutboundHostPorts: [{ protocol: "TCP", port: 6443, net: "198.51.100.0/24" }] },
    },
    flows: `198.51.100.1 -> @node2 TCP/9/6443 yes
      198.51.100.1 -> @node2 TCP/9/6444 no
      198.51.101.1 -> @node2 TCP/9/6443 no`,
  },
]);

const toHost = (action: "Accept" | "Drop" | "Reject" | "Return") => ({
  ...HOSTS,
  settings: { defaultEndpointToHostAction: action },
});

rows("a workload to its own node", [
  { name: "Drop", objects: [], settings: toHost("Drop"), flows: "a/y -> @node2 TCP/1 no\n a/x -> @node2 TCP/1 yes" },
  { name: "Reject", objects: [], settings: toHost("Reject"), flows: "a/y -> @node2 TCP/1 no" },
  { name: "Accept", objects: [], settings: toHost("Accept"), flows: "a/y -> @node2 TCP/1 yes" },
  {
    name: "Return, without a host endpoint",
    objects: [],
    settings: toHost("Return"),
    flows: "a/y -> @node2 TCP/1 yes",
  },
  {
    name: "Return, with a host endpoint for every interface: its policy decides, failsafe ports first",
    objects: [EVERY, gnp(`{${ON_HOST}, ingress: [{action: Allow, protocol: UDP}]}`)],
    settings: toHost("Return"),
    flows: "a/y -> @node2 UDP/1 yes\n a/y -> @node2 TCP/1 no\n a/y -> @node2 TCP/22 yes",
  },
  {
    name: "the workload's own egress policy comes first",
    objects: [gnp("{selector: app == 'y', egress: [{action: Allow, protocol: UDP}]}")],
    settings: toHost("Accept"),
    flows: "a/y -> @node2 UDP/1 yes\n a/y -> @node2 TCP/1 no",
  },
  {
    name: "neighbour discovery always works",
    objects: [gnp("{selector: app == 'y', egress: [{action: Deny}]}")],
    settings: {
      settings: { defaultEndpointToHostAction: "Drop" },
      interfaces: { node2: [{ name: "eth0", addresses: ["2001:db8:f::2"] }] },
    },
    flows: "a/y -> @node2 ICMPv6/135 yes\n a/y -> @node2 ICMPv6/136 yes\n a/y -> @node2 ICMPv6/128 no",
  },
]);

export const HOST_EVALUATION = tables;

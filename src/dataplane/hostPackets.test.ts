import { HOST, object, OUT, policy, rows, TO_OUTSIDE, X, type Row } from "./packetTable.testing.ts";

const EVERY = object("HostEndpoint", "all", "{node: node1, interfaceName: '*'}");
const SHUT = policy(
  "{selector: has(hep), types: [Ingress, Egress], ingress: [{action: Deny}], egress: [{action: Deny}]}",
  "shut",
);
const early = (stage: string): string =>
  policy(
    `{selector: has(hep), ${stage}: true, applyOnForward: true, types: [${stage === "preDNAT" ? "Ingress" : "Ingress, Egress"}],
      ingress: [{action: Deny}]${stage === "preDNAT" ? "" : ", egress: [{action: Deny}]"}}`,
    stage.toLowerCase(),
  );

rows("failsafe ports", { objects: [HOST, SHUT, early("doNotTrack"), early("preDNAT")] }, [
  { name: "in", way: "by eth0 to here", packet: `${OUT}#1 > 192.0.2.1#22 TCP`, fate: "accept" },
  { name: "no other", way: "by eth0 to here", packet: `${OUT}#1 > 192.0.2.1#23 TCP`, fate: "drop" },
  { name: "out", way: "from here out eth0", packet: `192.0.2.1#1 > ${OUT}#53 UDP`, fate: "accept" },
  { name: "out, no other", way: "from here out eth0", packet: `192.0.2.1#1 > ${OUT}#53 TCP`, fate: "drop" },
  {
    name: "replies out, which raw does not know for such",
    way: "from here out eth0",
    packet: `192.0.2.1#22 > ${OUT}#1 TCP`,
    given: { state: "established" },
    fate: "accept",
  },
  {
    name: "replies in",
    way: "by eth0 to here",
    packet: `${OUT}#53 > 192.0.2.1#1 UDP`,
    given: { state: "established" },
    fate: "accept",
  },
  { name: "… but nothing new from there", way: "by eth0 to here", packet: `${OUT}#53 > 192.0.2.1#1 UDP`, fate: "drop" },
  {
    name: "from some networks only",
    facts: { settings: { failsafeInboundHostPorts: [{ protocol: "TCP", port: 22, net: "192.0.2.0/30" }] } },
    way: "by eth0 to here",
    packet: `${OUT}#1 > 192.0.2.1#22 TCP`,
    fate: "drop",
  },
  {
    name: "not where there are none",
    facts: { settings: { failsafeInboundHostPorts: [] } },
    way: "by eth0 to here",
    packet: `${OUT}#1 > 192.0.2.1#22 TCP`,
    fate: "drop",
  },
  {
    name: "what the node translated meets policy where its interface is known",
    objects: [HOST, SHUT],
    way: "from here out eth0",
    packet: `192.0.2.1#1 > ${OUT}#80 TCP`,
    given: { isDnat: true },
    fate: "drop",
  },
  {
    name: "… and failsafe ports there too",
    objects: [HOST, SHUT],
    way: "from here out eth0",
    packet: `192.0.2.1#1 > ${OUT}#53 UDP`,
    given: { isDnat: true },
    fate: "accept",
  },
]);

const nd = (type: number): string => `fe80::2 > fe80::1 ICMP ${type}/0`;
const EVERYTHING_SHUT = [
  HOST,
  EVERY,
  SHUT,
  early("doNotTrack"),
  early("preDNAT"),
  policy("{selector: all(), types: [Ingress, Egress]}"),
];
rows("IPv6 neighbour discovery", { objects: EVERYTHING_SHUT }, [
  ...[130, 131, 132, 133, 134, 135, 136].map((type): Row => {
    const given = { state: "untracked" } as const;
    return { name: `${type} of a workload`, way: `by ${X} to here`, packet: nd(type), given, fate: "accept untracked" };
  }),
  ...[130, 131, 132, 133, 134, 135, 136, 143].flatMap((type): Row[] => [
    { name: `${type} in by a host endpoint`, way: "by eth0 to here", packet: nd(type), fate: "accept" },
    { name: `${type} in by all others`, way: "by eth1 to here", packet: nd(type), fate: "accept" },
    { name: `${type} out by a host endpoint`, way: "from here out eth0", packet: nd(type), fate: "accept" },
    { name: `${type} out to a workload`, way: `from here out ${X}`, packet: nd(type), fate: "accept" },
  ]),
  { name: "and nothing else", way: "by eth0 to here", packet: nd(128), fate: "drop" },
  { name: "nor of a workload", way: `by ${X} to here`, packet: nd(128), fate: "drop" },
  {
    name: "nor of an unknown one with a false address",
    way: "by cali0 to here",
    packet: nd(135),
    given: { wrongWay: true },
    fate: "drop",
  },
]);

rows("the host endpoint for every interface", { objects: [EVERY, SHUT] }, [
  { name: "in", way: "by eth1 to here", packet: `${OUT}#1 > 192.0.2.1#80 TCP`, fate: "drop" },
  { name: "out", way: "from here out eth1", packet: `192.0.2.1#1 > ${OUT}#80 TCP`, fate: "drop" },
  {
    name: "not the node with itself",
    way: "from here to here",
    packet: "192.0.2.1#1 > 192.0.2.1#80 TCP",
    fate: "accept",
  },
  { name: "not what comes by lo", way: "by lo to here", packet: "192.0.2.1#1 > 192.0.2.1#80 TCP", fate: "accept" },
  {
    name: "not the node to its workloads",
    way: `from here out ${X}`,
    packet: "192.0.2.1#1 > 10.1.0.1#80 TCP",
    fate: "accept",
  },
  {
    name: "… nor what it translated to them",
    way: `from here out ${X}`,
    packet: "192.0.2.1#1 > 10.1.0.1#80 TCP",
    given: { isDnat: true },
    fate: "accept",
  },
  { name: "what is forwarded is free", way: `by eth1 out ${X}`, packet: `${OUT}#1 > 10.1.0.1#80 TCP`, fate: "accept" },
  {
    name: "a host endpoint on a workload's interface is none",
    objects: [object("HostEndpoint", "odd", `{node: node1, interfaceName: ${X}}`), SHUT],
    way: `by ${X} out eth0`,
    packet: TO_OUTSIDE.packet,
    fate: "accept",
  },
]);

rows(
  "untracked policy",
  {
    objects: [
      HOST,
      policy(
        "{selector: has(hep), doNotTrack: true, applyOnForward: true, types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}",
      ),
      SHUT,
    ],
  },
  [
    { name: "in", way: "by eth0 to here", packet: `${OUT}#1 > 192.0.2.1#80 TCP`, fate: "accept untracked" },
    { name: "out", way: "from here out eth0", packet: `192.0.2.1#1 > ${OUT}#80 TCP`, fate: "accept untracked" },
  ],
);

import { annotated, OUT, rows, TO_OUTSIDE, X, Y } from "./packetTable.testing.ts";
import type { GivenFacts } from "./ruleWorld.testing.ts";

const pool = (cidr: string, natOutgoing: boolean, more: { disabled?: true; isLoadBalancer?: true } = {}) => ({
  cidr,
  natOutgoing,
  disabled: more.disabled ?? false,
  isLoadBalancer: more.isLoadBalancer ?? false,
});
const NAT: GivenFacts = {
  hosts: ["192.0.2.1", "192.0.2.2"],
  pools: [
    pool("10.1.0.0/16", true),
    pool("10.2.0.0/16", false),
    pool("172.16.0.0/12", false, { disabled: true }),
    pool("198.51.100.0/24", true, { isLoadBalancer: true }),
    pool("2001:db8:1::/48", true),
  ],
};
const nat = (settings: NonNullable<GivenFacts["settings"]>): GivenFacts => ({ ...NAT, settings });

rows("natOutgoing", { facts: NAT }, [
  { name: "from a pool to outside", ...TO_OUTSIDE, fate: "accept from masquerade" },
  {
    name: "IPv6 too",
    way: `by ${X} out eth0`,
    packet: "2001:db8:1::1#1 > 2001:db8:9::9#80 TCP",
    fate: "accept from masquerade",
  },
  { name: "to another pool: not", way: TO_OUTSIDE.way, packet: "10.1.0.1#1 > 10.2.0.1#80 TCP", fate: "accept" },
  { name: "to a disabled pool: not", way: TO_OUTSIDE.way, packet: "10.1.0.1#1 > 172.16.0.1#80 TCP", fate: "accept" },
  {
    name: "to a pool of load balancers: it is outside",
    way: TO_OUTSIDE.way,
    packet: "10.1.0.1#1 > 198.51.100.1#80 TCP",
    fate: "accept from masquerade",
  },
  {
    name: "to another node: as outside",
    way: TO_OUTSIDE.way,
    packet: "10.1.0.1#1 > 192.0.2.2#80 TCP",
    fate: "accept from masquerade",
  },
  {
    name: "… but with IPPoolsAndHostIPs not",
    facts: nat({ natOutgoingExclusions: "IPPoolsAndHostIPs" }),
    way: TO_OUTSIDE.way,
    packet: "10.1.0.1#1 > 192.0.2.2#80 TCP",
    fate: "accept",
  },
  {
    name: "a connection that was there: as it began",
    ...TO_OUTSIDE,
    given: { state: "established" },
    fate: "accept",
  },
  {
    name: "with an address of its own",
    facts: nat({ natOutgoingAddress: "192.0.2.99" }),
    ...TO_OUTSIDE,
    fate: "accept from 192.0.2.99",
  },
  {
    name: "… which IPv6 has no use for",
    facts: nat({ natOutgoingAddress: "192.0.2.99" }),
    way: TO_OUTSIDE.way,
    packet: "2001:db8:1::1#1 > 2001:db8:9::9#80 TCP",
    fate: "accept from masquerade",
  },
  {
    name: "with a range of ports",
    facts: nat({ natPortRange: "32768:60999" }),
    ...TO_OUTSIDE,
    fate: "accept from masquerade:32768-60999",
  },
  {
    name: "… which ICMP has no use for",
    facts: nat({ natPortRange: 5000, natOutgoingAddress: "192.0.2.99" }),
    way: TO_OUTSIDE.way,
    packet: `10.1.0.1 > ${OUT} ICMP 8/0`,
    fate: "accept from 192.0.2.99",
  },
  {
    name: "by one interface",
    facts: nat({ iptablesNATOutgoingInterfaceFilter: "eth+" }),
    ...TO_OUTSIDE,
    fate: "accept from masquerade",
  },
  {
    name: "… and not by others",
    facts: nat({ iptablesNATOutgoingInterfaceFilter: "wan0" }),
    ...TO_OUTSIDE,
    fate: "accept",
  },
]);

const FLOATING = [
  annotated("x", "10.1.0.1", "floatingIPs", '["203.0.113.1"]'),
  annotated("y", "10.1.0.2", "floatingIPs", '["203.0.113.1", "203.0.113.2"]'),
];
const FIPS = nat({ floatingIPs: "Enabled" });
rows("a floating address", { objects: FLOATING, facts: FIPS }, [
  {
    name: "in",
    way: `by eth0 out ${X}`,
    packet: `${OUT}#1 > 203.0.113.1#80 TCP`,
    fate: "accept to 10.1.0.1",
  },
  {
    name: "in, of one of which another has taken the first",
    way: `by eth0 out ${Y}`,
    packet: `${OUT}#1 > 203.0.113.2#80 TCP`,
    fate: "accept to 10.1.0.2",
  },
  { name: "out, instead of natOutgoing", ...TO_OUTSIDE, fate: "accept from 203.0.113.1" },
  {
    name: "out to another pool: its own address",
    way: TO_OUTSIDE.way,
    packet: "10.1.0.1#1 > 10.2.0.1#80 TCP",
    fate: "accept",
  },
  {
    name: "from the node itself",
    way: `from here out ${X}`,
    packet: "192.0.2.1#1 > 203.0.113.1#80 TCP",
    fate: "accept to 10.1.0.1",
  },
  {
    name: "from the workload to itself: there and back by the node",
    way: `by ${X} out ${X}`,
    packet: "10.1.0.1#1 > 203.0.113.1#80 TCP",
    fate: "accept to 10.1.0.1 from 203.0.113.1",
  },
  {
    name: "means nothing where settings do not allow it",
    facts: NAT,
    way: "by eth0 out eth0",
    packet: `${OUT}#1 > 203.0.113.1#80 TCP`,
    fate: "accept",
  },
]);

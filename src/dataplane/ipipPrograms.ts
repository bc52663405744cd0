import {
  add,
  and,
  bigEndian,
  call,
  exit,
  HELPER,
  type Instruction,
  jump,
  label,
  load,
  move,
  or,
  r0,
  r1,
  r10,
  r2,
  r3,
  r4,
  r5,
  r6,
  r7,
  r8,
  r9,
  store,
} from "../netlink/bpf.ts";

import {
  count,
  ends,
  ETHERNET,
  HEADER,
  headerSum,
  IP,
  lengthAt,
  lookUp,
  packetInReach,
  settings,
  SKB,
  STACK,
} from "./ipipParts.ts";

/**
 * IPIP (RFC 2003) where the kernel has no device for it: two programs that do at `tunl0`'s way out and at the underlay's
 * way in what net/ipv4/ip_tunnel.c does. `tunl0` is a TUN device that nobody reads, so that what no program has taken
 * ends there: without them the tunnel is shut, not open.
 *
 *     pod → route via tunl0 → [encapsulate: outer header, look up the way] → underlay → … → underlay
 *         → [decapsulate: known peer, lengths agree] → tunl0 → pod
 */

/** ETH_P_IP as a little-endian machine reads it from the packet. */
const IPV4 = 0x0008;
const PROTOCOL_IPIP = 4;
/** An IPv4 header of five words, as its first byte says. */
const PLAIN_HEADER = 0x45;

/** Don't Fragment, as a little-endian machine reads the field; likewise More Fragments with the offset. */
const DONT_FRAGMENT = 0x0040;
const IS_FRAGMENT = 0xff3f;

/** Congestion notification (RFC 3168): the low bits of the TOS byte. */
const ECN_MASK = 3;
const ECN_CAPABLE = 2; // ECT(0)
const CONGESTION = 3; // CE

/** Offsets into `struct bpf_fib_lookup`. */
const FIB = { family: 0, protocol: 1, device: 8, source: 16, destination: 32, size: 64 } as const;
const FIB_SUCCESS = 0;
/** The way is known, but the neighbour's MAC is not yet: BPF_FIB_LKUP_RET_NO_NEIGH. */
const FIB_NO_NEIGHBOUR = 7;
const AF_INET = 2;

/** Flags of bpf_skb_adjust_room: segments keep their size, as the link's MTU already makes room for the outer header. */
const FIXED_GSO = 1;
const ENCAPSULATE_IPV4 = 2;
const DECAPSULATE_IPV4 = 128;
const AFTER_MAC_HEADER = 1; // BPF_ADJ_ROOM_MAC
const INTO_INGRESS = 1; // BPF_F_INGRESS

/** TCX_NEXT: whoever comes next, and in the end the stack. */
const GO_ON = -1;

/** Puts an IPv4 header before each packet that leaves by `tunl0`, and sends it on by the way to its node. */
export const ENCAPSULATE: readonly Instruction[] = [
  move(r6, r1),
  load(4, r2, r6, SKB.protocol),
  jump("notIpv4", r2, "!=", IPV4),
  ...packetInReach(HEADER, "notIpv4"),
  load(1, r7, r8, IP.tos),
  load(1, r9, r8, IP.ttl),
  store(1, r10, STACK.outer + IP.ttl, r9),
  load(2, r9, r8, IP.fragment),
  // Which node is the destination behind?
  store(4, r10, STACK.key, 32),
  load(4, r3, r8, IP.destination),
  store(4, r10, STACK.key + 4, r3),
  ...lookUp("ipip_remotes"),
  jump("noRemote", r0, "==", 0),
  load(4, r8, r0, 0),
  ...settings("failed"),
  load(4, r3, r0, 0),
  // The outer header, as ip_tunnel_xmit makes it where the device inherits TTL and TOS.
  store(1, r10, STACK.outer, PLAIN_HEADER),
  and(r7, ECN_MASK),
  jump("notCongested", r7, "!=", CONGESTION),
  move(r7, ECN_CAPABLE), // RFC 3168 section 9.1.1: what happened to the inner packet stays its own
  label("notCongested"),
  store(1, r10, STACK.outer + IP.tos, r7),
  store(4, r10, STACK.outer + IP.source, r3),
  store(4, r10, STACK.outer + IP.destination, r8),
  and(r9, DONT_FRAGMENT),
  store(2, r10, STACK.outer + IP.fragment, r9),
  store(1, r10, STACK.outer + IP.protocol, PROTOCOL_IPIP),
  load(4, r2, r6, SKB.length),
  add(r2, HEADER),
  jump("fits", r2, "<=", 0xffff),
  move(r2, 0), // as the kernel marks a packet that will be cut into segments and is too long for the field until then
  label("fits"),
  bigEndian(r2, 16),
  store(2, r10, STACK.outer + IP.length, r2),
  // Routers may cut a packet without DF: its pieces are told from others' by the number.
  call(HELPER.randomU32),
  store(2, r10, STACK.outer + IP.id, r0),
  store(2, r10, STACK.outer + IP.checksum, 0),
  move(r3, r10),
  add(r3, STACK.outer),
  ...headerSum(),
  store(2, r10, STACK.outer + IP.checksum, r0),
  // By which link to the node: the kernel's own routes say it.
  ...Array.from({ length: FIB.size / 8 }, (_, index) => store(8, r10, STACK.fib + index * 8, 0)),
  store(1, r10, STACK.fib + FIB.family, AF_INET),
  store(1, r10, STACK.fib + FIB.protocol, PROTOCOL_IPIP),
  load(4, r7, r6, SKB.device),
  store(4, r10, STACK.fib + FIB.device, r7),
  load(4, r2, r10, STACK.outer + IP.source),
  store(4, r10, STACK.fib + FIB.source, r2),
  store(4, r10, STACK.fib + FIB.destination, r8),
  move(r1, r6),
  move(r2, r10),
  add(r2, STACK.fib),
  move(r3, FIB.size),
  move(r4, 0),
  call(HELPER.fibLookup),
  jump("routed", r0, "==", FIB_SUCCESS),
  jump("noRoute", r0, "!=", FIB_NO_NEIGHBOUR),
  label("routed"),
  load(4, r9, r10, STACK.fib + FIB.device),
  jump("noRoute", r9, "==", r7), // a tunnel through itself
  move(r1, r6),
  move(r2, HEADER),
  move(r3, AFTER_MAC_HEADER),
  move(r4, FIXED_GSO | ENCAPSULATE_IPV4),
  call(HELPER.skbAdjustRoom),
  jump("failed", r0, "!=", 0),
  move(r1, r6),
  move(r2, 0),
  move(r3, r10),
  add(r3, STACK.outer),
  move(r4, HEADER),
  move(r5, 0),
  call(HELPER.skbStoreBytes),
  jump("failed", r0, "!=", 0),
  // bpf_redirect_neigh drops what has no room for a MAC header, which packets of a TUN device have not.
  move(r1, r6),
  move(r2, ETHERNET),
  move(r3, 0),
  call(HELPER.skbChangeHead),
  jump("failed", r0, "!=", 0),
  ...count("sent"),
  // It looks up the neighbour itself. Told whom, it would leave the packet its old route, by which it is lost where it has
  // to wait for the neighbour's MAC (neigh_update in net/core/neighbour.c).
  move(r1, r9),
  move(r2, 0),
  move(r3, 0),
  move(r4, 0),
  call(HELPER.redirectNeighbour),
  exit,
  ...ends({
    notIpv4: "droppedNotIpv4",
    noRemote: "droppedNoRemote",
    noRoute: "droppedNoRoute",
    failed: "failed",
  }),
];

/**
 * Takes the outer header off what known nodes send to this one, and hands the rest to `tunl0`. What it cannot judge goes
 * on to the stack: packets for others, fragments (the stack puts them together again, and a socket takes them from
 * there), headers with options, headers with a wrong checksum.
 */
export const DECAPSULATE: readonly Instruction[] = [
  move(r6, r1),
  load(4, r2, r6, SKB.protocol),
  jump("goOn", r2, "!=", IPV4),
  ...packetInReach(ETHERNET + HEADER, "goOn"),
  load(1, r2, r8, ETHERNET + IP.protocol),
  jump("goOn", r2, "!=", PROTOCOL_IPIP),
  load(1, r2, r8, ETHERNET),
  jump("goOn", r2, "!=", PLAIN_HEADER),
  ...settings("goOn"),
  load(4, r2, r0, 4),
  store(4, r10, STACK.device, r2),
  load(4, r2, r0, 0),
  load(4, r3, r8, ETHERNET + IP.destination),
  jump("goOn", r2, "!=", r3), // not for this node
  move(r3, r8),
  add(r3, ETHERNET),
  ...headerSum(),
  jump("goOn", r0, "!=", 0),
  load(2, r2, r8, ETHERNET + IP.fragment),
  jump("fragment", r2, "&", IS_FRAGMENT),
  load(4, r7, r8, ETHERNET + IP.source),
  store(4, r10, STACK.key, r7),
  ...lookUp("ipip_peers"),
  jump("known", r0, "!=", 0),
  store(4, r10, STACK.key, 32),
  store(4, r10, STACK.key + 4, r7),
  ...lookUp("ipip_networks"),
  jump("unknownPeer", r0, "==", 0),
  label("known"),
  ...packetInReach(ETHERNET + HEADER + HEADER, "malformed"),
  load(1, r2, r8, ETHERNET + HEADER),
  jump("malformed", r2, "<", PLAIN_HEADER),
  jump("malformed", r2, ">", 0x4f),
  ...lengthAt(r7, ETHERNET),
  ...lengthAt(r9, ETHERNET + HEADER),
  add(r9, HEADER),
  jump("malformed", r7, "!=", r9),
  // RFC 6040 section 4.2: congestion on the tunnel's way is the inner packet's congestion.
  load(1, r2, r8, ETHERNET + IP.tos),
  and(r2, ECN_MASK),
  jump("strip", r2, "!=", CONGESTION),
  load(2, r7, r8, ETHERNET + HEADER), // version and TOS, the first word that the checksum counts
  load(1, r9, r8, ETHERNET + HEADER + IP.tos),
  move(r2, r9),
  and(r2, ECN_MASK),
  jump("congestion", r2, "==", 0),
  or(r9, CONGESTION),
  store(1, r10, STACK.key, r9),
  move(r1, r6),
  move(r2, ETHERNET + HEADER + IP.checksum),
  move(r3, r7),
  or(r7, CONGESTION << 8),
  move(r4, r7),
  move(r5, 2),
  call(HELPER.l3ChecksumReplace),
  jump("failed", r0, "!=", 0),
  move(r1, r6),
  move(r2, ETHERNET + HEADER + IP.tos),
  move(r3, r10),
  add(r3, STACK.key),
  move(r4, 1),
  move(r5, 0),
  call(HELPER.skbStoreBytes),
  jump("failed", r0, "!=", 0),
  label("strip"),
  move(r1, r6),
  move(r2, -HEADER),
  move(r3, AFTER_MAC_HEADER),
  move(r4, FIXED_GSO | DECAPSULATE_IPV4),
  call(HELPER.skbAdjustRoom),
  jump("failed", r0, "!=", 0),
  ...count("received"),
  load(4, r1, r10, STACK.device),
  move(r2, INTO_INGRESS),
  call(HELPER.redirect),
  exit,
  label("fragment"),
  ...count("fragments"),
  label("goOn"),
  move(r0, GO_ON),
  exit,
  ...ends({
    unknownPeer: "droppedUnknownPeer",
    malformed: "droppedMalformed",
    congestion: "droppedCongestion",
    failed: "failed",
  }),
];

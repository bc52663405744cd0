/** Maps that both programs of the IPIP tunnel read: what is known of this node and of the others. Keys and values are in network order. */
export const IPIP_MAPS = {
  /** One entry: this node's address, and the index of `tunl0` (host order). */
  ipip_settings: { type: "array", keySize: 4, valueSize: 8, entries: 1 },
  /** Prefixes of pods' addresses, and the node that each is behind. A key is the length (host order) and the address. */
  ipip_remotes: { type: "prefixTrie", keySize: 8, valueSize: 4, entries: 262_144 },
  /** Addresses of nodes from which packets are taken. */
  ipip_peers: { type: "hash", keySize: 4, valueSize: 4, entries: 65_536 },
  /** Networks from which packets are taken beside that (Felix's externalNodesList). */
  ipip_networks: { type: "prefixTrie", keySize: 8, valueSize: 4, entries: 1024 },
  /** A number for each of `IPIP_COUNTERS`, on each processor. */
  ipip_counters: { type: "perCpuArray", keySize: 4, valueSize: 8, entries: 16 },
} as const;

/** What is counted, in the order of the map; `dropped…` are packets that end there. */
export const IPIP_COUNTERS = [
  "sent",
  "received",
  "droppedNoRemote",
  "droppedNoRoute",
  "droppedNotIpv4",
  "droppedUnknownPeer",
  "droppedMalformed",
  "droppedCongestion",
  "failed",
  "fragments",
] as const;
export type IpipCounter = (typeof IPIP_COUNTERS)[number];

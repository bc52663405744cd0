import { addressBits, addressPlus, type Address } from "../ip/address.ts";
import { formatPrefix, prefixesOverlap, prefixSize, type InterfaceAddress, type Prefix } from "../ip/prefix.ts";
import { fault, nameAt, namesAt, objectAt, oneOf, onlyFields, prefixAt, textsAt } from "./definitionFields.ts";

/** A cluster of network namespaces: which nodes and hosts there are, on which segments, with which addresses. */
export interface LabDefinition {
  readonly segments: readonly Segment[];
  /** Of every link of the lab, in bytes. */
  readonly mtu: number;
  /**
   * Whether the segments' router learns the pods' routes: `bgp` makes it a peer of every node (as a data centre's router
   * is), `none` leaves it ignorant of pods.
   */
  readonly router: "bgp" | "none";
  /** Whether every node speaks BGP with every other from the start. */
  readonly mesh: boolean;
  /** Pools that the first agent creates. */
  readonly podSubnet: Prefix;
  readonly podSubnet6?: Prefix;
  /** How packets get from node to node. `canal`: by flannel, in the agent. */
  readonly backend: "bird" | "vxlan" | "none" | "canal";
  /** Of the IPv4 pool that the first agent creates; `vxlan6` of the IPv6 pool. */
  readonly encapsulation: { readonly ipip: TunnelMode; readonly vxlan: TunnelMode; readonly vxlan6: TunnelMode };
  /** Of flannel, in a lab with `canal`: what its configuration calls `Backend`. */
  readonly flannel: Readonly<Record<string, unknown>>;
  /** Variables of every agent beside those that the lab sets, or in their place. */
  readonly environment: Readonly<Record<string, string>>;
}

const TUNNEL_MODES = ["Never", "Always", "CrossSubnet"] as const;
export type TunnelMode = (typeof TUNNEL_MODES)[number];
const BACKENDS = ["bird", "vxlan", "none", "canal"] as const;
const FIELDS = [
  "kind",
  "segments",
  "mtu",
  "router",
  "mesh",
  "podSubnet",
  "podSubnet6",
  "backend",
  "ipip",
  "vxlan",
  "vxlan6",
  "flannel",
  "environment",
];

/** An L2 subnet, joined to the others by the router. It has at least one of the families. */
export interface Segment {
  readonly subnet?: Prefix;
  readonly subnet6?: Prefix;
  /** The router's addresses on it. */
  readonly router?: Address;
  readonly router6?: Address;
  /** Its members' default gateways: the router's addresses, or those of one of its hosts. */
  readonly gateway?: Address;
  readonly gateway6?: Address;
  readonly members: readonly Member[];
}

/** A machine's place on a segment. A host that stands on several is a router between them. */
export interface Member {
  readonly name: string;
  /** A node runs an agent; a host is a plain machine. */
  readonly role: "node" | "host";
  /** `eth0`, and of a host on several segments `eth1` and so on. */
  readonly interface: string;
  readonly address?: InterfaceAddress;
  readonly address6?: InterfaceAddress;
  /** Of a node: what stands on its Node object from the start. */
  readonly asNumber?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

const MAX_MEMBERS = 200;

/** What `lab up --nodes N` is short for: a `lab.yaml` of one segment with N nodes. */
export function nodesOnOneSegment(nodes: number): object {
  const names = Array.from({ length: nodes }, (_, index) => `node${index + 1}`);
  return { kind: "Lab", segments: [{ subnet: "192.0.2.0/24", nodes: names }] };
}

/** Checks a `lab.yaml` that was read into an object. Throws `LabError` with the path of the fault. */
export function parseDefinition(input: unknown): LabDefinition {
  const root = objectAt(input, "lab");
  onlyFields(root, "lab", FIELDS);
  if (root["kind"] !== "Lab") throw fault("kind", `expected "Lab", found ${JSON.stringify(root["kind"])}`);
  const mtu = root["mtu"] ?? 1500;
  if (typeof mtu !== "number" || !Number.isInteger(mtu) || mtu < 1280 || mtu > 65535)
    throw fault("mtu", "expected 1280 to 65535");
  const backend = oneOf(root["backend"] ?? "bird", "backend", BACKENDS);
  // Without BGP nobody can tell the router of pods.
  const router = oneOf(root["router"] ?? (backend === "bird" ? "bgp" : "none"), "router", ["bgp", "none"]);
  if (router === "bgp" && backend !== "bird") throw fault("router", `nodes with the backend ${backend} speak no BGP`);
  const mode = (field: string): TunnelMode => oneOf(root[field] ?? "Never", field, TUNNEL_MODES);
  const encapsulation = { ipip: mode("ipip"), vxlan: mode("vxlan"), vxlan6: mode("vxlan6") };
  if (encapsulation.ipip !== "Never" && encapsulation.vxlan !== "Never")
    throw fault("vxlan", "a pool has either ipip or vxlan");
  const flannel = root["flannel"] === undefined ? { Type: "vxlan" } : objectAt(root["flannel"], "flannel");
  if (root["flannel"] !== undefined && backend !== "canal")
    throw fault("flannel", "only the backend canal has flannel");
  const environment = root["environment"] === undefined ? {} : textsAt(root["environment"], "environment");
  const mesh = root["mesh"] ?? true;
  if (typeof mesh !== "boolean") throw fault("mesh", "expected true or false");
  const list = root["segments"];
  if (!Array.isArray(list) || list.length === 0) throw fault("segments", "expected at least one segment");
  const places = new Map<string, number>();
  const segments = list.map((item: unknown, index) => parseSegment(item, `segments[${index}]`, places));
  const dualStack = segments.some((segment) => segment.subnet6 !== undefined);
  const podSubnet = prefixAt(root["podSubnet"] ?? "10.244.0.0/16", "podSubnet", 4);
  if (!dualStack && root["podSubnet6"] !== undefined) throw fault("podSubnet6", "no segment has a subnet6");
  const podSubnet6 = dualStack ? prefixAt(root["podSubnet6"] ?? "fd10:244::/64", "podSubnet6", 6) : undefined;
  checkNames(segments);
  if (segments.every(({ members }) => members.every(({ role }) => role === "host")))
    throw fault("segments", "a lab has at least one node");
  checkOverlaps([
    ...segments.flatMap(({ subnet, subnet6 }, index) => [
      { path: `segments[${index}].subnet`, prefix: subnet },
      { path: `segments[${index}].subnet6`, prefix: subnet6 },
    ]),
    { path: "podSubnet", prefix: podSubnet },
    { path: "podSubnet6", prefix: podSubnet6 },
  ]);
  return {
    segments,
    mtu,
    router,
    mesh,
    podSubnet,
    backend,
    encapsulation,
    flannel,
    environment,
    ...(podSubnet6 === undefined ? {} : { podSubnet6 }),
  };
}

/** Each once, with its first place. */
export function membersOf(definition: LabDefinition, role?: Member["role"]): Member[] {
  return definition.segments
    .flatMap((segment) => segment.members)
    .filter((member) => (role === undefined || member.role === role) && member.interface === FIRST_INTERFACE);
}

const FIRST_INTERFACE = "eth0";

/** `places` counts the segments on which each name has stood so far. */
function parseSegment(input: unknown, path: string, places: Map<string, number>): Segment {
  const fields = objectAt(input, path);
  onlyFields(fields, path, ["subnet", "subnet6", "nodes", "hosts", "gateway"]);
  const subnet6 = fields["subnet6"] === undefined ? undefined : prefixAt(fields["subnet6"], `${path}.subnet6`, 6);
  const isWithout4 = fields["subnet"] === undefined && subnet6 !== undefined;
  const subnet = isWithout4 ? undefined : prefixAt(fields["subnet"], `${path}.subnet`, 4);
  const nodes = nodesAt(fields["nodes"], `${path}.nodes`);
  const hosts = namesAt(fields["hosts"], `${path}.hosts`);
  const all = [
    ...nodes.map((node) => ({ ...node, role: "node" as const })),
    ...hosts.map((name) => ({ name, role: "host" as const })),
  ];
  const first = firstOffset(subnet, all.length, `${path}.subnet`);
  // The same last digits as in IPv4, read as hex: 192.0.2.11 and 2001:db8::11.
  const offset6 = (index: number): number => Number(`0x${first + index}`);
  if (subnet6 !== undefined && prefixSize(subnet6) <= BigInt(offset6(all.length)))
    throw fault(`${path}.subnet6`, `${formatPrefix(subnet6)} is too small for ${all.length} members and a router`);
  const at = (prefix: Prefix, offset: number): InterfaceAddress => ({
    address: addressPlus(prefix.address, BigInt(offset)),
    length: prefix.length,
  });
  const members = all.map((member, index): Member => {
    const place = places.get(member.name) ?? 0;
    places.set(member.name, place + 1);
    return {
      ...member,
      interface: `eth${place}`,
      ...(subnet === undefined ? {} : { address: at(subnet, first + index) }),
      ...(subnet6 === undefined ? {} : { address6: at(subnet6, offset6(index)) }),
    };
  });
  const gateway = fields["gateway"];
  const chosen =
    gateway === undefined ? undefined : members.find(({ name, role }) => role === "host" && name === gateway);
  if (gateway !== undefined && chosen === undefined) throw fault(`${path}.gateway`, "expected one of its hosts");
  const router = subnet === undefined ? undefined : addressPlus(subnet.address, 1n);
  const router6 = subnet6 === undefined ? undefined : addressPlus(subnet6.address, 1n);
  const [out, out6] = chosen === undefined ? [router, router6] : [chosen.address?.address, chosen.address6?.address];
  return {
    ...(subnet === undefined ? {} : { subnet }),
    ...(subnet6 === undefined ? {} : { subnet6 }),
    ...(router === undefined ? {} : { router }),
    ...(router6 === undefined ? {} : { router6 }),
    ...(out === undefined ? {} : { gateway: out }),
    ...(out6 === undefined ? {} : { gateway6: out6 }),
    members,
  };
}

/** The router is the first address. Members start at the eleventh where there is room: 192.0.2.11 is node1. */
function firstOffset(subnet: Prefix | undefined, count: number, path: string): number {
  if (subnet === undefined) return 11;
  const hostBits = addressBits(4) - subnet.length;
  const first = count + 11 <= 2 ** hostBits - 1 ? 11 : 2;
  if (count + first > 2 ** hostBits - 1)
    throw fault(path, `${formatPrefix(subnet)} is too small for ${count} members and a router`);
  return first;
}

/** A host may stand on several segments; everybody else in one place. */
function checkNames(segments: readonly Segment[]): void {
  const seen = new Map<string, Member["role"]>([["router", "node"]]);
  for (const [index, segment] of segments.entries()) {
    const here = new Set<string>();
    for (const { name, role } of segment.members) {
      const other = seen.get(name);
      if (here.has(name) || (other !== undefined && (other === "node" || role === "node"))) {
        throw fault(`segments[${index}]`, `the name "${name}" is taken`);
      }
      here.add(name);
      seen.set(name, role);
    }
  }
  if (seen.size - 1 > MAX_MEMBERS) throw fault("segments", `a lab has at most ${MAX_MEMBERS} nodes and hosts`);
}

function checkOverlaps(networks: readonly { readonly path: string; readonly prefix: Prefix | undefined }[]): void {
  const earlier: Prefix[] = [];
  for (const { path, prefix } of networks) {
    if (prefix === undefined) continue;
    const clash = earlier.find((other) => prefixesOverlap(prefix, other));
    if (clash !== undefined) throw fault(path, `${formatPrefix(prefix)} overlaps ${formatPrefix(clash)}`);
    earlier.push(prefix);
  }
}

/** Names, or objects that say more of a node. */
function nodesAt(value: unknown, path: string): Pick<Member, "name" | "asNumber" | "labels" | "annotations">[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw fault(path, "expected a list of names");
  return value.map((item: unknown, index) => {
    const at = `${path}[${index}]`;
    if (typeof item !== "object" || item === null) return { name: nameAt(item, at) };
    const fields = objectAt(item, at);
    onlyFields(fields, at, ["name", "asNumber", "labels", "annotations"]);
    const { asNumber } = fields;
    if (asNumber !== undefined && !(Number.isInteger(asNumber) && Number(asNumber) > 0 && Number(asNumber) < 2 ** 32)) {
      throw fault(`${at}.asNumber`, "expected 1 to 4294967295");
    }
    return {
      name: nameAt(fields["name"], `${at}.name`),
      ...(asNumber === undefined ? {} : { asNumber: Number(asNumber) }),
      ...(fields["labels"] === undefined ? {} : { labels: textsAt(fields["labels"], `${at}.labels`) }),
      ...(fields["annotations"] === undefined
        ? {}
        : { annotations: textsAt(fields["annotations"], `${at}.annotations`) }),
    };
  });
}

import { addressBits, addressPlus, type Address } from "../ip/address.ts";
import {
  formatPrefix,
  parsePrefix,
  prefixesOverlap,
  prefixSize,
  type InterfaceAddress,
  type Prefix,
} from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";

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
  /** Pools that the first agent creates. */
  readonly podSubnet: Prefix;
  readonly podSubnet6?: Prefix;
}

/** An L2 subnet, joined to the others by the router. */
export interface Segment {
  readonly subnet: Prefix;
  readonly subnet6?: Prefix;
  /** The router's addresses on it: its members' default gateways. */
  readonly router: Address;
  readonly router6?: Address;
  readonly members: readonly Member[];
}

export interface Member {
  readonly name: string;
  /** A node runs an agent; a host is a plain machine. */
  readonly role: "node" | "host";
  readonly address: InterfaceAddress;
  readonly address6?: InterfaceAddress;
}

export class LabError extends Failure<"bad-definition" | "exists" | "not-found" | "failed" | "timeout"> {}

const MAX_MEMBERS = 200;

/** What `lab up --nodes N` is short for: a `lab.yaml` of one segment with N nodes. */
export function nodesOnOneSegment(nodes: number): object {
  const names = Array.from({ length: nodes }, (_, index) => `node${index + 1}`);
  return { kind: "Lab", segments: [{ subnet: "192.0.2.0/24", nodes: names }] };
}

/** Checks a `lab.yaml` that was read into an object. Throws `LabError` with the path of the fault. */
export function parseDefinition(input: unknown): LabDefinition {
  const root = objectAt(input, "lab");
  onlyFields(root, "lab", ["kind", "segments", "mtu", "router", "podSubnet", "podSubnet6"]);
  if (root["kind"] !== "Lab") throw fault("kind", `expected "Lab", found ${JSON.stringify(root["kind"])}`);
  const mtu = root["mtu"] ?? 1500;
  if (typeof mtu !== "number" || !Number.isInteger(mtu) || mtu < 1280 || mtu > 65535)
    throw fault("mtu", "expected 1280 to 65535");
  const router = root["router"] ?? "bgp";
  if (router !== "bgp" && router !== "none") throw fault("router", 'expected "bgp" or "none"');
  const list = root["segments"];
  if (!Array.isArray(list) || list.length === 0) throw fault("segments", "expected at least one segment");
  const segments = list.map((item: unknown, index) => parseSegment(item, `segments[${index}]`));
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
  return { segments, mtu, router, podSubnet, ...(podSubnet6 === undefined ? {} : { podSubnet6 }) };
}

export function membersOf(definition: LabDefinition, role?: Member["role"]): Member[] {
  return definition.segments
    .flatMap((segment) => segment.members)
    .filter((member) => role === undefined || member.role === role);
}

function parseSegment(input: unknown, path: string): Segment {
  const fields = objectAt(input, path);
  onlyFields(fields, path, ["subnet", "subnet6", "nodes", "hosts"]);
  const subnet = prefixAt(fields["subnet"], `${path}.subnet`, 4);
  const subnet6 = fields["subnet6"] === undefined ? undefined : prefixAt(fields["subnet6"], `${path}.subnet6`, 6);
  const nodes = namesAt(fields["nodes"], `${path}.nodes`);
  const hosts = namesAt(fields["hosts"], `${path}.hosts`);
  const all = [
    ...nodes.map((name) => ({ name, role: "node" as const })),
    ...hosts.map((name) => ({ name, role: "host" as const })),
  ];
  // The router is the first address. Members start at the eleventh where there is room: 192.0.2.11 is node1.
  const hostBits = addressBits(4) - subnet.length;
  const first = all.length + 11 <= 2 ** hostBits - 1 ? 11 : 2;
  if (all.length + first > 2 ** hostBits - 1)
    throw fault(`${path}.subnet`, `${formatPrefix(subnet)} is too small for ${all.length} members and a router`);
  // The same last digits as in IPv4, read as hex: 192.0.2.11 and 2001:db8::11.
  const offset6 = (index: number): number => Number(`0x${first + index}`);
  if (subnet6 !== undefined && prefixSize(subnet6) <= BigInt(offset6(all.length)))
    throw fault(`${path}.subnet6`, `${formatPrefix(subnet6)} is too small for ${all.length} members and a router`);
  const at = (prefix: Prefix, offset: number): InterfaceAddress => ({
    address: addressPlus(prefix.address, BigInt(offset)),
    length: prefix.length,
  });
  return {
    subnet,
    router: addressPlus(subnet.address, 1n),
    ...(subnet6 === undefined ? {} : { subnet6, router6: addressPlus(subnet6.address, 1n) }),
    members: all.map((member, index) => ({
      ...member,
      address: at(subnet, first + index),
      ...(subnet6 === undefined ? {} : { address6: at(subnet6, offset6(index)) }),
    })),
  };
}

function checkNames(segments: readonly Segment[]): void {
  const seen = new Set<string>(["router"]);
  for (const [index, segment] of segments.entries()) {
    for (const member of segment.members) {
      if (seen.has(member.name)) throw fault(`segments[${index}]`, `the name "${member.name}" is taken`);
      seen.add(member.name);
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

function namesAt(value: unknown, path: string): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw fault(path, "expected a list of names");
  return value.map((name: unknown, index) => {
    // A part of a namespace's name, and a Kubernetes node name.
    if (typeof name !== "string" || !/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(name)) {
      throw fault(
        `${path}[${index}]`,
        `${JSON.stringify(name)} is not a name of lower-case letters, digits and "-", 40 at most`,
      );
    }
    return name;
  });
}

function prefixAt(value: unknown, path: string, family: 4 | 6): Prefix {
  if (typeof value !== "string") throw fault(path, "expected a CIDR");
  let prefix: Prefix;
  try {
    prefix = parsePrefix(value);
  } catch (error) {
    throw fault(path, messageOf(error));
  }
  if (prefix.address.family !== family) throw fault(path, `expected an IPv${family} CIDR, found "${value}"`);
  return prefix;
}

function objectAt(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw fault(path, "expected an object");
  return { ...value };
}

function onlyFields(value: Record<string, unknown>, path: string, known: readonly string[]): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw fault(`${path}.${unknown}`, `unknown field; known are ${known.join(", ")}`);
}

function fault(path: string, reason: string): LabError {
  return new LabError("bad-definition", `the lab definition is not valid: ${path}: ${reason}`);
}

/**
 * Whether the text names a lab: it becomes a part of file names and of namespaces' names. With a node's longest name it
 * still fits into the path of a unix socket, which has 107 bytes.
 */
export function checkLabName(name: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$/.test(name)) {
    throw new LabError(
      "bad-definition",
      `"${name}" is not a lab's name: lower-case letters, digits and "-", 24 at most`,
    );
  }
  return name;
}

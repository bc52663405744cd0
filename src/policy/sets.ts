/** Address sets: whose addresses a selector means, where a named port is, what stands behind a service. */
import { createHash } from "node:crypto";
import type { Family } from "../ip/address.ts";
import { formatSelector, selectorId, type Labels, type Selector } from "../resources/selector.ts";
import { labelIndex, type LabelClass, type Places } from "./labelIndex.ts";
import type { Members } from "./members.naive.ts";
import { members } from "./members.ts";
import { addTo, each, removeFrom, type Multimap } from "./multimap.ts";
import { protocolName, type Endpoint, type NamedPort, type ServiceSlice } from "./model.ts";

/** What a set holds: addresses and networks, or addresses with protocol and port (`10.0.0.1,tcp:80`). */
export type SetKind = "net" | "ip,port";

export type SetSpec =
  | { readonly of: "selector"; readonly selector: Selector }
  | { readonly of: "named port"; readonly selector: Selector; readonly protocol: number; readonly port: string }
  | { readonly of: "service"; readonly service: string; readonly kind: SetKind };

/** As Calico names sets: what they are of, and a hash. The kernel's names are cut from it. */
export function setId(spec: SetSpec): string {
  if (spec.of === "selector") return idOf(spec.selector);
  if (spec.of === "service") return hashedId(spec.kind === "net" ? "svcnoport" : "svc", spec.service);
  const protocol = protocolName(spec.protocol).toLowerCase();
  return hashedId("n", `${idOf(spec.selector)},${protocol},${spec.port}`);
}

/** By the text of their selectors: tens of thousands of rules may ask for the same few. */
const selectorIds = new Map<string, string>();
const SELECTOR_IDS_MAX = 4096;

function idOf(selector: Selector): string {
  const text = formatSelector(selector);
  const known = selectorIds.get(text);
  if (known !== undefined) return known;
  if (selectorIds.size >= SELECTOR_IDS_MAX) selectorIds.clear();
  const id = selectorId(selector);
  selectorIds.set(text, id);
  return id;
}

function hashedId(prefix: string, content: string): string {
  return `${prefix}:${createHash("sha224").update(`${prefix}:${content}`).digest("base64url")}`;
}

export function setKind(spec: SetSpec): SetKind {
  if (spec.of === "service") return spec.kind;
  return spec.of === "selector" ? "net" : "ip,port";
}

/** Members are texts; `familyOfNet` tells their family. What is removed goes before what is added. */
export interface SetChange {
  readonly id: string;
  readonly kind: SetKind;
  /** `gone`: the whole set, whatever it holds. */
  readonly state: "new" | "changed" | "gone";
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

export interface AddressSets {
  setEndpoint(id: string, endpoint: Endpoint | undefined): void;
  /** The labels that endpoints have from the profile. */
  setProfile(name: string, labels: Labels | undefined): void;
  setSlice(id: string, slice: ServiceSlice | undefined): void;
  /** The set is needed once more. Returns its id. */
  retain(spec: SetSpec): string;
  /** It is needed once less. */
  release(id: string): void;
  /** What changed since it was last asked. */
  take(): SetChange[];
  /** Whether the set has the member, or a network that it is in. */
  isMember(id: string, member: string): boolean;
  /** The ids of the sets that select the endpoint. */
  setsOf(endpoint: string): readonly string[];
  /** All sets that were told, with their members. */
  told(): Map<string, { readonly kind: SetKind; readonly members: readonly string[] }>;
  /** For metrics. */
  size(): { readonly sets: number; readonly endpoints: number; readonly classes: number };
}

interface AddressSet {
  readonly id: string;
  readonly spec: SetSpec;
  readonly members: Members;
  users: number;
  isTold: boolean;
}

/** What of an endpoint becomes members. Its labels live in the label index, once for all that have the same. */
interface Item {
  /** Most have one address, and a list of one for each would take twice the room of all else here. */
  nets: string | readonly string[];
  ports: readonly NamedPort[];
  group: LabelClass<Item> | undefined;
}

/** In the items themselves. */
function placesInItems(): Places<Item> {
  let size = 0;
  return {
    get: (item) => item.group,
    set(item, group) {
      if (item.group === undefined) size += 1;
      item.group = group;
    },
    delete(item) {
      if (item.group === undefined) return false;
      item.group = undefined;
      size -= 1;
      return true;
    },
    get size() {
      return size;
    },
  };
}

const NO_PORTS: readonly NamedPort[] = [];
const PORT_LISTS_MAX = 10_000;

export function addressSets(): AddressSets {
  const sets = new Map<string, AddressSet>();
  const dirty = new Set<AddressSet>();
  const items = new Map<string, Item>();
  /** The sets that ask for a selector, by its id in the index. */
  const bySelector: Multimap<AddressSet> = new Map();
  const slices = new Map<string, ServiceSlice>();
  const slicesOf: Multimap<ServiceSlice> = new Map();
  const setsOf: Multimap<AddressSet> = new Map();

  const index = labelIndex<Item>(
    {
      started: (item, selector) => eachMember(item, selector, "add"),
      stopped: (item, selector) => eachMember(item, selector, "remove"),
    },
    { places: placesInItems() },
  );

  /** One list for all that are equal: most endpoints have the ports of many others. */
  const portLists = new Map<string, readonly NamedPort[]>();
  function samePorts(ports: readonly NamedPort[]): readonly NamedPort[] {
    if (ports.length === 0) return NO_PORTS;
    let key = "";
    for (const { name, protocol, port } of ports) key += `${name} ${protocol} ${port},`;
    const known = portLists.get(key);
    if (known !== undefined) return known;
    // A cluster has few of them; where it does not, they are not worth keeping.
    if (portLists.size >= PORT_LISTS_MAX) portLists.clear();
    portLists.set(key, ports);
    return ports;
  }

  function eachMember(item: Item, selector: string, change: "add" | "remove"): void {
    for (const set of each(bySelector.get(selector))) {
      const { spec, members: of } = set;
      if (spec.of !== "named port" && typeof item.nets === "string") of[change](item.nets);
      else for (const member of membersOf(item, spec)) of[change](member);
      dirty.add(set);
    }
  }

  function changeSlice(slice: ServiceSlice, change: "add" | "remove"): void {
    for (const set of each(setsOf.get(slice.service))) {
      for (const member of sliceMembers(slice, setKind(set.spec))) set.members[change](member);
      dirty.add(set);
    }
  }

  function start(set: AddressSet): void {
    const { spec } = set;
    if (spec.of === "service") {
      addTo(setsOf, spec.service, set);
      for (const slice of each(slicesOf.get(spec.service))) {
        for (const member of sliceMembers(slice, spec.kind)) set.members.add(member);
      }
      return;
    }
    const key = idOf(spec.selector);
    const isFirst = !bySelector.has(key);
    addTo(bySelector, key, set);
    if (isFirst) return index.addSelector(key, spec.selector);
    // The index tells nothing anew for a selector that it has.
    for (const item of index.itemsOf(key)) {
      for (const member of membersOf(item, spec)) set.members.add(member);
    }
  }

  function stop(set: AddressSet): void {
    sets.delete(set.id);
    if (set.spec.of === "service") return removeFrom(setsOf, set.spec.service, set);
    const key = idOf(set.spec.selector);
    removeFrom(bySelector, key, set);
    if (!bySelector.has(key)) index.removeSelector(key);
  }

  return {
    setEndpoint(id, endpoint) {
      const item = items.get(id);
      if (endpoint === undefined) {
        if (item !== undefined) index.delete(item);
        items.delete(id);
        return;
      }
      const nets = endpoint.nets.length === 1 ? endpoint.nets[0]! : endpoint.nets;
      const ports = samePorts(endpoint.ports);
      if (item === undefined) {
        const made: Item = { nets, ports, group: undefined };
        items.set(id, made);
        index.set(made, endpoint.labels, endpoint.profiles);
        return;
      }
      // With other addresses, every set must see the old ones go and the new ones come.
      if (item.ports !== ports || !sameNets(item.nets, nets)) index.delete(item);
      item.nets = nets;
      item.ports = ports;
      index.set(item, endpoint.labels, endpoint.profiles);
    },
    setProfile: (name, labels) => index.setParent(name, labels),
    setSlice(id, slice) {
      const before = slices.get(id);
      if (before !== undefined) {
        removeFrom(slicesOf, before.service, before);
        changeSlice(before, "remove");
      }
      slices.delete(id);
      if (slice === undefined) return;
      slices.set(id, slice);
      addTo(slicesOf, slice.service, slice);
      changeSlice(slice, "add");
    },
    retain(spec) {
      const id = setId(spec);
      let set = sets.get(id);
      if (set === undefined) {
        set = { id, spec, members: members(), users: 0, isTold: false };
        sets.set(id, set);
        start(set);
      }
      set.users += 1;
      dirty.add(set);
      return id;
    },
    release(id) {
      const set = sets.get(id);
      if (set === undefined) return;
      set.users -= 1;
      // It goes when changes are taken: until then it may be needed again.
      dirty.add(set);
    },
    take() {
      const changes: SetChange[] = [];
      for (const set of dirty) {
        const { id, spec, isTold } = set;
        const kind = setKind(spec);
        if (set.users === 0) {
          stop(set);
          if (isTold) changes.push({ id, kind, state: "gone", added: [], removed: [] });
          continue;
        }
        const { added, removed } = set.members.take();
        set.isTold = true;
        if (isTold && added.length + removed.length === 0) continue;
        changes.push({ id, kind, state: isTold ? "changed" : "new", added, removed });
      }
      dirty.clear();
      return changes;
    },
    isMember: (id, member) => sets.get(id)?.members.covers(member) ?? false,
    setsOf(endpoint) {
      const item = items.get(endpoint);
      const selectors = item === undefined ? [] : index.matchesOf(item);
      return selectors.flatMap((selector) => [...each(bySelector.get(selector))].map(({ id }) => id));
    },
    told: () =>
      new Map(
        [...sets.values()]
          .filter(({ isTold }) => isTold)
          .map(({ id, spec, members: of }) => [id, { kind: setKind(spec), members: of.told() }]),
      ),
    size: () => ({ sets: sets.size, endpoints: items.size, classes: index.size().classes }),
  };
}

/** The members that an endpoint brings to a set that means it. */
function membersOf({ nets, ports }: Item, spec: SetSpec): Iterable<string> {
  const list = typeof nets === "string" ? [nets] : nets;
  return spec.of === "named port" ? portMembers(list, ports, spec) : list;
}

function* portMembers(
  nets: readonly string[],
  ports: readonly NamedPort[],
  spec: Extract<SetSpec, { of: "named port" }>,
): Generator<string> {
  for (const { name, protocol, port } of ports) {
    if (name !== spec.port || protocol !== spec.protocol) continue;
    for (const net of nets) if (!net.includes("/")) yield portMember(net, protocol, port);
  }
}

function* sliceMembers({ addresses, ports }: ServiceSlice, kind: SetKind): Generator<string> {
  if (kind === "net") return yield* addresses;
  for (const address of addresses) for (const { protocol, port } of ports) yield portMember(address, protocol, port);
}

/** `10.0.0.1,tcp:80`, as ipset writes it. */
export function portMember(address: string, protocol: number, port: number): string {
  return `${address},${protocolName(protocol).toLowerCase()}:${port}`;
}

const DOT = 0x2e;
const COLON = 0x3a;

/** The family of a member of either kind: an address has either dots or, before them, colons. */
export function memberFamily(member: string): Family {
  for (let at = 0; at < member.length; at += 1) {
    const code = member.charCodeAt(at);
    if (code === DOT) return 4;
    if (code === COLON) return 6;
  }
  return 4;
}

function sameNets(a: Item["nets"], b: Item["nets"]): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.length === b.length && a.every((net, at) => net === b[at]);
}

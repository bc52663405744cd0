/** Address sets as sets of nf_tables: single addresses and networks apart. */
import type { Family } from "../ip/address.ts";
import { netText } from "../policy/model.ts";
import { memberFamily, type SetChange } from "../policy/sets.ts";
import type { KeptSet, KeptSetChange } from "./keptTable.ts";
import { endpointsForm, hostsForm, isNetwork, netsForm, type SetForm, type SetShape } from "./nftSets.ts";

export interface NftAddressSets {
  /**
   * Takes the change in, and puts what it means for the kernel's sets under their names. Says whether the set's shape is
   * another now, so that rules which look at it must be written anew.
   */
  change(change: SetChange, into: Map<string, KeptSetChange | undefined>): boolean;
  /**
   * To be called after changes: empty sets come or go with the family's pools. Returns the ids of those whose shape is
   * another now.
   */
  followPools(into: Map<string, KeptSetChange | undefined>): readonly string[];
  /** Undefined where there is no such set. */
  shapeOf(id: string): SetShape | undefined;
}

interface Half {
  readonly form: SetForm;
  readonly members: Set<string>;
}

interface AddressSet {
  readonly hosts: Half;
  /** Sets of endpoints have none. */
  readonly nets: Half | undefined;
}

/** All pools (Felix's `network-ip-pools`). */
const POOLS = "network-ip-pools";

/**
 * A family without any pool has no pods, as a rule. An empty set is left out there, and with it what asks for its members:
 * else a cluster of IPv4 alone would have thousands of rules, and as many empty sets, for IPv6.
 */
export function nftAddressSets(family: Family): NftAddressSets {
  const sets = new Map<string, AddressSet>();
  let hasPools = true;

  function make({ id, kind }: SetChange): AddressSet {
    const half = (form: SetForm): Half => ({ form, members: new Set() });
    if (kind === "ip,port") return { hosts: half(endpointsForm(family, id)), nets: undefined };
    return { hosts: half(hostsForm(family, id)), nets: half(netsForm(family, id)) };
  }

  function shape(set: AddressSet | undefined): SetShape {
    if (set === undefined) return { hosts: false, nets: false };
    const nets = set.nets !== undefined && set.nets.members.size > 0;
    return { hosts: (!nets && hasPools) || set.hosts.members.size > 0, nets };
  }

  return {
    shapeOf: (id) => {
      const set = sets.get(id);
      return set && shape(set);
    },
    change(change, into) {
      const { id, state } = change;
      const known = sets.get(id);
      const before = shape(known);
      const set = known ?? make(change);
      const added = halves(change.added, family);
      // A set that is said to be new has no more than what is said with it.
      const removed = state === "new" ? allBut(set, added) : halves(change.removed, family);
      if (state === "gone") sets.delete(id);
      else sets.set(id, set);
      const hosts = update(set.hosts, added.hosts, removed.hosts);
      const nets = set.nets && update(set.nets, added.nets, removed.nets);
      const after = shape(sets.get(id));
      tell(set.hosts, before.hosts, after.hosts, hosts, into);
      if (set.nets !== undefined && nets !== undefined) tell(set.nets, before.nets, after.nets, nets, into);
      return before.hosts !== after.hosts || before.nets !== after.nets;
    },
    followPools(into) {
      const pools = sets.get(POOLS);
      const had = hasPools;
      hasPools = pools === undefined || !isEmpty(pools);
      if (hasPools === had) return [];
      return [...sets].flatMap(([id, set]) => {
        if (!isEmpty(set)) return [];
        tell(set.hosts, had, hasPools, { added: [], removed: [] }, into);
        return [id];
      });
    },
  };
}

interface Halves {
  readonly hosts: string[];
  readonly nets: string[];
}

/** The members of the family, of which there may be a quarter of a million. A network of one is its address. */
function halves(members: readonly string[], family: Family): Halves {
  const all: Halves = { hosts: [], nets: [] };
  for (const member of members) {
    if (memberFamily(member) !== family) continue;
    const canonical = isNetwork(member) ? netText(member) : member;
    (isNetwork(canonical) ? all.nets : all.hosts).push(canonical);
  }
  return all;
}

const isEmpty = ({ hosts, nets }: AddressSet): boolean => hosts.members.size + (nets?.members.size ?? 0) === 0;

function allBut({ hosts, nets }: AddressSet, added: Halves): Halves {
  const without = (members: ReadonlySet<string>, stay: readonly string[]): string[] =>
    members.size === 0 ? [] : [...members.difference(new Set(stay))];
  return { hosts: without(hosts.members, added.hosts), nets: without(nets?.members ?? new Set(), added.nets) };
}

type Update = Pick<KeptSetChange, "added" | "removed">;

/** What is removed goes before what is added. Returns what was not so before. */
function update({ members }: Half, added: readonly string[], removed: readonly string[]): Update {
  const gone = removed.filter((member) => members.delete(member));
  const fresh = added.filter((member) => {
    const { size } = members;
    return members.add(member).size > size;
  });
  return { added: fresh, removed: gone };
}

function tell(
  half: Half,
  wasThere: boolean,
  isThere: boolean,
  { added, removed }: Update,
  into: Map<string, KeptSetChange | undefined>,
): void {
  const { name } = half.form.nft;
  const set: KeptSet = half;
  if (!isThere) {
    if (wasThere) into.set(name, undefined);
  } else if (!wasThere) into.set(name, { set, added: [...half.members], removed: [] });
  else if (added.length + removed.length > 0) into.set(name, { set, added, removed });
}

/** Changes of address sets that wait to be told, and the sets whose members are facts of the cluster. */
import { networkOf, parseInterfaceAddress } from "../ip/prefix.ts";
import { members } from "../policy/members.ts";
import { familyOfNet, formatNet } from "../policy/model.ts";
import type { SetChange } from "../policy/sets.ts";
import type { NodeFacts } from "./nodeFacts.ts";

export interface SetChanges {
  add(change: SetChange): void;
  take(): SetChange[];
  /** The set goes with what waits here: it cannot come again in the same change. */
  isGoing(id: string): boolean;
}

/** Several changes of one set become one. */
export function setChanges(): SetChanges {
  const waiting = new Map<string, SetChange>();
  return {
    add(change) {
      const before = waiting.get(change.id);
      const both = before === undefined ? change : merged(before, change);
      if (both === undefined) waiting.delete(change.id);
      else waiting.set(change.id, both);
    },
    take() {
      const changes = [...waiting.values()];
      waiting.clear();
      return changes;
    },
    isGoing: (id) => waiting.get(id)?.state === "gone",
  };
}

function merged(before: SetChange, after: SetChange): SetChange | undefined {
  // Nobody has heard of it.
  if (after.state === "gone") return before.state === "new" ? undefined : after;
  const [added, removed] = [new Set(before.added), new Set(before.removed)];
  for (const member of after.removed) if (!added.delete(member)) removed.add(member);
  for (const member of after.added) if (!removed.delete(member)) added.add(member);
  return { ...before, added: [...added], removed: [...removed] };
}

type FactSet = (facts: NodeFacts) => readonly string[];

/** By Calico's names. A disabled pool is still inside: its addresses are not translated. */
const FACT_SETS: Readonly<Record<string, FactSet>> = {
  "all-hosts-net": ({ hosts }) => hosts,
  "all-vxlan-net": ({ vxlanHosts }) => vxlanHosts,
  "masq-ipam-pools": ({ pools }) =>
    pools.filter((pool) => pool.natOutgoing && !pool.disabled && !pool.isLoadBalancer).map(({ cidr }) => cidr),
  "network-ip-pools": ({ pools }) => pools.filter(({ isLoadBalancer }) => !isLoadBalancer).map(({ cidr }) => cidr),
};

/** What changed in these sets since it was last asked. */
export function factSets(): (facts: NodeFacts) => SetChange[] {
  const sets = Object.entries(FACT_SETS).map(([id, of]) => {
    return { id, of, known: new Set<string>(), members: members(), isNew: true };
  });
  return (facts) =>
    sets.flatMap((set): SetChange[] => {
      // Thousands of nodes, of which one changed: only what differs is read.
      const now = new Set(set.of(facts));
      for (const net of set.known) if (!now.has(net)) set.members.remove(canonical(net));
      for (const net of now) if (!set.known.has(net)) set.members.add(canonical(net));
      set.known = now;
      const { added, removed } = set.members.take();
      const state = set.isNew ? "new" : "changed";
      if (!set.isNew && added.length + removed.length === 0) return [];
      set.isNew = false;
      return [{ id: set.id, kind: "net", state, added, removed }];
    });
}

function canonical(net: string): string {
  const text = net.includes("/") ? net : `${net}/${familyOfNet(net) === 4 ? 32 : 128}`;
  const { address, length } = parseInterfaceAddress(text);
  return formatNet(networkOf(address, length));
}

/** When which node is looked at: soon when it is new or has moved, often where something is wrong, seldom otherwise. */
export interface CheckPlan {
  /** These are the other nodes now, each with where it is: who is new, or somewhere else, is due soon. */
  setNodes(nodes: ReadonlyMap<string, string>, now: number): void;
  /** The node that is due, which counts as being looked at from then on; undefined while nobody is. */
  take(now: number): string | undefined;
  /** A node was looked at. */
  done(node: string, isWell: boolean, now: number): void;
  /** When somebody will be due; undefined where there is nobody. */
  nextAt(): number | undefined;
}

export interface CheckPlanOptions {
  /** How often a node is looked at that is well. Milliseconds. */
  readonly intervalMs: number;
  /** From 0 up to 1: nodes must not look at each other in step. */
  readonly random: () => number;
}

/** However many nodes there are, one of them is looked at in this time on average, and no two are in less than that. */
const EACH_MS = 500;
const SPACING_MS = 50;
/** Where something is wrong people wait for it to be right. */
const UNWELL_SHARE = 0.25;
const UNWELL_LEAST_MS = 3000;
/** A node that is new has to set itself up first. */
const SETTLE_MS = 1000;

export function createCheckPlan({ intervalMs, random }: CheckPlanOptions): CheckPlan {
  interface Entry {
    where: string;
    /** Infinity while it is being looked at. */
    due: number;
    /** It moved while it was being looked at. */
    again: boolean;
  }
  const entries = new Map<string, Entry>();
  let notBefore = 0;

  const period = (): number => Math.max(intervalMs, entries.size * EACH_MS);
  /** A whole cluster that starts at once spreads its first looks. */
  const soon = (now: number): number =>
    now + SETTLE_MS + random() * Math.min(intervalMs, SETTLE_MS + entries.size * EACH_MS * UNWELL_SHARE);

  return {
    setNodes(nodes, now) {
      for (const name of entries.keys()) if (!nodes.has(name)) entries.delete(name);
      const moved: Entry[] = [];
      for (const [name, where] of nodes) {
        const entry = entries.get(name) ?? { where: "", due: 0, again: false };
        if (entry.where === where && entries.has(name)) continue;
        entries.set(name, entry);
        entry.where = where;
        moved.push(entry);
      }
      for (const entry of moved) {
        if (entry.due === Infinity) entry.again = true;
        else entry.due = soon(now);
      }
    },
    take(now) {
      if (now < notBefore) return undefined;
      for (const [name, entry] of entries) {
        if (entry.due > now) continue;
        entry.due = Infinity;
        entry.again = false;
        notBefore = now + SPACING_MS;
        return name;
      }
      return undefined;
    },
    done(node, isWell, now) {
      const entry = entries.get(node);
      if (entry === undefined) return;
      const wait = isWell ? period() : Math.max(Math.min(intervalMs, UNWELL_LEAST_MS), period() * UNWELL_SHARE);
      entry.due = entry.again ? soon(now) : now + wait * (0.75 + random() / 2);
    },
    nextAt() {
      let next = Infinity;
      for (const { due } of entries.values()) next = Math.min(next, due);
      return next === Infinity ? undefined : Math.max(next, notBefore);
    },
  };
}

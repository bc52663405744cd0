/** The address sets of one family, through `ipset restore` and `ipset save`. */
import type { Family } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import { memberFamily, type SetChange, type SetKind } from "../policy/sets.ts";
import { runTool } from "./hostTool.io.ts";
import { createLine, ipsetMembers, isSimpleMember, parseIpsetSave } from "./ipsetText.ts";
import { isOurSet, setName, temporarySetName } from "./iptablesNames.ts";

export interface IpsetOptions {
  readonly family: Family;
  readonly namespace?: string;
  readonly commandTimeout: number;
  readonly maxSetSize: number;
}

export interface KernelSets {
  /** Notes what is to be; `write` does it. */
  change(changes: readonly SetChange[]): void;
  /** Compares with what is there. Says what differed; `write` and `destroyGone` put it right. */
  compare(): Promise<string[]>;
  /** Makes sets and adds members. Resolves with the sets, by id, that could not be, and why. */
  write(): Promise<ReadonlyMap<string, string>>;
  /**
   * Takes out the members that have to go, after `write` and the rules: who moves from one set to another is in both for
   * a while, and never in none. Resolves as `write` does.
   */
  prune(): Promise<ReadonlyMap<string, string>>;
  /** Removes the sets that nobody looks at any more. Those that the kernel still holds are kept for another time. */
  destroyGone(): Promise<void>;
  /** Names of sets that are still to be removed. */
  gone(): readonly string[];
  /** Removes all sets of ours, as far as nobody looks at them. Resolves with those that are left. */
  removeAll(): Promise<readonly string[]>;
}

interface DesiredSet {
  readonly name: string;
  readonly kind: SetKind;
  readonly members: Set<string>;
  /** What the kernel's has room for; 0 where there is none yet. */
  maxSize: number;
}

interface Line {
  readonly text: string;
  readonly name: string;
}

export function ipsets({ family, namespace, commandTimeout, maxSetSize }: IpsetOptions): KernelSets {
  const sets = new Map<string, DesiredSet>();
  /** Written by `write`, in this order. */
  let pending: Line[] = [];
  /** Written by `prune`. */
  let leaving: Line[] = [];
  /** With the room that they have; undefined where they are of no kind that we make. */
  const gone = new Map<string, number | undefined>();
  /** Names of sets whose content is not known: nothing is written there before the next comparison. */
  const broken = new Set<string>();
  let temporary = 0;
  const within = namespace === undefined ? {} : { namespace };

  const roomFor = (size: number): number => {
    let room = maxSetSize;
    while (room < size) room *= 2;
    return room;
  };

  /** @param known what the kernel has; undefined: no such set */
  function fill(set: DesiredSet, known: ReadonlySet<string> | undefined): void {
    const wanted = ipsetMembers(family, set.members);
    const push = (text: string): void => void pending.push({ text, name: set.name });
    const fresh = [...wanted].filter((member) => known?.has(member) !== true);
    if (known === undefined || known.size + fresh.length > set.maxSize) {
      const isNew = known === undefined;
      const name = isNew ? set.name : temporarySetName(family, temporary++);
      set.maxSize = roomFor(wanted.size);
      push(createLine(name, family, set));
      if (!isNew) push(`flush ${name}`);
      for (const member of wanted) push(`add ${name} ${member}`);
      if (isNew) return;
      push(`swap ${name} ${set.name}`);
      push(`destroy ${name}`);
      return;
    }
    for (const member of fresh) push(`add ${set.name} ${member}`);
    for (const member of known) if (!wanted.has(member)) leave(set.name, member);
  }
  const leave = (name: string, member: string): void => void leaving.push({ text: `del ${name} ${member}`, name });

  function changeOne({ id, kind, state, added, removed }: SetChange): void {
    const name = setName(family, id);
    const present = sets.get(id);
    if (state === "gone") {
      if (present === undefined) return;
      sets.delete(id);
      pending = pending.filter((line) => line.name !== name);
      leaving = leaving.filter((line) => line.name !== name);
      if (present.maxSize > 0) gone.set(name, present.maxSize);
      return;
    }
    const set = present ?? { name, kind, members: new Set<string>(), maxSize: 0 };
    sets.set(id, set);
    const ours = (members: readonly string[]): string[] => members.filter((member) => memberFamily(member) === family);
    const [add, remove] = [ours(added), ours(removed)];
    const isSimple = present !== undefined && [...add, ...remove].every(isSimpleMember);
    // What goes stays for a while beside what comes.
    const isRoomy = present !== undefined && set.members.size + add.length <= set.maxSize;
    const before = (isSimple && isRoomy) || present === undefined ? undefined : ipsetMembers(family, set.members);
    for (const member of remove) set.members.delete(member);
    for (const member of add) set.members.add(member);
    if (broken.has(name)) return;
    if (present === undefined) {
      const isThere = gone.has(name);
      set.maxSize = gone.get(name) ?? 0;
      gone.delete(name);
      // Nobody looks at a set that was on its way out. What is in it is not known any more.
      if (isThere) pending.push({ text: `${set.maxSize > 0 ? "flush" : "destroy"} ${name}`, name });
      return fill(set, set.maxSize > 0 ? new Set() : undefined);
    }
    if (before !== undefined) return fill(set, before);
    for (const member of remove) leave(name, member);
    for (const member of add) pending.push({ text: `add ${name} ${member}`, name });
  }

  /** Carries the lines out, but for those of sets that are refused. Resolves with these, by name, and why. */
  async function run(lines: readonly Line[]): Promise<Map<string, string>> {
    const failed = new Map<string, string>();
    let left = lines;
    while (left.length > 0) {
      const input = `${left.map(({ text }) => text).join("\n")}\n`;
      // With -exist, what was done before the line at fault may be done once more.
      const command = ["ipset", "-exist", "restore"] as const;
      const { code, errors } = await runTool({ command, input, timeout: commandTimeout, ...within });
      if (code === 0) break;
      const at = left[Number(/Error in line (\d+)/.exec(errors)?.[1] ?? 0) - 1];
      if (at === undefined) {
        for (const [name, reason] of await runHalves(left, errors)) failed.set(name, reason);
        break;
      }
      failed.set(at.name, `${errors} (${at.text})`);
      left = left.filter(({ name }) => name !== at.name);
    }
    return failed;
  }

  /** Of what it cannot read ipset does not say the line. */
  async function runHalves(lines: readonly Line[], errors: string): Promise<Map<string, string>> {
    if (!errors.includes("Syntax error")) throw new Failure("ipset-failed", `Cannot change address sets: ${errors}`);
    const names = [...new Set(lines.map(({ name }) => name))];
    const [only, second] = names;
    if (only === undefined || second === undefined) return new Map([[only ?? "", errors]]);
    const first = new Set(names.slice(0, names.length >> 1));
    return new Map([
      ...(await run(lines.filter(({ name }) => first.has(name)))),
      ...(await run(lines.filter(({ name }) => !first.has(name)))),
    ]);
  }

  async function load(): Promise<ReturnType<typeof parseIpsetSave>> {
    const { code, output, errors } = await runTool({ command: ["ipset", "save"], timeout: commandTimeout, ...within });
    if (code !== 0) throw new Failure("ipset-failed", `Cannot list address sets: ${errors}`);
    return parseIpsetSave(output, (name) => isOurSet(family, name));
  }

  async function carryOut(lines: readonly Line[]): Promise<ReadonlyMap<string, string>> {
    const failed = await run(lines);
    for (const name of failed.keys()) broken.add(name);
    return new Map([...sets].flatMap(([id, { name }]) => (failed.has(name) ? [[id, failed.get(name)!]] : [])));
  }

  async function destroyGone(): Promise<void> {
    const lines = [...gone.keys()].map((name) => ({ text: `destroy ${name}`, name }));
    const failed = await run(lines);
    for (const { name } of lines) if (!failed.has(name)) gone.delete(name);
  }

  return {
    change: (changes) => changes.forEach(changeOne),
    async compare() {
      const actual = await load();
      const differences: string[] = [];
      pending = [];
      leaving = [];
      broken.clear();
      for (const set of sets.values()) {
        const { name, kind } = set;
        const there = actual.get(name);
        gone.delete(name);
        actual.delete(name);
        const isUsable = there !== undefined && there.kind === kind && there.family === family;
        if (there !== undefined && !isUsable) pending.push({ text: `destroy ${name}`, name });
        set.maxSize = isUsable ? there.maxSize : 0;
        const before = pending.length + leaving.length;
        fill(set, isUsable ? there.members : undefined);
        const changed = pending.length + leaving.length - before;
        if (there === undefined) differences.push(`set ${name} was removed`);
        else if (!isUsable) differences.push(`set ${name} was of another kind`);
        else if (changed > 0) differences.push(`set ${name} differed by ${changed} members`);
      }
      for (const [name, there] of actual) {
        if (!gone.has(name)) differences.push(`set ${name} is not wanted`);
        gone.set(name, there.kind === undefined ? undefined : there.maxSize);
      }
      for (const name of gone.keys()) if (!actual.has(name)) gone.delete(name);
      return differences;
    },
    write() {
      const lines = pending;
      pending = [];
      return carryOut(lines);
    },
    prune() {
      const lines = leaving.filter(({ name }) => !broken.has(name));
      leaving = [];
      return carryOut(lines);
    },
    destroyGone,
    gone: () => [...gone.keys()],
    async removeAll() {
      sets.clear();
      pending = [];
      leaving = [];
      gone.clear();
      for (const name of (await load()).keys()) gone.set(name, undefined);
      await destroyGone();
      return [...gone.keys()];
    },
  };
}

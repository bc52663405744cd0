/** The tables of one family through iptables-save and iptables-restore, kept as a model wants them. */
import { hash } from "node:crypto";
import { Failure } from "../lib/errors.ts";
import { runTool } from "./hostTool.io.ts";
import type { DesiredTable, IptablesModel } from "./iptablesModel.ts";
import { isOurChain } from "./iptablesNames.ts";
import {
  actualTable,
  allNames,
  describePlan,
  isEmpty,
  noteDone,
  planTable,
  restoreText,
  type ActualTable,
  type InsertMode,
  type TablePlan,
} from "./iptablesPlan.ts";
import { droppingLines, rendered, type RenderedChain } from "./iptablesRender.ts";
import { LAYERS, parseIptablesSave, type SavedTables } from "./iptablesSave.ts";
import type { Layer } from "./ruleset.ts";

export interface TablesOptions {
  /** `iptables-nft`: what `-save` and `-restore` are appended to. */
  readonly tool: string;
  readonly namespace?: string;
  readonly lockTimeout: number;
  readonly commandTimeout: number;
  readonly mode: InsertMode;
  /** Does the writing; absent: nobody wants to know. */
  readonly during?: <Result>(writing: () => Promise<Result>) => Promise<Result>;
}

export interface KernelTables {
  /** Writes what the model changed; everything that differs after `compare`, `forget` and at first. */
  write(): Promise<void>;
  /** Reads the tables, and says what others changed. */
  compare(): Promise<string[]>;
  /** What is known of the tables is in doubt. */
  forget(): void;
  isKnown(): boolean;
  save(): Promise<SavedTables>;
  /** Takes all of ours out. Resolves with what could not be, as `<layer>/<chain>`. */
  removeAll(): Promise<readonly string[]>;
}

type Tables = Record<Layer, ActualTable>;
type Outcome = { readonly done: true } | { readonly done: false; readonly reason: string };

/** So often what was refused is replaced, and what differs written anew. */
const ROUNDS_MAX = 5;

/** Characters of a line that is at fault. */
const SHOWN_MAX = 300;

/** A table in which nothing of ours is wanted. */
const NOTHING: DesiredTable = { chains: new Map(), hooks: new Map() };

export function kernelTables(model: IptablesModel, options: TablesOptions): KernelTables {
  const { tool, lockTimeout, commandTimeout, mode, during = (writing) => writing() } = options;
  const within = options.namespace === undefined ? {} : { namespace: options.namespace };
  /** Undefined where it is not known. */
  let actual: Tables | undefined;
  let isCompared = false;
  /** Of chains as the kernel prints them, to see where somebody replaced a rule and kept its mark. */
  const seen = new Map<string, string>();

  async function save(): Promise<SavedTables> {
    const command = [`${tool}-save`, "-c"] as const;
    const { code, output, errors } = await runTool({ command, timeout: commandTimeout, ...within });
    if (code !== 0) throw new Failure("iptables-failed", `Cannot list rules with ${tool}: ${errors}`);
    return parseIptablesSave(output);
  }

  async function load(): Promise<Tables> {
    const saved = await save();
    const tables = Object.fromEntries(LAYERS.map((layer) => [layer, actualTable(saved[layer])])) as Tables;
    for (const layer of LAYERS) noteReplaced(layer, saved, tables[layer]);
    actual = tables;
    return tables;
  }

  function noteReplaced(layer: Layer, saved: SavedTables, table: ActualTable): void {
    for (const [name, rules] of saved[layer]) {
      if (!isOurChain(name)) continue;
      const key = `${layer}/${name}`;
      const text = hash("sha256", rules.map((rule) => rule.options).join("\n"), "base64url");
      if ((seen.get(key) ?? text) === text) seen.set(key, text);
      else table.chains.set(name, ["replaced"]);
    }
  }

  async function restore(input: string): Promise<Outcome> {
    const command = [`${tool}-restore`, "--noflush", `--wait=${lockTimeout}`] as const;
    const { code, errors } = await during(() => runTool({ command, input, timeout: commandTimeout, ...within }));
    if (code === 0) return { done: true };
    const line = input.split("\n")[Number(/line:? (\d+)/.exec(errors)?.[1] ?? 0) - 1];
    const reason = errors.replaceAll(/ (Error occurred at line: \d+|Try `.*? for more information\.)/g, "");
    return { done: false, reason: line === undefined ? reason : `${reason} (${line.slice(0, SHOWN_MAX)})` };
  }

  /** Where not even nothing can be written, the rules are not at fault. */
  async function requireTable(layer: Layer): Promise<void> {
    const outcome = await restore(`*${layer}\nCOMMIT\n`);
    if (!outcome.done) throw failed(layer, outcome.reason);
  }

  function failed(layer: Layer, reason: string): Failure<"iptables-failed"> {
    return new Failure("iptables-failed", `Cannot write the table ${layer} with ${tool}: ${reason}`);
  }

  function plansFor(tables: Tables, wanted: (layer: Layer) => DesiredTable, names: Names): TablePlan[] {
    return LAYERS.map((layer) =>
      planTable(layer, wanted(layer), tables[layer], names(layer, wanted(layer), tables[layer]), mode),
    ).filter((plan) => !isEmpty(plan));
  }

  type Names = (layer: Layer, desired: DesiredTable, table: ActualTable) => Iterable<string>;
  const fromModel = (layer: Layer): DesiredTable => model.tables[layer];
  const all: Names = (_, desired, table) => allNames(desired, table);

  function note(plan: TablePlan, table: ActualTable): void {
    noteDone(plan, table, mode);
    for (const { name } of plan.writes) seen.delete(`${plan.layer}/${name}`);
  }

  /** Mostly this one call is all there is to it. */
  async function write(): Promise<void> {
    const tables = actual ?? (await load());
    const changed = model.takeChanged();
    const plans = plansFor(tables, fromModel, isCompared ? (layer) => changed.get(layer) ?? [] : all);
    isCompared = true;
    if (plans.length === 0) return;
    const outcome = await restore(plans.map((plan) => restoreText(plan, mode)).join(""));
    if (!outcome.done) return void (await writeOneByOne(fromModel));
    for (const plan of plans) note(plan, tables[plan.layer]);
  }

  /**
   * Others may have changed what was thought to be there; where it is not that, the kernel refuses something of ours.
   * Resolves with what can be neither written nor removed.
   */
  async function writeOneByOne(wanted: (layer: Layer) => DesiredTable): Promise<ReadonlySet<string>> {
    const stuck = new Set<string>();
    const left: Names = (layer, desired, table) =>
      [...allNames(desired, table)].filter((name) => !stuck.has(`${layer}/${name}`));
    let reason = "";
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      const tables = await load();
      model.takeChanged();
      const plans = plansFor(tables, wanted, left);
      if (plans.length === 0) return stuck;
      for (const plan of plans) reason = await narrow(plan, tables[plan.layer], stuck);
    }
    throw new Failure("iptables-failed", `Cannot bring the rules into ${tool}: it goes on refusing. ${reason}`);
  }

  /**
   * Carries the plan out. Where it is refused, finds out by halves what is at fault, carries out the rest, and has the
   * model put something else in place of that. Resolves with the last reason.
   */
  async function narrow(plan: TablePlan, table: ActualTable, stuck: Set<string>): Promise<string> {
    const { layer, writes, hooks, removals } = plan;
    let reason = "";
    const attempt = async (some: Partial<TablePlan>): Promise<boolean> => {
      const part: TablePlan = { layer, writes: [], hooks: [], removals: [], ...some };
      if (isEmpty(part)) return true;
      const outcome = await restore(restoreText(part, mode));
      if (outcome.done) note(part, table);
      else reason = outcome.reason;
      return outcome.done;
    };
    const writeHalves = async (chains: readonly RenderedChain[]): Promise<void> => {
      if (await attempt({ writes: chains })) return;
      const [only, second] = chains;
      if (only !== undefined && second === undefined) return void model.refuse(layer, only.name, reason);
      await writeHalves(chains.slice(0, chains.length >> 1));
      await writeHalves(chains.slice(chains.length >> 1));
    };
    if (await attempt(plan)) return reason;
    await requireTable(layer);
    // The chains that rules of others name must be there. Until they have their rules, they drop.
    const missing = writes.filter(({ name }) => !table.chains.has(name));
    const declared = missing.map(({ name }) => rendered(layer, name, droppingLines(layer)));
    if (!(await attempt({ writes: declared }))) throw failed(layer, reason);
    await writeHalves(writes);
    for (const hook of hooks) {
      if (await attempt({ hooks: [hook] })) continue;
      if (!model.refuse(layer, hook.hook, reason)) stuck.add(`${layer}/${hook.hook}`);
    }
    for (const name of await inAnyOrder(removals, (one) => attempt({ removals: [one] }))) stuck.add(`${layer}/${name}`);
    return reason;
  }

  return {
    write,
    async compare() {
      isCompared = false;
      const tables = await load();
      return plansFor(tables, fromModel, all).flatMap((plan) => describePlan(plan, tables[plan.layer]));
    },
    forget() {
      actual = undefined;
      isCompared = false;
    },
    isKnown: () => actual !== undefined,
    save,
    async removeAll() {
      seen.clear();
      isCompared = false;
      return [...(await writeOneByOne(() => NOTHING))];
    },
  };
}

/** A chain can go when no other leads to it. Resolves with those that cannot. */
async function inAnyOrder(names: readonly string[], remove: (name: string) => Promise<boolean>): Promise<string[]> {
  let left = [...names];
  for (;;) {
    const stayed: string[] = [];
    for (const name of left) if (!(await remove(name))) stayed.push(name);
    if (stayed.length === left.length) return stayed;
    left = stayed;
  }
}

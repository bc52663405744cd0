/** `caracal ipam show` and `caracal ipam check`. */
import type { Datastore } from "../datastore/datastore.ts";
import { parseAddress } from "../ip/address.ts";
import { checkIpam } from "../ipam/check.ts";
import { factsOf, usesOf } from "../ipam/facts.ts";
import { storedAffinity, storedBlock } from "../ipam/objects.ts";
import { borrowedOf, stateOf, usageOf } from "../ipam/show.ts";
import { configOf, poolsOf, reservationsFrom } from "../ipam/world.ts";
import type { Console } from "./apply.io.ts";
import { renderAddress, renderBorrowed, renderCheck, renderConfiguration, renderUsage, usageForJson } from "./ipam.ts";

type Reader = Pick<Datastore, "get" | "list">;
type Output = Pick<Console, "output">;

export interface IpamShowArguments {
  readonly output?: "json" | undefined;
  readonly showBlocks?: boolean | undefined;
  readonly showBorrowed?: boolean | undefined;
  readonly showConfiguration?: boolean | undefined;
  /** Only who has this address. */
  readonly ip?: string | undefined;
}

/** Prints how full pools are, or what the arguments ask for instead. Throws `AddressError` and `DatastoreError`. */
export async function ipamShow(datastore: Reader, args: IpamShowArguments, { output }: Output): Promise<void> {
  const json = (value: unknown): void => void output.write(`${JSON.stringify(value, undefined, 2)}\n`);
  const address = args.ip === undefined ? undefined : parseAddress(args.ip);
  const [pools, reservations, blocks, configuration] = await Promise.all([
    datastore.list("IPPool"),
    datastore.list("IPReservation"),
    datastore.list("IPAMBlock"),
    datastore.get("IPAMConfiguration", "default"),
  ]);
  const config = configOf(configuration);
  const cooldown = { now: Date.now(), seconds: config.cooldownSeconds };
  const existing = blocks.items.filter(({ spec }) => !spec.deleted).map((object) => storedBlock(object).value);
  if (address !== undefined) {
    const state = stateOf(address, existing, cooldown);
    return args.output === "json" ? json(state) : void output.write(renderAddress(address, state));
  }
  if (args.showConfiguration === true) {
    return args.output === "json" ? json(config) : void output.write(renderConfiguration(config));
  }
  if (args.showBorrowed === true) {
    const borrowed = borrowedOf(existing);
    return args.output === "json" ? json(borrowed) : void output.write(renderBorrowed(borrowed));
  }
  const usage = usageOf(poolsOf(pools.items), existing, reservationsFrom(reservations.items), cooldown);
  return args.output === "json"
    ? json(usageForJson(usage))
    : void output.write(renderUsage(usage, args.showBlocks ?? false));
}

/** Prints what the books and the cluster do not agree about. Returns the number of problems. */
export async function ipamCheck(
  datastore: Reader,
  args: { readonly output?: "json" | undefined },
  { output }: Output,
): Promise<number> {
  // Blocks first: an address that is given out after them is not missed, and its pod may well be in the lists.
  const blocks = await datastore.list("IPAMBlock");
  const [affinities, handles, pools, nodes, pods] = await Promise.all([
    datastore.list("BlockAffinity"),
    datastore.list("IPAMHandle"),
    datastore.list("IPPool"),
    datastore.list("Node"),
    datastore.list("Pod"),
  ]);
  const existing = <Item extends { spec: { deleted: boolean } }>(items: readonly Item[]): Item[] =>
    items.filter(({ spec }) => !spec.deleted);
  const report = checkIpam({
    pools: poolsOf(pools.items),
    blocks: existing(blocks.items).map((object) => storedBlock(object).value),
    affinities: existing(affinities.items).map((object) => storedAffinity(object).value),
    uses: usesOf(nodes.items, pods.items),
    facts: factsOf(nodes.items, pods.items),
    handles: existing(handles.items).map(({ spec }) => spec.handleID),
  });
  output.write(args.output === "json" ? `${JSON.stringify(report, undefined, 2)}\n` : renderCheck(report));
  return report.problems.length;
}

/**
 * The controller: keeps the nodes' automatic host endpoints, finds addresses and blocks that nobody uses any more and
 * gives them back. Several may run at once: each proves before it releases, and releases only the very allocation that it
 * judged, so a second one has nothing left to do. For that reason there is no election of a leader.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Datastore } from "../datastore/datastore.ts";
import { mirror, type MirrorOptions } from "../datastore/mirror.ts";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import type { Allocation } from "../ipam/block.ts";
import { DEFAULT_GRACE_MS, findGarbage, NO_SUSPICIONS, type Facts, type Suspicions } from "../ipam/garbage.ts";
import { factsOf } from "../ipam/facts.ts";
import type { BlockStore } from "../ipam/store.ts";
import { sweep, type SweepReport } from "../ipam/sweep.ts";
import { configOf } from "../ipam/world.ts";
import { messageOf } from "../lib/errors.ts";
import { parseDuration } from "../resources/fields.ts";
import { keepAutoHostEndpoints } from "./autoHostEndpoints.io.ts";

export interface ControllerOptions {
  readonly store: BlockStore;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
  /** How long an address must look leaked, in milliseconds; 0: never release. Default: leakGracePeriod of KubeControllersConfiguration. */
  readonly graceMs?: number;
  /** By node, the addresses that its agent has endpoints for, where agents tell. They are never released. */
  readonly endpoints?: () => Promise<ReadonlyMap<string, ReadonlySet<string>>>;
}

/** Rounds follow each other at half the grace period, within these bounds, and at once when a node is deleted. */
const ROUND_MS = { least: 100, most: 5 * 60_000 };
/** Pods that go with a node go within moments of it. */
const AFTER_NODE_MS = 100;

/** Runs until the signal is aborted. Failures are logged, and the next round tries again. */
export async function runController(
  datastore: Datastore,
  options: ControllerOptions,
  signal: AbortSignal,
): Promise<void> {
  const { log } = options;
  let suspicions = NO_SUSPICIONS;
  let wake = new AbortController();
  const clock: MirrorOptions = {
    timers: {
      now: () => performance.now(),
      setTimeout,
      clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
    },
    random: Math.random,
  };
  const nodes = mirror(datastore, "Node", clock, {
    onChange: (change) => {
      if (change.type === "deleted") wake.abort();
    },
  });
  const endHostEndpoints = keepAutoHostEndpoints(datastore, clock, log);
  try {
    while (!signal.aborted) {
      let pause = ROUND_MS.most;
      try {
        const graceMs = options.graceMs ?? (await configuredGrace(datastore));
        if (graceMs > 0) {
          pause = Math.min(ROUND_MS.most, Math.max(ROUND_MS.least, graceMs / 2));
          const round = await collectGarbage(datastore, options, suspicions, graceMs);
          suspicions = round.suspicions;
          report(round.report, log);
        }
      } catch (error) {
        log("warn", "addresses could not be checked for leaks", { reason: messageOf(error) });
      }
      if (!wake.signal.aborted) await pauseFor(pause, AbortSignal.any([signal, wake.signal]));
      if (wake.signal.aborted) {
        wake = new AbortController();
        await pauseFor(AFTER_NODE_MS, signal);
      }
    }
  } finally {
    nodes.stop();
    endHostEndpoints();
  }
}

/** One round: one look at everything, and a last look at each thing that is to go. */
export async function collectGarbage(
  datastore: Datastore,
  { store, endpoints }: ControllerOptions,
  previous: Suspicions,
  graceMs: number,
): Promise<{ readonly report: SweepReport; readonly suspicions: Suspicions }> {
  // Blocks first: an address that is given out after them is not looked at, and its pod is older than the pods' list.
  const blocks = await store.listBlocks();
  const affinities = await store.listAffinities();
  const [nodes, pods, configuration, inUse] = await Promise.all([
    datastore.list("Node"),
    datastore.list("Pod"),
    datastore.get("IPAMConfiguration", "default"),
    endpoints?.(),
  ]);
  const withEndpoints = (facts: Facts): Facts => (inUse === undefined ? facts : { ...facts, endpoints: inUse });
  const facts = withEndpoints(factsOf(nodes.items, pods.items));
  const cooldown = { now: Date.now(), seconds: configOf(configuration).cooldownSeconds };
  const findings = findGarbage({ blocks, affinities, facts }, previous, { cooldown, graceMs });
  const look = async (allocation: Allocation): Promise<Facts> => withEndpoints(await lookAt(datastore, allocation));
  return { report: await sweep(store, findings, cooldown, look), suspicions: findings.suspicions };
}

/** The node and the pod of an allocation as they are now. */
async function lookAt(datastore: Datastore, { holder }: Allocation): Promise<Facts> {
  const { node, namespace, pod } = holder.attributes;
  const [nodeNow, podNow] = await Promise.all([
    node === undefined ? undefined : datastore.get("Node", node),
    namespace === undefined || pod === undefined ? undefined : datastore.get("Pod", pod, namespace),
  ]);
  return factsOf(nodeNow === undefined ? [] : [nodeNow], podNow === undefined ? [] : [podNow]);
}

async function configuredGrace(datastore: Datastore): Promise<number> {
  const configuration = await datastore.get("KubeControllersConfiguration", "default");
  const text = configuration?.spec.controllers.node?.leakGracePeriod;
  return text === undefined ? DEFAULT_GRACE_MS : parseDuration(text);
}

function report({ released, kept, blocks, failures }: SweepReport, log: ControllerOptions["log"]): void {
  for (const { address, holder, reason } of released) {
    log("info", "leaked address released", { address: formatAddress(address), handle: holder.handle, reason });
  }
  for (const { address, holder } of kept) {
    log("info", "address kept: it changed, or was in use after all", {
      address: formatAddress(address),
      handle: holder.handle,
    });
  }
  for (const prefix of blocks) log("info", "empty block given up", { block: formatPrefix(prefix) });
  for (const reason of failures) log("warn", "garbage could not be collected", { reason });
}

async function pauseFor(milliseconds: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(milliseconds, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

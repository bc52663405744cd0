import { setTimeout as sleep } from "node:timers/promises";
import { compareVersions, type Datastore } from "../datastore/datastore.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import type { KindId } from "../resources/registry.ts";
import { inParts } from "./policy.ts";
import type { AgentAccess } from "./target.ts";

/** `--wait`: until every node has in force what was written, and pods run or are gone. */

export class WaitFailed extends Failure<"not-in-force"> {}

export interface Written {
  readonly kindId: KindId;
  readonly name: string;
  readonly namespace: string | undefined;
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
}

/** An agent's answer; `final` where waiting would not change it. */
interface InForce {
  readonly inForce: boolean;
  readonly final?: boolean;
  readonly reason?: string;
}

const POLL_MS = 20;
/** One question to an agent waits this long before it is asked again. */
const ASK_MS = 5000;

/** Throws `WaitFailed` with what is still missing on which node. */
export async function waitApplied(
  datastore: Datastore,
  agents: readonly AgentAccess[],
  written: readonly Written[],
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  const pods = written.filter(({ kindId }) => kindId === "Pod");
  const addresses = await waitRunning(datastore, pods, deadline);
  const newest = newestOf(written);
  const namesOf = (kind: KindId): string[] =>
    written
      .filter(({ kindId }) => kindId === kind)
      .map(({ name, namespace }) => (namespace === undefined ? name : `${namespace}/${name}`));
  await Promise.all(
    agents.flatMap((agent) => [
      ...[...newest].map(([kind, version]) => waitInForce(agent, kind, version, deadline, namesOf(kind))),
      ...(addresses.length === 0 ? [] : [waitReaches(agent, addresses, deadline)]),
    ]),
  );
}

export async function waitDeleted(
  datastore: Datastore,
  agents: readonly AgentAccess[],
  deleted: readonly Written[],
  timeoutMs: number,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  const newest = newestOf(deleted);
  for (const kind of new Set(deleted.map(({ kindId }) => kindId))) {
    const version = newest.get(kind) ?? (await datastore.list(kind, { limit: 1 })).resourceVersion;
    await Promise.all(agents.map((agent) => waitInForce(agent, kind, version, deadline)));
  }
  const uids = new Set(
    deleted.filter(({ kindId }) => kindId === "Pod").flatMap(({ uid }) => (uid === undefined ? [] : [uid])),
  );
  if (uids.size === 0) return;
  await Promise.all(
    agents.map((agent) =>
      poll(deadline, async () => {
        const endpoints = (await agent.ask("/endpoints", ASK_MS)) as {
          namespace?: string;
          pod?: string;
          podUid?: string;
        }[];
        const left = endpoints.filter(({ podUid }) => podUid !== undefined && uids.has(podUid));
        return left.length === 0
          ? undefined
          : `${agent.node} still has ${left.map(({ namespace, pod }) => `${namespace}/${pod}`).join(", ")}`;
      }),
    ),
  );
}

/** Of each kind the last version that was written. */
function newestOf(written: readonly Written[]): Map<KindId, string> {
  const newest = new Map<KindId, string>();
  for (const { kindId, resourceVersion } of written) {
    const before = newest.get(kindId);
    if (resourceVersion === undefined) continue;
    if (before === undefined || compareVersions(before, resourceVersion) < 0) newest.set(kindId, resourceVersion);
  }
  return newest;
}

/** Returns the addresses of the pods that have their own. */
async function waitRunning(datastore: Datastore, pods: readonly Written[], deadline: number): Promise<string[]> {
  if (pods.length === 0) return [];
  const addresses: string[] = [];
  await poll(deadline, async () => {
    const { items } = await datastore.list("Pod");
    const byName = new Map(items.map((pod) => [`${pod.metadata.namespace}/${pod.metadata.name}`, pod]));
    const pending = pods.flatMap(({ namespace, name }) => {
      const pod = byName.get(`${namespace ?? "default"}/${name}`);
      if (pod === undefined) return [`${namespace}/${name} is not there`];
      const ready = pod.status?.conditions?.find(({ type }) => type === "Ready");
      if (ready?.status === "True" && pod.status?.phase === "Running") return [];
      const where = pod.spec.nodeName === undefined ? "is on no node yet" : `does not run on ${pod.spec.nodeName} yet`;
      return [`pod ${namespace}/${name} ${where}${ready?.message === undefined ? "" : `: ${ready.message}`}`];
    });
    if (pending.length > 0)
      return `${pending.slice(0, 3).join("; ")}${pending.length > 3 ? ` and ${pending.length - 3} more` : ""}`;
    for (const { namespace, name } of pods) {
      const pod = byName.get(`${namespace ?? "default"}/${name}`);
      if (pod?.spec.hostNetwork !== true) addresses.push(...(pod?.status?.podIPs ?? []).map(({ ip }) => ip));
    }
    return undefined;
  });
  return addresses;
}

/** @param objects that must be in force as they were written, by `namespace/name` or `name` */
async function waitInForce(
  agent: AgentAccess,
  kind: KindId,
  version: string,
  deadline: number,
  objects: readonly string[] = [],
): Promise<void> {
  for (const part of inParts(objects)) {
    // oxlint-disable-next-line no-await-in-loop -- after the first there is nothing to wait for
    await poll(deadline, async () => {
      const query = new URLSearchParams({ kind, resourceVersion: version, timeoutMs: String(ASK_MS) });
      for (const object of part) query.append("object", object);
      const answer = (await agent.ask(`/in-force?${query.toString()}`, ASK_MS + 1000)) as InForce;
      if (answer.inForce) return undefined;
      const reason = `${agent.node}: ${answer.reason}`;
      if (answer.final === true) throw new WaitFailed("not-in-force", `not in force: ${reason}`);
      return reason;
    });
  }
}

function waitReaches(agent: AgentAccess, addresses: readonly string[], deadline: number): Promise<void> {
  return poll(deadline, async () => {
    const { missing } = (await agent.ask(`/reaches?addresses=${addresses.join(",")}`, ASK_MS)) as { missing: string[] };
    return missing.length === 0 ? undefined : `${agent.node} has no route to ${missing.slice(0, 3).join(", ")}`;
  });
}

/** Asks until there is nothing in the way any more. */
async function poll(deadline: number, ask: () => Promise<string | undefined>): Promise<void> {
  for (;;) {
    let inTheWay: string | undefined;
    try {
      inTheWay = await ask();
    } catch (error) {
      if (error instanceof WaitFailed) throw error;
      inTheWay = messageOf(error);
    }
    if (inTheWay === undefined) return;
    if (performance.now() > deadline) throw new WaitFailed("not-in-force", `not in force in time: ${inTheWay}`);
    await sleep(POLL_MS);
  }
}

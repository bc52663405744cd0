import { setTimeout as sleep } from "node:timers/promises";
import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { IPPool } from "../resources/ippool.ts";
import type { Node } from "../resources/node.ts";
import type { AgentConfig, DefaultPool } from "./config.ts";

/** How an agent begins: what the first of a cluster write into the datastore, each if it is not there; and patience. */

/** The Kubernetes Node of this node. Outside Kubernetes nobody else registers it. */
export async function ensureNode(datastore: Datastore, name: string): Promise<Node> {
  const present = await datastore.get("Node", name);
  if (present !== undefined) return present;
  try {
    return await datastore.create("Node", {
      apiVersion: "v1",
      kind: "Node",
      metadata: { name, labels: { "kubernetes.io/hostname": name, "kubernetes.io/os": "linux" } },
      spec: {},
    });
  } catch (error) {
    const made = isDatastoreError(error, "already-exists") ? await datastore.get("Node", name) : undefined;
    if (made === undefined) throw error;
    return made;
  }
}

/** Pools are made only for a cluster that has none at all: whoever deleted one does not want it back. */
export async function ensurePools(datastore: Datastore, { defaultPools }: AgentConfig): Promise<string[]> {
  const { items } = await datastore.list("IPPool");
  const known = new Set(items.map(({ metadata }) => metadata.name));
  if (items.some(({ metadata }) => !defaultPools.some(({ name }) => name === metadata.name))) return [];
  const made: string[] = [];
  for (const pool of defaultPools) {
    if (known.has(pool.name)) continue;
    try {
      await datastore.create("IPPool", poolResource(pool));
      made.push(`${pool.name} ${formatPrefix(pool.cidr)}`);
    } catch (error) {
      if (!isDatastoreError(error, "already-exists")) throw error; // another node was quicker
    }
  }
  return made;
}

function poolResource(pool: DefaultPool): IPPool {
  const { cidr, name, blockSize, ...modes } = pool;
  return {
    apiVersion: "projectcalico.org/v3",
    kind: "IPPool",
    metadata: { name },
    spec: {
      ...modes,
      cidr: formatPrefix(cidr),
      blockSize: blockSize ?? (cidr.address.family === 4 ? 26 : 122),
      disabled: false,
      allowedUses: ["Workload", "Tunnel"],
      assignmentMode: "Automatic",
    },
  };
}

/** Pauses between tries. */
const RETRY_MS = { first: 200, longest: 10_000 };

/** Tries until it succeeds, or nobody wants it any more. */
export async function untilDone(
  work: () => Promise<void>,
  {
    isWanted,
    onFailure,
  }: { readonly isWanted: () => boolean; readonly onFailure: (reason: string, retryMs: number) => void },
): Promise<void> {
  for (let pause = RETRY_MS.first; isWanted(); pause = Math.min(pause * 2, RETRY_MS.longest)) {
    try {
      await work();
      return;
    } catch (error) {
      onFailure(messageOf(error), pause);
      await sleep(pause);
    }
  }
}

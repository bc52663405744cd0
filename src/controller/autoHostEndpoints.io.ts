import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { mirror, type MirrorOptions } from "../datastore/mirror.ts";
import { messageOf } from "../lib/errors.ts";
import { planHostEndpoints } from "./autoHostEndpoints.ts";

/** Changes gather so long; what failed is tried again after the longer time. */
const SETTLE_MS = 100;
const RETRY_MS = 5000;

type Log = (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;

/** Keeps the nodes' automatic host endpoints as KubeControllersConfiguration asks for them. Returns what ends it. */
export function keepAutoHostEndpoints(datastore: Datastore, options: MirrorOptions, log: Log): () => void {
  let timer: NodeJS.Timeout | undefined;
  let working = false;
  let stopped = false;
  let synced = false;
  let said = "";
  const handlers = { onChange: () => soon(SETTLE_MS) };
  const nodes = mirror(datastore, "Node", options, handlers);
  const endpoints = mirror(datastore, "HostEndpoint", options, handlers);
  const configurations = mirror(datastore, "KubeControllersConfiguration", options, handlers);
  const all = [nodes, endpoints, configurations];
  void Promise.all(all.map((one) => one.synced)).then(() => {
    synced = true;
    soon(0);
  });

  function soon(milliseconds: number): void {
    if (stopped || !synced) return;
    timer ??= setTimeout(() => {
      timer = undefined;
      void work();
    }, milliseconds);
  }

  async function work(): Promise<void> {
    if (working) return soon(SETTLE_MS);
    working = true;
    try {
      await carryOut();
    } catch (error) {
      log("warn", "automatic host endpoints cannot be kept", { reason: messageOf(error) });
      soon(RETRY_MS);
    } finally {
      working = false;
    }
  }

  async function carryOut(): Promise<void> {
    const settings = configurations.get("default")?.spec.controllers.node?.hostEndpoint;
    const plan = planHostEndpoints([...nodes.items.values()], [...endpoints.items.values()], settings);
    const problems = plan.problems.join("; ");
    if (problems !== said && problems !== "")
      log("warn", "automatic host endpoints are not all as asked for", { problems });
    said = problems;
    for (const endpoint of plan.create) await ifStill(datastore.create("HostEndpoint", endpoint));
    for (const endpoint of plan.update) await ifStill(datastore.update("HostEndpoint", endpoint));
    for (const { metadata } of plan.remove) {
      const { name, uid, resourceVersion } = metadata;
      await ifStill(datastore.delete("HostEndpoint", name, undefined, { uid, resourceVersion }));
    }
    const done = plan.create.length + plan.update.length + plan.remove.length;
    if (done > 0) {
      const names = (list: typeof plan.create): string[] => list.map(({ metadata }) => metadata.name);
      log("info", "automatic host endpoints", {
        created: names(plan.create),
        updated: names(plan.update),
        removed: names(plan.remove),
      });
    }
  }

  return () => {
    stopped = true;
    clearTimeout(timer);
    for (const one of all) one.stop();
  };
}

/** Another controller, or somebody else, was quicker: what they did is seen soon, and judged anew. */
async function ifStill(write: Promise<unknown>): Promise<void> {
  try {
    await write;
  } catch (error) {
    const codes = ["already-exists", "conflict", "not-found"] as const;
    if (!codes.some((code) => isDatastoreError(error, code))) throw error;
  }
}

import type { Datastore } from "../datastore/datastore.ts";
import { mirror } from "../datastore/mirror.ts";
import { messageOf } from "../lib/errors.ts";
import type { CalicoNodeStatus } from "../resources/bgp.ts";
import type { Log } from "./agent.io.ts";
import type { NodeStatus, StatusClass } from "./nodeStatus.ts";

/**
 * Answers every CalicoNodeStatus that asks for this node, as often as it wants. Returns what ends it. `secondMs` is how long
 * a second is.
 */
export function reportNodeStatus(
  datastore: Datastore,
  nodeName: string,
  statusOf: (classes: readonly StatusClass[]) => NodeStatus | undefined,
  log: Log,
  secondMs = 1000,
): () => void {
  const running = new Map<string, { readonly wish: string; readonly timer: NodeJS.Timeout | undefined }>();
  let trouble = "";
  const timers = {
    now: () => performance.now(),
    setTimeout,
    clearTimeout: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout),
  };

  async function answer(name: string, classes: readonly StatusClass[]): Promise<void> {
    const status = statusOf(classes);
    if (status === undefined) return;
    // A class that is not asked for any more goes.
    const patch = { status: { agent: null, bgp: null, routes: null, ...status } };
    try {
      await datastore.patch("CalicoNodeStatus", name, undefined, patch, { status: true });
      trouble = "";
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== trouble) log("warn", "a CalicoNodeStatus could not be answered", { name, reason });
      trouble = reason;
    }
  }

  function see({ metadata: { name }, spec: { node, classes, updatePeriodSeconds } }: CalicoNodeStatus): void {
    const wish = node === nodeName ? `${classes.join()} ${updatePeriodSeconds}` : "";
    // Our own answers come back as changes of the object.
    if (running.get(name)?.wish === wish) return;
    forget(name);
    if (wish === "") return;
    void answer(name, classes);
    const timer =
      updatePeriodSeconds === 0
        ? undefined
        : setInterval(
            () => void answer(name, classes),
            Math.min(updatePeriodSeconds, LONGEST_PERIOD) * secondMs,
          ).unref();
    running.set(name, { wish, timer });
  }

  function forget(name: string): void {
    clearInterval(running.get(name)?.timer);
    running.delete(name);
  }

  // Apart from what the agent must know before it begins: a cluster may not have the kind.
  const copy = mirror(
    datastore,
    "CalicoNodeStatus",
    { timers, random: Math.random },
    {
      onSync: (items) => [...items.values()].forEach(see),
      onChange: (change) => (change.type === "deleted" ? forget(change.object.metadata.name) : see(change.object)),
    },
  );
  return () => {
    copy.stop();
    for (const name of running.keys()) forget(name);
  };
}

/** A day, in seconds: Calico's own limit. */
const LONGEST_PERIOD = 86_400;

import { setTimeout as sleep } from "node:timers/promises";
import type { Datastore } from "../datastore/datastore.ts";
import { systemClock } from "../flannel/clock.io.ts";
import { type FlannelDaemon, type FlannelStatus, startFlannel } from "../flannel/daemon.io.ts";
import type { FlannelOptions } from "../flannel/flags.ts";
import { openKubeManager } from "../flannel/kubeNode.io.ts";
import { messageOf } from "../lib/errors.ts";
import { nodeStore } from "./flannelNodes.io.ts";

/** Canal: flannel carries packets between the nodes, in the agent's own process, and the agent does all the rest. */
export interface Canal {
  /** Resolves when flannel has set up the node, and pods may be started; never rejects. */
  readonly ready: Promise<void>;
  /** Undefined while flannel is not up yet. */
  status(): FlannelStatus | undefined;
  stop(): Promise<void>;
}

export interface CanalOptions {
  readonly nodeName: string;
  readonly datastore: Datastore;
  readonly flannel: FlannelOptions;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

const RETRY_MS = { first: 200, longest: 10_000 };

/** Starts flannel for a node whose Node is in the datastore; its subnet is the Node's podCIDR. */
export function startCanal({ nodeName, datastore, flannel, log }: CanalOptions): Canal {
  const ended = new AbortController();
  let daemon: FlannelDaemon | undefined;

  async function start(): Promise<FlannelDaemon> {
    const { kubernetes } = flannel;
    if (kubernetes === undefined) throw new Error("flannel's subnets are not Kubernetes'");
    const { manager, external } = await openKubeManager(flannel, kubernetes, {
      nodes: nodeStore(datastore),
      nodeName,
    });
    return startFlannel({
      manager,
      external,
      subnetFile: flannel.subnetFile,
      ipMasq: flannel.ipMasq,
      forwardRules: flannel.forwardRules,
      resyncSeconds: flannel.resyncSeconds,
      clock: systemClock,
      log: (level, message) => log(level, `flannel: ${message}`, {}),
      signal: ended.signal,
    });
  }

  async function insist(): Promise<void> {
    for (let pause = RETRY_MS.first; !ended.signal.aborted; pause = Math.min(pause * 2, RETRY_MS.longest)) {
      try {
        daemon = await start();
        return;
      } catch (error) {
        if (ended.signal.aborted) return;
        log("warn", "flannel cannot be started yet", { reason: messageOf(error), retryMs: pause });
        await sleep(pause, undefined, { signal: ended.signal }).catch(() => undefined);
      }
    }
  }

  const ready = insist();
  return {
    ready,
    status: () => daemon?.status(),
    async stop() {
      ended.abort();
      await ready;
      await daemon?.stop();
    },
  };
}

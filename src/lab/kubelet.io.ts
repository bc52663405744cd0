import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { messageOf } from "../lib/errors.ts";
import { createNamespace, deleteNamespace } from "../netlink/namespace.io.ts";
import type { Pod } from "../resources/workload.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { portsOf } from "./pods.ts";
import { respond, type Responder } from "./responder.io.ts";
import { addNetwork, deleteNetwork, type CniResult, type CniRuntime, type Sandbox } from "./runtime.io.ts";

/** Runs the lab's pods: each is a namespace that the CNI plugin attaches, and a responder on the ports it declares. */
export interface Kubelet {
  /** The pod exists, or has changed. */
  pod(pod: Pod): void;
  gone(pod: Pod): void;
  close(): void;
}

export interface KubeletOptions {
  readonly lab: string;
  readonly datastore: Datastore;
  readonly nodeAddress: (node: string) => string | undefined;
  readonly runtimeOf: (node: string) => CniRuntime;
  readonly log: (message: string) => void;
}

interface Sandboxed {
  readonly uid: string;
  readonly node: string;
  readonly netns: string;
  readonly sandbox: Sandbox | undefined;
  readonly result: CniResult | undefined;
  readonly responder: Responder;
}

/** As the kubelet does after a failed sandbox, but sooner: a lab is watched by somebody who waits. */
const RETRY_MS = { first: 200, longest: 5000 };

export function createKubelet({ lab, datastore, nodeAddress, runtimeOf, log }: KubeletOptions): Kubelet {
  const running = new Map<string, Sandboxed>();
  /** The pods that should run, by name; each name has one worker that makes it so. */
  const wanted = new Map<string, Pod>();
  const workers = new Map<string, Promise<void>>();
  let closed = false;

  function work(key: string): void {
    if (workers.has(key) || closed) return;
    workers.set(
      key,
      settle(key)
        .catch((error: unknown) => log(`pod ${key}: ${messageOf(error)}`))
        .finally(() => {
          workers.delete(key);
          if (!isSettled(key)) work(key);
        }),
    );
  }

  const isSettled = (key: string): boolean => closed || wanted.get(key)?.metadata.uid === running.get(key)?.uid;

  async function settle(key: string): Promise<void> {
    let retryMs = RETRY_MS.first;
    while (!isSettled(key)) {
      try {
        const present = running.get(key);
        if (present !== undefined) {
          await remove(key, present);
          running.delete(key);
        }
        const pod = wanted.get(key);
        if (pod !== undefined) running.set(key, await start(key, pod));
      } catch (error) {
        log(`pod ${key}: ${messageOf(error)}; next try in ${retryMs} ms`);
        await reportFailure(key, messageOf(error));
        await sleep(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
      }
    }
  }

  async function start(key: string, pod: Pod): Promise<Sandboxed> {
    const began = performance.now();
    const { name, namespace = "default", uid = "" } = pod.metadata;
    const node = pod.spec.nodeName ?? "";
    const greeting = `${key} ${node}`;
    if (pod.spec.hostNetwork === true) {
      const netns = memberNamespace(lab, node);
      const responder = respond(netns, portsOf(pod, []), greeting);
      await report(pod, [nodeAddress(node) ?? ""], `running in ${since(began)} ms`);
      return { uid, node, netns, sandbox: undefined, result: undefined, responder };
    }
    const netns = podNamespace(lab, namespace, name);
    deleteNamespace(netns); // what a failed try has left
    createNamespace(netns, { loopback: true });
    const sandbox: Sandbox = {
      containerId: randomBytes(32).toString("hex"),
      netns,
      interfaceName: "eth0",
      pod: { namespace, name, uid },
    };
    const addBegan = performance.now();
    let result: CniResult;
    try {
      result = await addNetwork(runtimeOf(node), sandbox);
    } catch (error) {
      // As runtimes do: a failed ADD is followed by a DEL.
      await deleteNetwork(runtimeOf(node), sandbox).catch((failure: unknown) =>
        log(`pod ${key}: ${messageOf(failure)}`),
      );
      deleteNamespace(netns);
      throw error;
    }
    const added = since(addBegan);
    const addresses = (result.ips ?? []).map(({ address }) => address.split("/")[0]!);
    const responder = respond(netns, portsOf(pod), greeting);
    await report(pod, addresses, `network in ${added} ms, running in ${since(began)} ms`);
    return { uid, node, netns, sandbox, result, responder };
  }

  async function remove(key: string, { node, netns, sandbox, result, responder }: Sandboxed): Promise<void> {
    responder.close();
    if (sandbox === undefined) return;
    await deleteNetwork(runtimeOf(node), sandbox, result);
    deleteNamespace(netns);
    log(`pod ${key}: removed`);
  }

  async function report(pod: Pod, addresses: readonly string[], message: string): Promise<void> {
    const { name, namespace } = pod.metadata;
    const hostIP = nodeAddress(pod.spec.nodeName ?? "");
    const status = {
      phase: "Running",
      ...(addresses[0] === undefined || addresses[0] === "" ? {} : { podIP: addresses[0] }),
      podIPs: addresses.filter((ip) => ip !== "").map((ip) => ({ ip })),
      ...(hostIP === undefined ? {} : { hostIP }),
      conditions: ["PodScheduled", "Ready"].map((type) => ({
        type,
        status: "True",
        ...(type === "Ready" ? { message } : {}),
      })),
    };
    await patchStatus(name, namespace, status);
  }

  async function reportFailure(key: string, message: string): Promise<void> {
    const pod = wanted.get(key);
    if (pod === undefined) return;
    const conditions = [{ type: "Ready", status: "False", reason: "NetworkNotReady", message }];
    await patchStatus(pod.metadata.name, pod.metadata.namespace, { phase: "Pending", conditions }).catch(
      () => undefined,
    );
  }

  async function patchStatus(name: string, namespace: string | undefined, status: object): Promise<void> {
    for (let retryMs = RETRY_MS.first; !closed; retryMs = Math.min(retryMs * 2, RETRY_MS.longest)) {
      try {
        await datastore.patch("Pod", name, namespace, { status }, { status: true });
        return;
      } catch (error) {
        if (isDatastoreError(error, "not-found")) return; // deleted meanwhile
        if (!isDatastoreError(error, "unavailable") && !isDatastoreError(error, "timeout")) throw error;
        await sleep(retryMs);
      }
    }
  }

  return {
    pod(pod) {
      if (pod.spec.nodeName === undefined || pod.spec.nodeName === "") return;
      const key = `${pod.metadata.namespace ?? "default"}/${pod.metadata.name}`;
      wanted.set(key, pod);
      if (!isSettled(key)) work(key);
    },
    gone(pod) {
      const key = `${pod.metadata.namespace ?? "default"}/${pod.metadata.name}`;
      wanted.delete(key);
      if (!isSettled(key)) work(key);
    },
    close() {
      closed = true;
      for (const { responder } of running.values()) responder.close();
    },
  };
}

function since(began: number): string {
  return (performance.now() - began).toFixed(1);
}

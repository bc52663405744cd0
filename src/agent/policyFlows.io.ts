import { formatAddress, type Address } from "../ip/address.ts";
import { codeOf, messageOf } from "../lib/errors.ts";
import { openConntrack, type Conntrack } from "../netlink/conntrack.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { readSysctl } from "../netlink/sysctl.io.ts";
import type { Compiler } from "../policy/compile.ts";
import type { Log } from "./agent.io.ts";
import { forbidden } from "./policyFlows.ts";

/** The connections that the kernel follows for this node's pods: they end with the pods, and where it is asked for with their permission. */
export interface PodFlows {
  /** A pod has given up its addresses. What the kernel still follows of them is forgotten soon, before anybody has them again. */
  released(addresses: readonly Address[]): void;
  /** A pod is about to have the addresses: nothing of an earlier owner must be left. */
  assigned(addresses: readonly Address[]): void;
  /** Policy has changed, and is in the kernel. */
  policyChanged(): void;
  close(): void;
}

export interface PodFlowsOptions {
  /** Whether connections end when policy forbids them. They stay otherwise, as Kubernetes documents it. */
  readonly cutForbidden: boolean;
  readonly tables: () => ReturnType<Compiler["tables"]>;
  readonly isOwnAddress: (address: string) => boolean;
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  readonly log: Log;
}

/** Released addresses gather so long: pods often go together, and a look at the kernel's table is dear. */
const FORGET_MS = 1000;
/** About what it takes the kernel to walk through its table, and us to read one of its connections. Milliseconds. */
const WALK_MS = 10;
const READ_MS = 0.01;
/** Between two looks at all connections there is at least this, and ten times what the last one took. */
const CUT_MS = 50;

export function podFlows({ cutForbidden, tables, isOwnAddress, namespace, log }: PodFlowsOptions): PodFlows {
  let conntrack: Conntrack | undefined;
  const stale = new Map<string, Address>();
  let forgetting: NodeJS.Timeout | undefined;
  let cutting: NodeJS.Timeout | undefined;
  let notBefore = 0;

  /** Opened when it is first needed: a kernel without connection tracking has nothing to forget. */
  function work(what: string, done: (opened: Conntrack) => void): void {
    try {
      conntrack ??= openConntrack(namespace);
      done(conntrack);
    } catch (error) {
      log("warn", `${what} could not be ended`, { reason: messageOf(error) });
    }
  }

  function forget(): void {
    clearTimeout(forgetting);
    forgetting = undefined;
    const gone = new Map(stale);
    stale.clear();
    work("connections of pods that are gone", (opened) => {
      const count = namespace === undefined ? connectionCount() : inNamespace(namespace, connectionCount);
      if (count === 0) return;
      // One look at everything, or two for each address that find only what is its own.
      if (READ_MS * count > 2 * WALK_MS * gone.size) for (const address of gone.values()) opened.deleteOf(address);
      else {
        const isGone = (address: Address): boolean => gone.has(formatAddress(address));
        opened.deleteWhere(({ original, reply }) => isGone(original.source) || isGone(reply.source));
      }
    });
  }

  function cut(): void {
    cutting = undefined;
    const began = performance.now();
    work("connections that policy forbids", (opened) => {
      const count = opened.deleteWhere(forbidden(tables(), isOwnAddress));
      if (count > 0) log("info", "connections are cut, since policy forbids them now", { count });
    });
    const now = performance.now();
    notBefore = now + Math.max(CUT_MS, 10 * (now - began));
  }

  return {
    released(addresses) {
      for (const address of addresses) stale.set(formatAddress(address), address);
      if (stale.size > 0) forgetting ??= setTimeout(forget, FORGET_MS).unref();
    },
    assigned(addresses) {
      if (addresses.some((address) => stale.has(formatAddress(address)))) forget();
    },
    policyChanged() {
      if (cutForbidden) cutting ??= setTimeout(cut, Math.max(0, notBefore - performance.now()));
    },
    close() {
      clearTimeout(forgetting);
      clearTimeout(cutting);
      conntrack?.close();
    },
  };
}

function connectionCount(): number {
  try {
    return Number(readSysctl("netfilter/nf_conntrack_count"));
  } catch (error) {
    if (codeOf(error) === "ENOENT") return 0; // connections are not followed here
    throw error;
  }
}

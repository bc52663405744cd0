import type { NetworkConfig } from "./config.ts";
import type { Lease, LeaseAttributes, LeasedSubnets } from "./lease.ts";

/** Where nodes tell each other of their subnets: etcd (`etcdManager.ts`) or Kubernetes (`kubeManager.ts`). */

export interface SubnetManager {
  /** Waits until there is one. Rejects where it makes no sense, and when the signal is aborted. */
  networkConfig(signal: AbortSignal): Promise<NetworkConfig>;
  /** What this node said of itself before it was started anew: a vxlan device keeps its MAC address by it. */
  stored(own: LeaseAttributes): Promise<LeaseAttributes | undefined>;
  /** This node's own lease. `previous` is what it had before. */
  acquire(config: NetworkConfig, attributes: LeaseAttributes, previous: LeasedSubnets | undefined): Promise<Lease>;
  /** Keeps the acquired lease, and tells of all others, until the signal is aborted. */
  follow(listener: SubnetListener, signal: AbortSignal): Promise<void>;
}

export interface SubnetListener {
  /** The leases of all other nodes, whenever one of them changes. */
  peers(leases: readonly Lease[]): void;
  /** This node's lease was lost, and another had to be taken. */
  moved(lease: Lease): void;
  problem(sentence: string): void;
}

/** Time and chance, handed to what is otherwise pure. Milliseconds. */
export interface Clock {
  now(): number;
  /** Resolves early, and without an error, when the signal is aborted. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** A whole number from 0, below the bound. */
  random(bound: number): number;
}

/** Pauses between attempts: flannel's 100 ms that double up to 5 s. */
export const RETRY_MS = { first: 100, longest: 5000 } as const;

/**
 * Does the work until the signal is aborted, with pauses that grow while it keeps failing. Work that has gone well for a
 * while calls what it is given, so that the next pause is short again.
 */
export async function keepTrying(
  clock: Clock,
  signal: AbortSignal,
  work: (wentWell: () => void) => Promise<void>,
  failed: (error: unknown) => void,
): Promise<void> {
  let pause: number = RETRY_MS.first;
  while (!signal.aborted) {
    try {
      await work(() => (pause = RETRY_MS.first));
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
    }
    await clock.sleep(pause, signal);
    pause = Math.min(pause * 2, RETRY_MS.longest);
  }
}

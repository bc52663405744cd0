import { codeOf, messageOf } from "../lib/errors.ts";
import {
  acquireLease,
  type AcquireInput,
  type HeldLease,
  isOf,
  LEASE_SECONDS,
  readLease,
  renewLease,
} from "./acquire.ts";
import { type NetworkConfig, parseNetworkConfig } from "./config.ts";
import { describeSubnets, formatLeaseValue, type LeaseAttributes, type LeasedSubnets } from "./lease.ts";
import type { KeyStore, StoredKey } from "./store.ts";
import { type Clock, keepTrying, type SubnetListener, type SubnetManager } from "./subnetManager.ts";

/** Flannel's subnet manager over etcd, with its keys, values and times. */

export interface EtcdManagerOptions {
  readonly store: KeyStore;
  /** `/coreos.com/network` */
  readonly prefix: string;
  /** How long before its end a lease is renewed: 1 to 1439 minutes. */
  readonly renewMarginMinutes: number;
  readonly clock: Clock;
  /** Told while there is no configuration yet. */
  readonly onWaiting?: (reason: string) => void;
}

const CONFIG_RETRY_MS = 1000;
const RENEW_RETRY_MS = 60_000;
const MINUTE_MS = 60_000;

export function etcdManager(options: EtcdManagerOptions): SubnetManager {
  const { store, clock, renewMarginMinutes, onWaiting } = options;
  const root = options.prefix.replace(/\/+$/, "");
  const prefix = `${root}/subnets/`;
  let request: Omit<AcquireInput, "previous"> | undefined;
  let held: HeldLease | undefined;
  let expires = 0;
  /** What is done to the own lease, one after another. */
  let turn: Promise<unknown> = Promise.resolve();

  function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = turn.then(work);
    turn = result.catch(() => undefined);
    return result;
  }

  function keep(lease: HeldLease): HeldLease {
    held = lease;
    expires = lease.reserved ? Infinity : clock.now() + LEASE_SECONDS * 1000;
    return lease;
  }

  async function acquire(previous: LeasedSubnets | undefined): Promise<HeldLease> {
    if (request === undefined) throw new Error("a lease is acquired before it is followed");
    return keep(await acquireLease({ ...request, previous }));
  }

  /** The key is gone, or is not ours any more. It is taken again at once: flannel's daemon ends itself here. */
  async function recover(listener: SubnetListener): Promise<void> {
    const before = held;
    const now = await acquire(before?.subnets);
    listener.problem(
      now.key === before?.key
        ? `the lease of ${describeSubnets(now.subnets)} was lost, and is taken again`
        : `the lease was lost to another node: this node has ${describeSubnets(now.subnets)} now`,
    );
    if (now.key !== before?.key) listener.moved(now);
  }

  /** Whether the key in the store is what we hold. A change that is our own may be told of late. */
  const isHeld = (item: StoredKey | undefined): boolean =>
    item !== undefined && held !== undefined && item.value === formatLeaseValue(held.attributes);

  async function followPeers(listener: SubnetListener, signal: AbortSignal, wentWell: () => void): Promise<void> {
    const { items, revision } = await store.list(prefix);
    const known = new Map(items.map((item) => [item.key, item]));
    let told: string | undefined;
    const settle = async (): Promise<void> => {
      await inTurn(async () => {
        if (held === undefined || isHeld(known.get(held.key))) return;
        // The watch may be behind: what counts is what is there now.
        const now = await store.get(held.key);
        if (now !== undefined) known.set(held.key, now);
        if (isHeld(now)) held = { ...held, revision: now!.revision };
        else await recover(listener);
      });
      const peers = [...known.values()]
        .filter(({ key }) => key !== held?.key)
        .flatMap((item) => readLease(prefix, item) ?? [])
        .filter(({ attributes }) => held === undefined || !isOf(attributes, held.attributes));
      const text = JSON.stringify(peers.map(({ key, attributes }) => [key, formatLeaseValue(attributes)]));
      if (text === told) return;
      told = text;
      listener.peers(peers.map(({ subnets, attributes }) => ({ subnets, attributes })));
    };
    await settle();
    wentWell();
    for await (const changes of store.watch(prefix, revision, signal)) {
      for (const change of changes) {
        if (change.type === "put") known.set(change.item.key, change.item);
        else known.delete(change.key);
      }
      await settle();
    }
  }

  async function keepRenewing(listener: SubnetListener, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const due = expires - renewMarginMinutes * MINUTE_MS - clock.now();
      if (due > 0) {
        // It may be another lease by then, and due later.
        await clock.sleep(due, signal);
        continue;
      }
      try {
        await inTurn(async () => {
          if (held === undefined) return;
          const renewed = await renewLease(store, held);
          if (renewed === undefined) await recover(listener);
          else keep(renewed);
        });
      } catch (error) {
        listener.problem(`the lease could not be renewed, and is tried again in a minute: ${messageOf(error)}`);
        await clock.sleep(RENEW_RETRY_MS, signal);
      }
    }
  }

  return {
    async networkConfig(signal) {
      let last = "";
      for (;;) {
        signal.throwIfAborted();
        let reason: string;
        try {
          const item = await store.get(`${root}/config`);
          if (item !== undefined) return parseNetworkConfig(item.value);
          reason = `there is no ${root}/config in etcd yet`;
        } catch (error) {
          if (codeOf(error) === "bad-network-config") throw error;
          reason = messageOf(error);
        }
        if (reason !== last) onWaiting?.(reason);
        last = reason;
        await clock.sleep(CONFIG_RETRY_MS, signal);
      }
    },
    async stored(own) {
      const { items } = await store.list(prefix);
      const leases = items.flatMap((item) => readLease(prefix, item) ?? []);
      return leases.find(({ attributes }) => isOf(attributes, own))?.attributes;
    },
    acquire(config: NetworkConfig, attributes: LeaseAttributes, previous) {
      request = { store, prefix, config, attributes, random: (bound) => clock.random(bound) };
      return inTurn(() => acquire(previous));
    },
    async follow(listener, signal) {
      await Promise.all([
        keepRenewing(listener, signal),
        keepTrying(
          clock,
          signal,
          (wentWell) => followPeers(listener, signal, wentWell),
          (error) => {
            if (codeOf(error) !== "compacted") listener.problem(messageOf(error));
          },
        ),
      ]);
    },
  };
}

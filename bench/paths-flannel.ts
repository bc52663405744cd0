import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../src/flannel/clock.io.ts";
import { parseNetworkConfig } from "../src/flannel/config.ts";
import { startFlannel } from "../src/flannel/daemon.io.ts";
import type { Lease } from "../src/flannel/lease.ts";
import type { SubnetManager } from "../src/flannel/subnetManager.ts";
import { parsePrefix } from "../src/ip/prefix.ts";
import { addPodRoute, type FLANNEL, type HostPair, subnetOf } from "./paths-hosts.ts";

/** Flannel on both hosts of a pair, with leases that stand from the start. Returns what ends it. */
export async function startFlannelPair(
  { backend, mtu }: (typeof FLANNEL)[keyof typeof FLANNEL],
  pair: HostPair,
): Promise<() => Promise<void>> {
  const directory = mkdtempSync(`${tmpdir()}/caracal-bench-`);
  const config = parseNetworkConfig(JSON.stringify({ Network: pair.network, Backend: backend }));
  const leases = new Map<1 | 2, Lease>();
  const ended = new AbortController();

  const managerOf = (side: 1 | 2): SubnetManager => ({
    networkConfig: () => Promise.resolve(config),
    stored: () => Promise.resolve(undefined),
    acquire(_, attributes) {
      const lease = { subnets: { ipv4: parsePrefix(subnetOf(pair, side)) }, attributes };
      leases.set(side, lease);
      return Promise.resolve(lease);
    },
    async follow(listener, signal) {
      const other = side === 1 ? 2 : 1;
      while (!leases.has(other) && !signal.aborted) await sleep(10);
      const lease = leases.get(other);
      if (lease !== undefined) listener.peers([lease]);
    },
  });
  const daemons = await Promise.all(
    ([1, 2] as const).map((side) =>
      startFlannel({
        manager: managerOf(side),
        external: { interfaces: ["eth0"], patterns: [] },
        namespace: pair.hosts[side - 1]!,
        subnetFile: `${directory}/subnet${side}.env`,
        ipMasq: false,
        forwardRules: false,
        resyncSeconds: 5,
        clock: systemClock,
        log: (level, message) => {
          if (level === "warn") process.stderr.write(`bench: flannel: ${message}\n`);
        },
        signal: ended.signal,
      }),
    ),
  );
  for (const side of [1, 2] as const) addPodRoute(pair, side, mtu);
  await sleep(300); // the leases are followed after the start
  return async () => {
    ended.abort();
    await Promise.all(daemons.map((daemon) => daemon.stop()));
    rmSync(directory, { recursive: true, force: true });
  };
}

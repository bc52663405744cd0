import type { Datastore } from "../datastore/datastore.ts";
import { formatAddress } from "../ip/address.ts";
import type { Allocator } from "../ipam/allocator.ts";
import { tunnelHandle } from "../ipam/handles.ts";
import { ensureTunnelAddress } from "../ipam/tunnels.ts";
import { messageOf } from "../lib/errors.ts";
import { nodeNetwork, nodeNetworkPatch, type NodeNetwork } from "../resources/nodeNetwork.ts";
import type { Cluster } from "./cluster.io.ts";
import { addressField, addressPools, type TunnelId, TUNNELS } from "./tunnelFacts.ts";

/** Has an address for each of this node's tunnels, and has it written on the Node, where the other nodes read it. */
export interface TunnelAddresses {
  /** Takes, gives back and writes what is to be. Rejects where that fails. */
  publish(): Promise<void>;
  /** The same in the background, where something it depends on has changed; tried until it succeeds. */
  check(): void;
  close(): void;
}

export interface TunnelAddressOptions {
  readonly nodeName: string;
  readonly datastore: Datastore;
  readonly allocator: Allocator;
  readonly cluster: () => Cluster;
  /** Whether this node is to have an end of the tunnel; "keep" leaves its address as it is. */
  readonly wanted: (tunnel: TunnelId) => boolean | "keep";
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

const RETRY_MS = { first: 500, longest: 30_000 };

export function createTunnelAddresses(options: TunnelAddressOptions): TunnelAddresses {
  const { nodeName, datastore, allocator, cluster, wanted, log } = options;
  let working: Promise<void> | undefined;
  let done = "";
  const told = new Map<string, string>();
  let retryMs = RETRY_MS.first;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  function poolsOf(tunnel: TunnelId): ReturnType<typeof addressPools> {
    if (wanted(tunnel) !== true) return [];
    const labels = cluster().get("Node", nodeName)?.metadata.labels ?? {};
    const [present] = allocator.addressesOf(tunnelHandle(tunnel.kind, tunnel.family, nodeName));
    return addressPools(tunnel, cluster().items("IPPool"), labels, present);
  }

  /** Everything that decides about the addresses, and what stands on the Node. */
  function situation(): string {
    const node = cluster().get("Node", nodeName);
    const network: NodeNetwork = node === undefined ? {} : nodeNetwork(node);
    return JSON.stringify(
      TUNNELS.map((tunnel) => {
        const written = network[addressField(tunnel)];
        const held = allocator.addressesOf(tunnelHandle(tunnel.kind, tunnel.family, nodeName));
        return [
          wanted(tunnel),
          poolsOf(tunnel).map(({ name }) => name),
          written === undefined ? "" : formatAddress(written),
          held.map(formatAddress),
        ];
      }),
    );
  }

  async function work(): Promise<void> {
    for (const tunnel of TUNNELS) {
      if (wanted(tunnel) === "keep") continue;
      const address = await ensureTunnelAddress(allocator, nodeName, tunnel, poolsOf(tunnel));
      const field = addressField(tunnel);
      const patch = nodeNetworkPatch({ [field]: address ?? null });
      const present = cluster().get("Node", nodeName)?.metadata.annotations ?? {};
      const differs = Object.entries(patch.metadata.annotations).some(
        ([name, value]) => (present[name] ?? null) !== value,
      );
      if (!differs) continue;
      await datastore.patch("Node", nodeName, undefined, patch);
      const name = `${tunnel.kind}, IPv${tunnel.family}`;
      const text = address === undefined ? "none" : formatAddress(address);
      // What was written a moment ago may not have come back yet.
      if (told.get(name) !== text) log("info", "this node's tunnel address", { tunnel: name, address: text });
      told.set(name, text);
    }
  }

  /** One at a time: the allocator's addresses of a tunnel must not be asked for twice at once. */
  async function publish(): Promise<void> {
    while (working !== undefined) await working.catch(() => undefined);
    const before = situation();
    working = work();
    try {
      await working;
      done = before;
    } finally {
      working = undefined;
    }
  }

  function check(): void {
    if (closed || timer !== undefined || working !== undefined || situation() === done) return;
    publish().then(
      () => {
        retryMs = RETRY_MS.first;
        check();
      },
      (error: unknown) => {
        log("warn", "this node's tunnel addresses are not as they should be", { reason: messageOf(error), retryMs });
        timer = setTimeout(() => {
          timer = undefined;
          check();
        }, retryMs).unref();
        retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
      },
    );
  }

  return {
    publish,
    check,
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

import type { RouteTable } from "../dataplane/routeTable.io.ts";
import type { Failure } from "../lib/errors.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import type { Notification } from "../netlink/notification.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import type { WorkloadLinks } from "./workloadLinks.ts";

export interface KernelWatchOptions {
  readonly routeTable: RouteTable;
  readonly workloadLinks: WorkloadLinks;
  readonly isWorkloadInterface: (name: string) => boolean;
  /** Whether a pod's interface is to be up, with routes through it. */
  readonly isInUse: (hostInterface: string) => boolean;
  /** Whether the interface is up now: what the kernel said of it may be a moment old. */
  readonly isUp: (hostInterface: string) => boolean;
  /** An address of this machine (not of a pod's interface) has come or gone. */
  readonly onAddresses: () => void;
  /**
   * Links or routes that have nothing to do with pods have changed, once for all that came together, or something was
   * missed: next hops may lie elsewhere, and whatever was read of the kernel is to be read again.
   */
  readonly onSurroundings: () => void;
  /** The kernel cannot be followed any more. */
  readonly onFailure: (failure: Failure) => void;
}

/** How long changes of the surroundings gather. */
const SETTLE_MS = 50;

/**
 * Follows what the kernel says of links, addresses and routes, and has put right what others do to ours. Pods come and
 * go all the time: what the kernel says of their interfaces is passed over as cheaply as can be. Returns what ends it.
 */
export function watchKernel(options: KernelWatchOptions): () => void {
  const { routeTable, workloadLinks, isWorkloadInterface, isInUse, isUp, onAddresses, onSurroundings, onFailure } =
    options;
  let timer: NodeJS.Timeout | undefined;

  function surroundingsChanged(): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      onSurroundings();
      routeTable.kick();
    }, SETTLE_MS);
  }

  function onEvent({ change, item }: Notification): void {
    switch (item.kind) {
      case "route": {
        const { route } = item;
        if (route.table !== TABLE_MAIN || routeTable.observe(change, route) === "ours") return;
        // A pod's interface has routes of the kernel's own, which lead nowhere that matters.
        const ofPod = route.nextHops.some(({ device }) => device !== undefined && workloadLinks.indexes.has(device));
        if (!ofPod) surroundingsChanged();
        return;
      }
      case "address":
        if (workloadLinks.indexes.has(item.address.device)) return;
        surroundingsChanged();
        onAddresses();
        return;
      case "link": {
        const { name, up } = item.link;
        workloadLinks.observe(change, item.link);
        if (!isWorkloadInterface(name)) surroundingsChanged();
        // The kernel drops the IPv4 routes of a link that goes down without a word about them.
        else if ((change === "deleted" || !up) && isInUse(name) && !isUp(name)) routeTable.kick();
      }
    }
  }

  const close = openMonitor(
    { groups: ["link", "address4", "address6", "route4", "route6"] },
    { event: onEvent, overrun: surroundingsChanged, failed: onFailure },
  );
  return () => {
    clearTimeout(timer);
    close();
  };
}

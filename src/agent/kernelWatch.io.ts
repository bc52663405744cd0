import type { RouteTable } from "../dataplane/routeTable.io.ts";
import type { Failure } from "../lib/errors.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import type { Notification } from "../netlink/notification.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import type { Endpoints } from "./endpoints.io.ts";

export interface KernelWatchOptions {
  readonly routeTable: RouteTable;
  readonly endpoints: Endpoints;
  /** Links have come, gone or changed: what is known of pods' interfaces by their index is stale. */
  readonly onLinks: () => void;
  /** An address of this machine has come or gone. */
  readonly onAddresses: () => void;
  /** Routes or links that are not ours have changed, once for all that came together: next hops may lie elsewhere. */
  readonly onSurroundings: () => void;
  /** The kernel cannot be followed any more. */
  readonly onFailure: (failure: Failure) => void;
}

/** How long changes of the surroundings gather. */
const SETTLE_MS = 50;

/** Follows what the kernel says of links, addresses and routes, and has put right what others do to ours. Returns what ends it. */
export function watchKernel(options: KernelWatchOptions): () => void {
  const { routeTable, endpoints, onLinks, onAddresses, onSurroundings, onFailure } = options;
  let timer: NodeJS.Timeout | undefined;

  function surroundingsChanged(): void {
    timer ??= setTimeout(() => {
      timer = undefined;
      onLinks();
      onSurroundings();
      routeTable.kick();
    }, SETTLE_MS);
  }

  function onEvent({ change, item }: Notification): void {
    if (item.kind === "route") {
      if (item.route.table === TABLE_MAIN && routeTable.observe(change, item.route) === "foreign")
        surroundingsChanged();
    } else if (item.kind === "address") {
      surroundingsChanged();
      onAddresses();
    } else if (item.kind === "link") {
      const { name, up } = item.link;
      if (!endpoints.isWorkloadInterface(name)) return surroundingsChanged();
      onLinks();
      // The kernel drops the IPv4 routes of a link that goes down without a word about them.
      if (endpoints.findByHostInterface(name) !== undefined && (change === "deleted" || !up)) routeTable.kick();
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

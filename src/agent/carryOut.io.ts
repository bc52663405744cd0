import { blackholeRoute } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import { formatPrefix, isHostPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { Addressing } from "./addressing.io.ts";
import type { Log } from "./agent.io.ts";
import type { Bgp } from "./bgp.io.ts";
import type { Tunnels } from "./tunnels.io.ts";

/** From what is known to what the kernel and the peers should have: tunnels, this node's blocks, and BGP. */
export interface CarryingOut {
  /** Changes that come together are carried out together. */
  soon(): void;
  now(): void;
  close(): void;
}

export interface CarryingOutOptions {
  /** Before everything is known nothing is carried out: what has not been read yet would be taken away. */
  readonly isReady: () => boolean;
  readonly settings: () => FelixSettings;
  readonly addressing: Pick<Addressing, "blocks">;
  readonly tunnels: Pick<Tunnels, "apply">;
  readonly routeTable: RouteTable;
  /** Asked for only when there is something to carry out; undefined where this node does not speak it. */
  readonly bgp: () => Pick<Bgp, "apply" | "changed"> | undefined;
  readonly log: Log;
}

/** How long changes gather. */
const SETTLE_MS = 5;

export function carryingOut(options: CarryingOutOptions): CarryingOut {
  const { isReady, settings, addressing, tunnels, routeTable, bgp, log } = options;
  let timer: NodeJS.Timeout | undefined;
  let appliedBlocks: string | undefined;

  function apply(): void {
    const { deviceRouteProtocol, removeExternalRoutes } = settings();
    const blocks = addressing.blocks().filter((block) => !isHostPrefix(block));
    const text = `${deviceRouteProtocol} ${removeExternalRoutes} ${blocks.map(formatPrefix).join(" ")}`;
    if (tunnels.apply()) {
      bgp()?.changed("IPPool"); // which routes are not BGP's depends on the tunnels that work
      appliedBlocks = undefined;
    }
    // The whole of a large table is not looked at for every change.
    if (text !== appliedBlocks) {
      routeTable.want("blocks", "agent", blocks.map(blackholeRoute));
      routeTable.reconcile();
      appliedBlocks = text;
    }
    bgp()?.apply();
  }
  function now(): void {
    clearTimeout(timer);
    timer = undefined;
    if (!isReady()) return;
    try {
      apply();
    } catch (error) {
      log("warn", "the node's state could not be brought up to date", { reason: messageOf(error) });
    }
  }
  return {
    soon() {
      if (isReady()) timer ??= setTimeout(now, SETTLE_MS);
    },
    now,
    close: () => clearTimeout(timer),
  };
}

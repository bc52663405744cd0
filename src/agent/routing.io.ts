import { createHash } from "node:crypto";
import type { PeerStatus, ResolvedNextHop, RouteChange, RouteQuery, RouteView, Speaker } from "../bgp/config.ts";
import { createSpeaker } from "../bgp/speaker.io.ts";
import { bgpRoute, PROTOCOL_BGP, resolveNextHop } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { NextHop, Route } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { BgpPlan } from "./bgpPeers.ts";

/** BGP and the kernel: what the speaker learns becomes routes, and what this node holds is announced. */
export interface Routing {
  /** Makes this the configuration. `announced` are this node's blocks, and single addresses borrowed from others' blocks. */
  apply(plan: BgpPlan, routerId: string, announced: readonly Prefix[]): void;
  /** The kernel's own routes or links changed: next hops may be reached in another way. */
  kernelChanged(): void;
  /** Whether what was learned before a restart has been learned again. */
  settled(): boolean;
  peers(): PeerStatus[];
  routes(query: RouteQuery): RouteView[];
  /** Ends the sessions without a word, so that peers keep our routes while a new agent starts (RFC 4724). */
  abandon(): Promise<void>;
}

export interface RoutingOptions {
  readonly rtnetlink: Rtnetlink;
  readonly routeTable: RouteTable;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

export function createRouting({ rtnetlink, routeTable, log }: RoutingOptions): Routing {
  const learned = new Map<string, RouteChange>();
  let speaker: Speaker | undefined;
  /** What the running speaker was made from; another value needs a new one. */
  let identity = "";
  let kernelRoutes: readonly Route[] | undefined;
  // An earlier agent's routes: the kernel has forwarded by them all the while.
  const restarting = rtnetlink.routes({ protocol: PROTOCOL_BGP }).length > 0;

  function resolve(nextHop: Address): ResolvedNextHop | undefined {
    kernelRoutes ??= rtnetlink.routes();
    const hop = resolveNextHop(nextHop, kernelRoutes);
    if (hop?.device === undefined) return undefined;
    const name = rtnetlink.link(hop.device)?.name;
    if (name === undefined) return undefined;
    const direct = hop.gateway === undefined || sameAddress(hop.gateway, nextHop);
    return { ...(direct ? {} : { gateway: hop.gateway! }), interface: name };
  }

  /** Links come and go under their names; their index is looked up when routes are written. */
  function write(): void {
    const indexes = new Map<string, number | undefined>();
    const indexOf = (name: string): number | undefined => {
      if (!indexes.has(name)) indexes.set(name, rtnetlink.link(name)?.index);
      return indexes.get(name);
    };
    const routes = [...learned.values()].flatMap(({ prefix, nextHops }) => {
      const hops = nextHops.flatMap((hop): NextHop[] => {
        const device = hop.interface === undefined ? undefined : indexOf(hop.interface);
        return device === undefined ? [] : [{ gateway: hop.gateway ?? hop.nextHop, device }];
      });
      return hops.length === 0 ? [] : [bgpRoute(prefix, hops)];
    });
    routeTable.want("bgp", "bgp", routes);
    routeTable.reconcile();
  }

  async function start(plan: BgpPlan, routerId: string): Promise<Speaker> {
    const made = await createSpeaker({
      asn: plan.asn,
      routerId,
      port: plan.listenPort,
      restart: { restarting, forwardingPreserved: restarting },
      resolve,
      log,
    });
    made.on("routes", (changes) => {
      for (const change of changes) {
        const key = formatPrefix(change.prefix);
        if (change.nextHops.length === 0) learned.delete(key);
        else learned.set(key, change);
      }
      write();
    });
    made.on("settled", () => routeTable.allowPrune("bgp"));
    if (made.settled) routeTable.allowPrune("bgp");
    return made;
  }

  interface Wish {
    readonly plan: BgpPlan;
    readonly routerId: string;
    readonly announced: readonly Prefix[];
  }
  let wish: Wish | undefined;
  let working: Promise<void> | undefined;
  let abandoned = false;

  /** Carries out the last wish; a new one that comes while the speaker starts is carried out after it. */
  async function work(): Promise<void> {
    for (let next = wish; next !== undefined && !abandoned; next = wish) {
      wish = undefined;
      const { plan, routerId, announced } = next;
      const wanted = `AS ${plan.asn}, router id ${routerId}, port ${plan.listenPort}`;
      if (wanted !== identity) {
        if (speaker !== undefined) {
          log("info", "BGP starts anew, since its identity has changed", { was: identity, is: wanted });
          await speaker.close("the node's BGP configuration has changed");
          learned.clear();
        }
        speaker = await start(plan, routerId);
        identity = wanted;
      }
      speaker?.setOrigination(announced.map((prefix) => ({ prefix })));
      speaker?.setPeers(plan.peers);
    }
  }

  return {
    apply(plan, routerId, announced) {
      wish = { plan, routerId, announced };
      working ??= work()
        .catch((error: unknown) => log("warn", "BGP cannot be set up as configured", { reason: messageOf(error) }))
        .finally(() => {
          working = undefined;
        });
    },
    kernelChanged() {
      kernelRoutes = undefined;
      speaker?.recheckNextHops();
    },
    settled: () => speaker?.settled ?? false,
    peers: () => speaker?.peers() ?? [],
    routes: (query) => speaker?.routes(query) ?? [],
    async abandon() {
      abandoned = true;
      await working;
      await speaker?.abandon();
    },
  };
}

/** `CALICO_ROUTER_ID`: an IPv4 address, `hash` of the node's name, or the node's own IPv4 address, if it has one. */
export function routerIdOf(setting: string | undefined, nodeName: string, ipv4: Address | undefined): string {
  if (setting !== undefined && setting !== "hash") return setting;
  if (setting === undefined && ipv4 !== undefined) return formatAddress(ipv4);
  const digest = createHash("sha256").update(nodeName).digest();
  // Any number but zero (RFC 6286). The first octet stays below 224, where addresses end to be a host's.
  return `${(digest[0]! % 223) + 1}.${digest[1]}.${digest[2]}.${digest[3]}`;
}

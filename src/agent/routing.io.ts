import type {
  PeerConfig,
  PeerStatus,
  ResolvedNextHop,
  RouteChange,
  RouteQuery,
  RouteView,
  Speaker,
} from "../bgp/config.ts";
import { filterKey } from "../bgp/filters.ts";
import { createSpeaker } from "../bgp/speaker.io.ts";
import { IPIP_DEVICE } from "../dataplane/ipip.ts";
import { createLearnedRoutes, type LearnedRoute } from "../dataplane/learnedRoutes.io.ts";
import { peerRoute, PROTOCOL_BGP, resolveNextHop } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { describeRoute, TABLE_MAIN, type Route } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { kernelRefusal, priorityOf, throughIpip } from "./bgpFilters.ts";
import { heldStatus } from "./bgpHeld.ts";
import type { BgpPlan } from "./bgpPlan.ts";
import { bgpSockets } from "./bgpSockets.io.ts";

/** BGP and the kernel: what the speaker learns becomes routes, and what this node holds is announced. */
export interface Routing {
  /** Makes this the configuration. What is as before is not touched. */
  apply(plan: BgpPlan, routerId: string): void;
  /** The kernel's own routes or links changed: next hops may be reached in another way. */
  kernelChanged(): void;
  /** The kernel's routes that are not BGP's. */
  otherRoutes(): readonly Route[];
  /** Whether what was learned before a restart has been learned again. */
  settled(): boolean;
  /** Those that wait for a password are among them. */
  peers(): PeerStatus[];
  routes(query: RouteQuery): RouteView[];
  /** Why the kernel is not given a route that was learned; undefined where it is. */
  refusedByKernel(route: Pick<RouteChange, "prefix">): string | undefined;
  /** Asks a peer to tell all again. False where there is none of that name, or its session is not up. */
  refresh(peer: string): boolean;
  /** All that peers said, as MRT records. */
  dump(): Iterable<Uint8Array>;
  /** Gives what a session says and hears, as MRT records, until the function it returns is called. */
  trace(peer: string, write: (record: Uint8Array) => void): () => void;
  /** Ends the sessions without a word, so that peers keep our routes while a new agent starts (RFC 4724). */
  abandon(): Promise<void>;
}

export interface RoutingOptions {
  readonly rtnetlink: Rtnetlink;
  readonly routeTable: RouteTable;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** Pauses between tries to start. */
const RETRY_MS = { first: 200, longest: 10_000 };

export function createRouting({ rtnetlink, routeTable, log }: RoutingOptions): Routing {
  const learned = createLearnedRoutes(rtnetlink, routeTable);
  let speaker: Speaker | undefined;
  /** What the running speaker was made from; another value needs a new one. */
  let identity: Identity | undefined;
  /** Where it listens. */
  let place: Place | undefined;
  let kernelRoutes: readonly Route[] | undefined;
  let plan: BgpPlan | undefined;
  /** What the speaker was last given, as text. */
  let given = { peers: "", origination: "", kernel: "" };
  /** The ways to peers that were last written, as text. */
  let staticRoutes = "";
  const heldSince = new Map<string, number>();
  const filterNumbers = new Map<string, number>();
  const peering = new Map<string, { device: number; address: Address }>();

  /** The kernel's routes that are not BGP's, as far as they can lead to a next hop. */
  function ownRoutes(): readonly Route[] {
    kernelRoutes ??= rtnetlink.routes({ table: TABLE_MAIN }).filter(({ protocol }) => protocol !== PROTOCOL_BGP);
    return kernelRoutes;
  }

  function resolve(nextHop: Address): ResolvedNextHop | undefined {
    const hop = resolveNextHop(nextHop, ownRoutes());
    if (hop?.device === undefined) return undefined;
    const name = rtnetlink.link(hop.device)?.name;
    if (name === undefined) return undefined;
    const direct = hop.gateway === undefined || sameAddress(hop.gateway, nextHop);
    return { ...(direct ? {} : { gateway: hop.gateway! }), interface: name };
  }

  function asLearned({ prefix, nextHops, attributes }: RouteChange): LearnedRoute {
    if (plan === undefined || kernelRefusal(plan.kernel, prefix) !== undefined) return { prefix, nextHops: [] };
    const { kernel } = plan;
    return {
      prefix,
      nextHops: nextHops.map((hop) =>
        throughIpip(kernel, prefix, hop.nextHop) ? { nextHop: hop.nextHop, interface: IPIP_DEVICE, onlink: true } : hop,
      ),
      metric: priorityOf(attributes?.localPref, plan.kernel.priorities[prefix.address.family]),
    };
  }

  async function start({ who, where }: Wish, restarting: boolean): Promise<Speaker> {
    const made = await createSpeaker({
      asn: who.asn,
      routerId: who.routerId,
      port: where.port,
      ...(where.addresses !== undefined && { listenAddresses: where.addresses }),
      restart: { restarting, forwardingPreserved: restarting },
      sockets: bgpSockets,
      resolve,
      log,
    });
    made.on("routes", (changes) => learned.apply(changes.map(asLearned)));
    made.on("settled", () => routeTable.allowPrune("bgp"));
    if (made.settled) routeTable.allowPrune("bgp");
    return made;
  }

  /** Another AS or router ID is another router: peers forget what this one has said. */
  async function become(next: Wish): Promise<Speaker> {
    let restarting = rtnetlink.routes({ protocol: PROTOCOL_BGP }).length > 0;
    if (speaker !== undefined) {
      log("info", "BGP starts anew, since its identity has changed", { was: identity, is: next.who });
      const old = speaker;
      speaker = undefined;
      await old.close("the node's BGP configuration has changed");
      restarting = false;
      learned.clear();
      routeTable.reconcile();
    }
    given = { peers: "", origination: "", kernel: "" };
    return start(next, restarting);
  }

  /** Listens somewhere else, which ends no session. */
  async function move(to: Speaker, { where }: Wish): Promise<void> {
    log("info", "BGP listens elsewhere", { was: place, is: where });
    place = undefined;
    await to.listenOn(where.port, where.addresses);
  }

  interface Wish {
    readonly plan: BgpPlan;
    readonly who: Identity;
    readonly where: Place;
  }
  let wish: Wish | undefined;
  let working: Promise<void> | undefined;
  let retry: NodeJS.Timeout | undefined;
  let retryMs = RETRY_MS.first;
  let abandoned = false;

  /** Carries out the last wish; a new one that comes while the speaker starts is carried out after it. */
  async function work(): Promise<void> {
    for (let next = wish; next !== undefined && !abandoned; next = wish) {
      wish = undefined;
      plan = next.plan;
      try {
        if (speaker === undefined || !isSame(identity, next.who)) speaker = await become(next);
        else if (!isSame(place, next.where)) await move(speaker, next);
      } catch (error) {
        wish ??= next;
        throw error;
      }
      identity = next.who;
      place = next.where;
      retryMs = RETRY_MS.first;
      carryOut(next.plan, speaker);
    }
  }

  function begin(): void {
    clearTimeout(retry);
    working ??= work()
      .catch((error: unknown) => {
        log("warn", "BGP cannot be set up as configured", { reason: messageOf(error), retryMs });
        // A port that is taken may be free later.
        if (wish !== undefined && !abandoned) retry = setTimeout(begin, retryMs).unref();
        retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
      })
      .finally(() => {
        working = undefined;
      });
  }

  /** Gives the speaker what is new to it. */
  function carryOut(wanted: BgpPlan, to: Speaker): void {
    if (writeStaticRoutes()) to.recheckNextHops();
    setPeeringAddresses(wanted);
    const origination = wanted.origination
      .map(({ prefix, attributes, lastResort }) => `${formatPrefix(prefix)} ${attributes?.localPref} ${lastResort}`)
      .join(" ");
    if (origination !== given.origination || given.peers === "") to.setOrigination(wanted.origination);
    const kernel = wanted.kernel.refused.map(({ prefix }) => formatPrefix(prefix)).join(" ");
    const { ipip, priorities } = wanted.kernel;
    const tunnelled = JSON.stringify(ipip, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
    const kernelKey = `${kernel} ${priorities[4]} ${priorities[6]} ${tunnelled}`;
    if (given.kernel !== "" && kernelKey !== given.kernel) learned.apply(to.learned().map(asLearned));
    const peers = `peers: ${wanted.peers.map(textOf).join("\n")}`;
    if (peers !== given.peers) {
      // A new peer may be a pod, whose route is ours, so that nobody told of it.
      kernelRoutes = undefined;
      to.recheckNextHops();
      to.setPeers(wanted.peers);
    }
    given = { peers, origination, kernel: kernelKey };
    for (const name of heldSince.keys()) if (!wanted.held.some((peer) => peer.name === name)) heldSince.delete(name);
    for (const { name, address, reason } of wanted.held) {
      if (heldSince.has(name)) continue;
      heldSince.set(name, Date.now());
      log("warn", "a BGP session is not started", { peer: name, address, reason });
    }
  }

  /** A peer's configuration as text; filters, which many share and which are long, by number. */
  function textOf({ importFilter, exportFilter, ...plain }: PeerConfig): string {
    const numbers = [importFilter, exportFilter].map((rules) => {
      const key = rules === undefined ? "" : filterKey(rules);
      const number = filterNumbers.get(key) ?? filterNumbers.size;
      filterNumbers.set(key, number);
      return number;
    });
    return `${JSON.stringify(plain)} ${numbers.join(" ")}`;
  }

  /** Says whether they have changed: next hops may be reached in another way, of which the kernel says nothing. */
  function writeStaticRoutes(): boolean {
    const routes = (plan?.staticRoutes ?? []).flatMap(({ destination, gateway }) => {
      const device = resolveNextHop(gateway, ownRoutes())?.device;
      return device === undefined ? [] : [peerRoute(destination, gateway, device)];
    });
    const text = routes.map((route) => describeRoute(route)).join();
    if (text === staticRoutes) return false;
    staticRoutes = text;
    routeTable.want("bgp peers", "agent", routes);
    routeTable.reconcile();
    kernelRoutes = undefined;
    return true;
  }

  /** The addresses at which pods that are routers find this node, on the pods' interfaces. */
  function setPeeringAddresses({ peeringAddresses }: BgpPlan): void {
    const wanted = new Map<string, { device: number; address: Address }>(
      peeringAddresses.flatMap(({ hostInterface, address }) => {
        const device = rtnetlink.link(hostInterface)?.index;
        return device === undefined ? [] : [[`${device} ${formatAddress(address)}`, { device, address }]];
      }),
    );
    for (const [key, { device, address }] of wanted) {
      if (peering.has(key)) continue;
      rtnetlink.replaceAddress(onlyAddress(device, address));
      peering.set(key, { device, address });
    }
    for (const [key, { device, address }] of peering) {
      if (wanted.has(key)) continue;
      rtnetlink.deleteAddress(onlyAddress(device, address));
      peering.delete(key);
    }
  }

  return {
    apply(wanted, routerId) {
      wish = {
        plan: wanted,
        who: { asn: wanted.asn, routerId },
        where: { port: wanted.listenPort, addresses: wanted.listenAddresses },
      };
      begin();
    },
    kernelChanged() {
      kernelRoutes = undefined;
      writeStaticRoutes();
      if (plan !== undefined) setPeeringAddresses(plan);
      learned.linksChanged();
      speaker?.recheckNextHops();
    },
    otherRoutes: ownRoutes,
    settled: () => speaker?.settled ?? false,
    peers: () =>
      [
        ...(speaker?.peers() ?? []),
        ...(plan?.held ?? []).map((peer) => heldStatus(peer, heldSince.get(peer.name) ?? Date.now())),
      ].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    routes: (query) => speaker?.routes(query) ?? [],
    refusedByKernel: ({ prefix }) => (plan === undefined ? undefined : kernelRefusal(plan.kernel, prefix)),
    refresh(name) {
      const isUp = speaker?.peers().some((peer) => peer.name === name && peer.state === "established") ?? false;
      if (isUp) speaker?.refresh(name);
      return isUp;
    },
    dump: () => speaker?.dump() ?? [],
    trace: (name, write) => speaker?.trace(name, write) ?? ((): void => undefined),
    async abandon() {
      abandoned = true;
      clearTimeout(retry);
      await working;
      await speaker?.abandon();
    },
  };
}

interface Identity {
  readonly asn: number;
  readonly routerId: string;
}

interface Place {
  readonly port: number;
  /** Every address of the host where undefined. */
  readonly addresses: readonly string[] | undefined;
}

function isSame<Value>(a: Value | undefined, b: Value): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function onlyAddress(device: number, address: Address) {
  const length = address.family === 4 ? 32 : 128;
  return { device, address: { address, length }, ...(address.family === 6 && { noDuplicateDetection: true }) };
}

import { closeSync, openSync } from "node:fs";
import type { Family } from "../ip/address.ts";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import * as addr from "./addr.ts";
import type { Message, Request } from "./framing.ts";
import { type Ipv4Settings, setIpv4 } from "./ipv4Settings.ts";
import * as link from "./link.ts";
import * as neigh from "./neigh.ts";
import { type LinkRemover, openLinkRemover } from "./removal.io.ts";
import * as route from "./route.ts";
import * as rule from "./rule.ts";
import { NETLINK_ROUTE, type NetlinkSocket, openNetlink, type Refusal } from "./socket.io.ts";

/** One change to the routes, for `applyRoutes`. */
export interface RouteChange {
  readonly kind: "add" | "replace" | "remove";
  readonly route: route.RouteSpec;
}

/**
 * Links, addresses, routes, neighbours and rules of one network namespace, listed and written. All of it is synchronous:
 * a request takes the kernel 10 to 30 µs. Errors are `Failure` with the errno's name, and say what was attempted, on
 * what, and why the kernel refused: `Cannot add route 10.1.2.0/26 via 192.0.2.7: network is unreachable (ENETUNREACH)`.
 */
export interface Rtnetlink {
  links(): link.Link[];
  /** By index or name; undefined where there is none. */
  link(link: number | string): link.Link | undefined;
  /** Returns the new link: of a veth, the end in this namespace. */
  addLink(spec: link.LinkSpec): link.Link;
  setLink(index: number, changes: link.LinkChanges): void;
  setIpv4(index: number, settings: Ipv4Settings): void;
  /** Says whether it was there. */
  deleteLink(index: number): boolean;
  /**
   * Resolves when the link is gone. The kernel keeps whoever deletes a link waiting for 15 to 20 ms: this way another
   * thread waits, and several links share one wait.
   */
  deleteLinkInBackground(index: number): Promise<void>;

  addresses(): addr.LinkAddress[];
  addAddress(spec: addr.LinkAddressSpec): void;
  replaceAddress(spec: addr.LinkAddressSpec): void;
  /** Says whether it was there. */
  deleteAddress(spec: addr.LinkAddressSpec): boolean;

  /** Routes of all tables, and of both families, where the filter names none. */
  routes(filter?: route.RouteFilter): route.Route[];
  addRoute(spec: route.RouteSpec): void;
  replaceRoute(spec: route.RouteSpec): void;
  /** Says whether it was there. */
  deleteRoute(spec: route.RouteSpec): boolean;
  /**
   * Many changes in few writes, in order; for each, at its place, why it failed, or undefined. A removal of what is not
   * there did not fail. A change takes 5 to 10 µs: pass a few thousand at a time, so that the event loop has its turn.
   */
  applyRoutes(changes: readonly RouteChange[]): (Failure | undefined)[];

  /** Of both families, with proxy entries after the others. */
  neighbours(): neigh.Neighbour[];
  addNeighbour(spec: neigh.NeighbourSpec): void;
  replaceNeighbour(spec: neigh.NeighbourSpec): void;
  deleteNeighbour(spec: Pick<neigh.NeighbourSpec, "device" | "address" | "proxy">): boolean;

  /** Forwarding entries of VXLANs and bridges. */
  forwarding(): neigh.ForwardingEntry[];
  addForwarding(spec: neigh.ForwardingSpec): void;
  appendForwarding(spec: neigh.ForwardingSpec): void;
  replaceForwarding(spec: neigh.ForwardingSpec): void;
  deleteForwarding(spec: neigh.ForwardingSpec): boolean;

  /** Of both families. */
  rules(): rule.Rule[];
  addRule(rule: rule.Rule): void;
  deleteRule(rule: rule.Rule): boolean;

  close(): void;
}

const FAMILIES: readonly Family[] = [4, 6];

/** `namespace` is the path of a network namespace; without it the calling thread's. */
export function openRtnetlink(namespace?: string): Rtnetlink {
  const socket = openNetlink(NETLINK_ROUTE, namespace);
  let remover: LinkRemover | undefined;

  function change(request: Request, attempt: () => string): void {
    socket.request(request, attempt, () => undefined);
  }
  /** False where the kernel says that there is nothing to remove. */
  function remove(request: Request, attempt: () => string, absent: readonly string[]): boolean {
    try {
      change(request, attempt);
      return true;
    } catch (error) {
      if (absent.includes(codeOf(error) ?? "")) return false;
      throw error;
    }
  }

  function find(wanted: number | string): link.Link | undefined {
    try {
      return socket.request(link.getLink(wanted), () => `read link ${wanted}`, link.decodeLink)[0];
    } catch (error) {
      if (codeOf(error) === "ENODEV") return undefined;
      throw error;
    }
  }
  /** For sentences about a failure only: it asks the kernel. */
  function nameOf(index: number): string {
    try {
      return find(index)?.name ?? String(index);
    } catch {
      return String(index);
    }
  }

  return {
    links: () => socket.dump(link.listLinks(), () => "list links", link.decodeLink),
    link: find,
    addLink: (spec) => addLink(socket, spec),
    setLink(index, changes) {
      withNamespaces((descriptorOf) => {
        change(
          link.setLink(index, changes, descriptorOf),
          () => `set ${link.describeChanges(changes)} on link ${nameOf(index)}`,
        );
      });
    },
    setIpv4: (index, settings) =>
      change(setIpv4(index, settings), () => `set ${JSON.stringify(settings)} on link ${nameOf(index)}`),
    deleteLink: (index) => remove(link.deleteLink(index), () => `delete link ${index}`, ["ENODEV"]),
    deleteLinkInBackground(index) {
      remover ??= openLinkRemover(namespace);
      return remover.remove(index);
    },

    addresses: () => socket.dump(addr.listAddresses(), () => "list addresses", addr.decodeAddress),
    addAddress: (spec) => change(addr.addAddress(spec), () => `add address ${addr.describeAddress(spec, nameOf)}`),
    replaceAddress: (spec) =>
      change(addr.replaceAddress(spec), () => `set address ${addr.describeAddress(spec, nameOf)}`),
    deleteAddress: (spec) =>
      remove(addr.deleteAddress(spec), () => `delete address ${addr.describeAddress(spec, nameOf)}`, [
        "EADDRNOTAVAIL",
        "ENODEV",
      ]),

    routes(filter = {}) {
      const families = filter.family === undefined ? FAMILIES : [filter.family];
      return families.flatMap((family) => listRoutes(socket, { ...filter, family }));
    },
    addRoute: (spec) => change(route.addRoute(spec), () => `add route ${route.describeRoute(spec, nameOf)}`),
    replaceRoute: (spec) =>
      change(route.replaceRoute(spec), () => `replace route ${route.describeRoute(spec, nameOf)}`),
    deleteRoute: (spec) =>
      remove(route.deleteRoute(spec), () => `delete route ${route.describeRoute(spec, nameOf)}`, NO_SUCH_ROUTE),
    applyRoutes(changes) {
      const refusals = socket.batch(changes.map((item) => ROUTE_REQUEST[item.kind](item.route)));
      return refusals.map((refusal, at) => {
        const item = changes[at]!;
        const absent = item.kind === "remove" ? NO_SUCH_ROUTE : [];
        return failure(
          refusal,
          () => `${ROUTE_VERB[item.kind]} route ${route.describeRoute(item.route, nameOf)}`,
          absent,
        );
      });
    },

    neighbours: () =>
      [false, true].flatMap((proxy) => FAMILIES.flatMap((family) => listNeighbours(socket, family, proxy))),
    addNeighbour: (spec) =>
      change(neigh.addNeighbour(spec), () => `add neighbour ${neigh.describeNeighbour(spec, nameOf)}`),
    replaceNeighbour: (spec) =>
      change(neigh.replaceNeighbour(spec), () => `replace neighbour ${neigh.describeNeighbour(spec, nameOf)}`),
    deleteNeighbour: (spec) =>
      remove(neigh.deleteNeighbour(spec), () => `delete neighbour ${neigh.describeNeighbour(spec, nameOf)}`, [
        "ENOENT",
        "ENODEV",
      ]),

    forwarding: () => socket.dump(neigh.listForwarding(), () => "list forwarding entries", asForwarding),
    addForwarding: (spec) =>
      change(neigh.addForwarding(spec), () => `add forwarding entry ${neigh.describeForwarding(spec, nameOf)}`),
    appendForwarding: (spec) =>
      change(neigh.appendForwarding(spec), () => `append forwarding entry ${neigh.describeForwarding(spec, nameOf)}`),
    replaceForwarding: (spec) =>
      change(neigh.replaceForwarding(spec), () => `replace forwarding entry ${neigh.describeForwarding(spec, nameOf)}`),
    deleteForwarding: (spec) =>
      remove(neigh.deleteForwarding(spec), () => `delete forwarding entry ${neigh.describeForwarding(spec, nameOf)}`, [
        "ENOENT",
        "ENODEV",
      ]),

    rules: () => FAMILIES.flatMap((family) => listRules(socket, family)),
    addRule: (spec) => change(rule.addRule(spec), () => `add rule ${rule.describeRule(spec)}`),
    deleteRule: (spec) => remove(rule.deleteRule(spec), () => `delete rule ${rule.describeRule(spec)}`, ["ENOENT"]),

    close() {
      socket.close();
      remover?.close();
    },
  };
}

const ROUTE_REQUEST = { add: route.addRoute, replace: route.replaceRoute, remove: route.deleteRoute } as const;
const ROUTE_VERB = { add: "add", replace: "replace", remove: "delete" } as const;
/** ENODEV: it went with its link. */
const NO_SUCH_ROUTE = ["ESRCH", "ENODEV"];

function failure(refusal: Refusal | undefined, attempt: () => string, absent: readonly string[]): Failure | undefined {
  if (refusal === undefined || absent.includes(refusal.code)) return undefined;
  return new Failure(refusal.code, `Cannot ${attempt()}: ${refusal.reason}`);
}

/** The new link comes in the answer (NLM_F_ECHO, Linux 6.2); older kernels are asked for it. */
function addLink(socket: NetlinkSocket, spec: link.LinkSpec): link.Link {
  const attempt = (): string => `add ${link.describeLink(spec)}`;
  return withNamespaces((descriptorOf) => {
    const echoed = socket.request(link.addLink(spec, descriptorOf), attempt, link.decodeLink)[0];
    const made = echoed ?? socket.request(link.getLink(spec.name), attempt, link.decodeLink)[0];
    if (made === undefined) throw new Failure("ENODEV", `Cannot ${attempt()}: it is not there after it was made`);
    return made;
  });
}

/*
 * A kernel without IPv6 answers with the list of all families it has, so the answers are sorted out here.
 */

/** The kernel filters; it says ENOENT where the table of the filter has never had a route. */
function listRoutes(socket: NetlinkSocket, filter: route.RouteFilter & { family: Family }): route.Route[] {
  try {
    return socket.dump(
      route.listRoutes(filter),
      () => `list IPv${filter.family} routes`,
      (message) => {
        const item = route.decodeRoute(message);
        return item?.destination.address.family === filter.family ? item : undefined;
      },
    );
  } catch (error) {
    if (filter.table !== undefined && codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

function listNeighbours(socket: NetlinkSocket, family: Family, proxy: boolean): neigh.Neighbour[] {
  return socket.dump(
    neigh.listNeighbours(family, proxy),
    () => `list IPv${family} neighbours`,
    (message) => {
      const item = neigh.decodeNeighbour(message);
      return item !== undefined && "address" in item && item.address.family === family ? item : undefined;
    },
  );
}

function listRules(socket: NetlinkSocket, family: Family): rule.Rule[] {
  return socket.dump(
    rule.listRules(family),
    () => `list IPv${family} rules`,
    (message) => {
      const item = rule.decodeRule(message);
      return item?.family === family ? item : undefined;
    },
  );
}

function asForwarding(message: Message): neigh.ForwardingEntry | undefined {
  const entry = neigh.decodeNeighbour(message);
  return entry !== undefined && !("address" in entry) ? entry : undefined;
}

/** Runs `work` with a way to name namespaces to the kernel, which is by open descriptors. */
function withNamespaces<Result>(work: (descriptorOf: link.NamespaceDescriptor) => Result): Result {
  const open: number[] = [];
  try {
    return work((path) => {
      try {
        const fd = openSync(path, "r");
        open.push(fd);
        return fd;
      } catch (error) {
        throw new Failure(codeOf(error) ?? "EIO", `Cannot open network namespace ${path}: ${messageOf(error)}`, error);
      }
    });
  } finally {
    for (const fd of open) closeSync(fd);
  }
}

import { type Address, type Family, formatAddress, parseAddress, sameAddress } from "../ip/address.ts";
import { type InterfaceAddress, networkOf, parsePrefix, prefixContains } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import { bestRoute, sourceTowards } from "../dataplane/routes.ts";
import type { LinkAddress } from "../netlink/addr.ts";
import type { Link } from "../netlink/link.ts";
import type { Route } from "../netlink/route.ts";

/** The interface by which this node reaches the others: `LookupExtIface` of flannel (pkg/ipmatch). */

export interface ExternalInterface {
  readonly name: string;
  /** Of the link. */
  readonly index: number;
  readonly mtu: number;
  /** The interface's own address. */
  readonly ipv4?: InterfaceAddress;
  readonly ipv6?: InterfaceAddress;
  /** What other nodes send to: `-public-ip`, or the interface's own. */
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
}

export interface ExternalChoice {
  /** Names or addresses, the first that fits. */
  readonly interfaces: readonly string[];
  /** Regular expressions for names and addresses, the first that fits; asked after `interfaces`. */
  readonly patterns: readonly string[];
  /** The interface by which the kernel reaches it. */
  readonly canReach?: string;
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
}

/** The kernel's own view, as `Rtnetlink` lists it. */
export interface KernelView {
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  /** Of the main table. */
  readonly routes: readonly Route[];
}

export class ExternalInterfaceError extends Failure<"no-interface"> {
  constructor(message: string) {
    super("no-interface", message);
  }
}

const DEFAULT = { 4: "0.0.0.0/0", 6: "::/0" } as const;

/** Chooses for the families that the configuration has. Throws `ExternalInterfaceError` with what was looked for. */
export function chooseExternal(
  choice: ExternalChoice,
  families: readonly Family[],
  view: KernelView,
): ExternalInterface {
  const link = findLink(choice, families, view);
  const own = (family: Family): InterfaceAddress | undefined => addressOf(link, family, choice, view);
  const ipv4 = families.includes(4) ? own(4) : undefined;
  const ipv6 = families.includes(6) ? own(6) : undefined;
  const missing = families.find((family) => (family === 4 ? ipv4 : ipv6) === undefined);
  if (missing !== undefined) {
    throw new ExternalInterfaceError(
      `interface ${link.name} has no IPv${missing} address that other nodes could reach`,
    );
  }
  return {
    name: link.name,
    index: link.index,
    mtu: link.mtu,
    ...(ipv4 !== undefined && { ipv4, publicIp: choice.publicIp ?? ipv4.address }),
    ...(ipv6 !== undefined && { ipv6, publicIpv6: choice.publicIpv6 ?? ipv6.address }),
  };
}

function findLink(choice: ExternalChoice, families: readonly Family[], view: KernelView): Link {
  const { interfaces, patterns, canReach } = choice;
  for (const wanted of interfaces) {
    const found = named(wanted, view);
    if (found !== undefined) return found;
  }
  for (const pattern of patterns) {
    const expression = new RegExp(pattern);
    const found = view.links.find(
      (link) =>
        expression.test(link.name) ||
        view.addresses.some(
          ({ device, address }) => device === link.index && expression.test(formatAddress(address.address)),
        ),
    );
    if (found !== undefined) return found;
  }
  if (interfaces.length + patterns.length > 0) {
    const wanted = [...interfaces, ...patterns].join(", ");
    throw new ExternalInterfaceError(`no interface is, or has the address of, ${wanted}`);
  }
  if (canReach !== undefined) {
    const device = bestRoute(parseAddress(canReach), view.routes)?.nextHops[0]?.device;
    const found = view.links.find(({ index }) => index === device);
    if (found !== undefined) return found;
    throw new ExternalInterfaceError(`no route leads to ${canReach}`);
  }
  const given = [choice.publicIp, choice.publicIpv6].find((address) => address !== undefined);
  const holder = given === undefined ? undefined : named(formatAddress(given), view);
  if (holder !== undefined) return holder;
  const family = families.includes(4) ? 4 : 6;
  const device = bestRoute(parsePrefix(DEFAULT[family]).address, view.routes)?.nextHops[0]?.device;
  const found = view.links.find(({ index }) => index === device);
  if (found !== undefined) return found;
  throw new ExternalInterfaceError(
    `there is no IPv${family} default route to tell the interface by: name it with -iface`,
  );
}

function named(wanted: string, { links, addresses }: KernelView): Link | undefined {
  const link = links.find(({ name }) => name === wanted);
  if (link !== undefined) return link;
  const device = addresses.find(({ address }) => formatAddress(address.address) === wanted)?.device;
  return links.find(({ index }) => index === device);
}

/** Link-local addresses are no way to reach a node; one that was asked for comes before others. */
function addressOf(link: Link, family: Family, choice: ExternalChoice, view: KernelView): InterfaceAddress | undefined {
  const usable = view.addresses.filter(
    ({ device, address, scope }) => device === link.index && address.address.family === family && scope === 0,
  );
  const wanted = [...choice.interfaces, formatOptional(family === 4 ? choice.publicIp : choice.publicIpv6)];
  const asked = usable.find(({ address }) => wanted.includes(formatAddress(address.address)));
  if (asked !== undefined) return asked.address;
  const source = sourceTowards(parsePrefix(DEFAULT[family]).address, view.routes, usable);
  const preferred = usable.find(({ address }) => source !== undefined && sameAddress(address.address, source));
  return (preferred ?? usable[0])?.address;
}

const formatOptional = (address: Address | undefined): string => (address === undefined ? "" : formatAddress(address));

/** Whether the address is on the interface's own segment, so that packets to it need no router. */
export function isOnLink(external: ExternalInterface, address: Address): boolean {
  const own = address.family === 4 ? external.ipv4 : external.ipv6;
  return own !== undefined && prefixContains(networkOf(own.address, own.length), address);
}

import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import {
  formatPrefix,
  networkOf,
  parseInterfaceAddress,
  parsePrefix,
  prefixContains,
  type InterfaceAddress,
  type Prefix,
} from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";

/**
 * Which of the machine's addresses is the node's: `IP_AUTODETECTION_METHOD` of calico/node. The answer carries its
 * reason, since a wrong choice (a VPN's, Docker's, a virtual address) is a cluster's most frequent trouble.
 */
export type Method =
  | { readonly kind: "first-found" }
  | { readonly kind: "can-reach"; readonly destination: Address }
  | { readonly kind: "interface"; readonly patterns: readonly RegExp[] }
  | { readonly kind: "skip-interface"; readonly patterns: readonly RegExp[] }
  | { readonly kind: "cidr"; readonly prefixes: readonly Prefix[] }
  | { readonly kind: "kubernetes-internal-ip" };

export interface DetectLink {
  readonly name: string;
  readonly up: boolean;
  readonly addresses: readonly InterfaceAddress[];
}

export interface DetectInput {
  readonly family: Family;
  /** In the kernel's order. */
  readonly links: readonly DetectLink[];
  /** The source address that the kernel would take towards a destination, for `can-reach`. */
  readonly sourceTowards: (destination: Address) => Address | undefined;
  /** Addresses of type InternalIP of the Kubernetes Node, for `kubernetes-internal-ip`. */
  readonly internalAddresses: readonly Address[];
}

export interface Detected {
  readonly address: InterfaceAddress;
  readonly interfaceName: string;
  /** One sentence for the log and the status. */
  readonly reason: string;
}

/** Interfaces that never carry the node's address, by what their names begin with. */
const IGNORED =
  /^(docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali|nodelocaldns)/;

export class AutodetectError extends Failure<"bad-method" | "nothing-found"> {}

/**
 * Reads `first-found`, `can-reach=8.8.8.8`, `interface=eth.*,ens.*`, `skip-interface=…`, `cidr=10.0.0.0/8,…`,
 * `kubernetes-internal-ip`. As with Calico, an interface's pattern may match any part of its name, and a network may be
 * written with an address in it. Throws `AutodetectError`.
 */
export function parseMethod(text: string): Method {
  const at = text.indexOf("=");
  const kind = at < 0 ? text : text.slice(0, at);
  const argument = at < 0 ? "" : text.slice(at + 1);
  const list = argument
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  const needsArgument = (): void => {
    if (list.length === 0)
      throw new AutodetectError("bad-method", `autodetection method "${text}": "${kind}=" needs a value`);
  };
  try {
    switch (kind) {
      case "first-found":
      case "kubernetes-internal-ip":
        return { kind };
      case "can-reach":
        needsArgument();
        return { kind, destination: parseAddress(argument) };
      case "interface":
      case "skip-interface":
        needsArgument();
        return { kind, patterns: list.map((part) => new RegExp(part)) };
      case "cidr":
        needsArgument();
        return { kind, prefixes: list.map(networkAround) };
    }
  } catch (error) {
    if (error instanceof AutodetectError) throw error;
    throw new AutodetectError("bad-method", `autodetection method "${text}": ${messageOf(error)}`, error);
  }
  throw new AutodetectError(
    "bad-method",
    `autodetection method "${text}" is not first-found, can-reach=, interface=, skip-interface=, cidr= or kubernetes-internal-ip`,
  );
}

function networkAround(text: string): Prefix {
  const { address, length } = parseInterfaceAddress(text);
  return networkOf(address, length);
}

/** Chooses, or throws `AutodetectError` with every interface that was looked at and why it was passed over. */
export function detectAddress(method: Method, input: DetectInput): Detected {
  const passedOver: string[] = [];
  // From the last link to the first, as Calico looks at them: a node must not change its address by moving over.
  const usable = input.links
    .toReversed()
    .flatMap((link) =>
      link.addresses
        .filter(({ address }) => address.family === input.family && isUsable(address))
        .map((address) => ({ link, address })),
    );
  for (const { link, address } of usable) {
    const verdict = judge(method, link, address, input);
    if (verdict.accepted) return { address, interfaceName: link.name, reason: verdict.reason };
    passedOver.push(`${link.name} ${formatPrefix(address)}: ${verdict.reason}`);
  }
  const looked = passedOver.length === 0 ? "no interface has an address of the family" : passedOver.join("; ");
  throw new AutodetectError(
    "nothing-found",
    `no IPv${input.family} address of this node found by ${describe(method)}: ${looked}`,
  );
}

/** Loopback, link-local and unspecified addresses are no way to reach a node. */
function isUsable(address: Address): boolean {
  const unusable =
    address.family === 4 ? ["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8"] : ["::1/128", "fe80::/10", "::/128"];
  return !unusable.some((text) => prefixContains(parsePrefix(text), address));
}

function judge(
  method: Method,
  link: DetectLink,
  address: InterfaceAddress,
  input: DetectInput,
): { accepted: boolean; reason: string } {
  const yes = (reason: string) => ({ accepted: true, reason });
  const no = (reason: string) => ({ accepted: false, reason });
  if (!link.up) return no("the interface is down");
  switch (method.kind) {
    case "first-found":
      return IGNORED.test(link.name)
        ? no("an interface of this name is never the node's")
        : yes(`first address found, on ${link.name}`);
    case "interface":
      return method.patterns.some((pattern) => pattern.test(link.name))
        ? yes(`${link.name} matches ${describe(method)}`)
        : no("the name does not match");
    case "skip-interface":
      if (IGNORED.test(link.name)) return no("an interface of this name is never the node's");
      return method.patterns.some((pattern) => pattern.test(link.name))
        ? no("the name is to be skipped")
        : yes(`first address found, on ${link.name}, after ${describe(method)}`);
    case "cidr":
      return method.prefixes.some((prefix) => prefixContains(prefix, address.address))
        ? yes(`${formatPrefix(address)} lies in ${describe(method)}`)
        : no("outside the networks");
    case "can-reach": {
      const destination = formatAddress(method.destination);
      const source = input.sourceTowards(method.destination);
      if (source === undefined) return no(`no route to ${destination}`);
      return source.value === address.address.value
        ? yes(`the kernel reaches ${destination} from it`)
        : no(`the kernel reaches ${destination} from ${formatAddress(source)}`);
    }
    case "kubernetes-internal-ip":
      return input.internalAddresses.some(
        (internal) => internal.family === address.address.family && internal.value === address.address.value,
      )
        ? yes("it is the Kubernetes Node's InternalIP")
        : no("not an InternalIP of the Kubernetes Node");
  }
}

function describe(method: Method): string {
  switch (method.kind) {
    case "first-found":
    case "kubernetes-internal-ip":
      return method.kind;
    case "can-reach":
      return `can-reach=${formatAddress(method.destination)}`;
    case "interface":
    case "skip-interface":
      return `${method.kind}=${method.patterns.map(({ source }) => source).join(",")}`;
    case "cidr":
      return `cidr=${method.prefixes.map(formatPrefix).join(",")}`;
  }
}

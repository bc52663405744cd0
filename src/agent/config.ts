import { type Method, parseMethod } from "../dataplane/autodetect.ts";
import { parseAddress, type Address, type Family } from "../ip/address.ts";
import { networkOf, parseInterfaceAddress, type InterfaceAddress, type Prefix } from "../ip/prefix.ts";
import { type FlannelOptions, readFlannelCommand } from "../flannel/flags.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { asNumber as asNumberSchema } from "../resources/fields.ts";
import { parseWith } from "../resources/schema.ts";
import { parseSelector } from "../resources/selector.ts";

/** What an agent is told by its environment: the variables of calico/node that have a meaning so far, and our own. */
export interface AgentConfig {
  readonly nodeName: string;
  /** Sockets and endpoints: /var/run/calico. */
  readonly runDirectory: string;
  /** What survives a reboot: /var/lib/calico. */
  readonly libDirectory: string;
  readonly datastore: DatastoreConfig;
  /** `IP` and `IP6`. */
  readonly address: { readonly [F in Family]: AddressChoice };
  /** `AS`: written to the node; undefined leaves what is there. */
  readonly asNumber?: number;
  readonly networkingBackend: "bird" | "vxlan" | "none";
  /** `CARACAL_FLANNEL`: flannel's settings (`FLANNELD_…`) where the agent runs it; absent elsewhere. */
  readonly flannel?: FlannelOptions;
  readonly routerId?: string;
  /** `NAMESPACE`: where the Secrets with BGP passwords are. */
  readonly secretNamespace: string;
  /** Pools that are made when there are none. */
  readonly defaultPools: readonly DefaultPool[];
  /** `CARACAL_CUT_FORBIDDEN_FLOWS`: whether connections end when policy forbids them; as in Kubernetes they stay else. */
  readonly cutForbiddenFlows: boolean;
  /** `CARACAL_NFTABLES_OWNER`: whether others are kept from changing our tables of nf_tables, where the kernel can do that. */
  readonly ownsTables: boolean;
  /** `AUTODETECT_POLL_INTERVAL`, milliseconds. */
  readonly autodetectIntervalMs: number;
  /** `CARACAL_PATH_CHECK_INTERVAL`: how often the way to each other node is tried out; 0: never. Milliseconds. */
  readonly pathCheckIntervalMs: number;
  /** FELIX_* variables, for the FelixConfiguration. */
  readonly felix: Readonly<Record<string, string>>;
}

export type DatastoreConfig =
  | { readonly kind: "socket"; readonly path: string }
  | { readonly kind: "kubeconfig"; readonly path: string }
  | { readonly kind: "in-cluster" };

/** Of one family: found by a method, given, or not used. */
export type AddressChoice =
  | { readonly kind: "detect"; readonly method: Method }
  | { readonly kind: "fixed"; readonly address: InterfaceAddress | Address }
  | { readonly kind: "none" };

export interface DefaultPool {
  readonly name: string;
  readonly cidr: Prefix;
  readonly blockSize?: number;
  readonly ipipMode: "Always" | "CrossSubnet" | "Never";
  readonly vxlanMode: "Always" | "CrossSubnet" | "Never";
  readonly natOutgoing: boolean;
  readonly nodeSelector: string;
  readonly disableBGPExport: boolean;
}

export class ConfigError extends Failure<"bad-config"> {
  constructor(variable: string, reason: string) {
    super("bad-config", `environment variable ${variable}: ${reason}`);
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Reads the environment. `hostName` names the node where nothing else does. Throws `ConfigError`. */
export function readConfig(environment: Environment, hostName: string): AgentConfig {
  const get = (name: string): string | undefined => (environment[name] === "" ? undefined : environment[name]);
  const asNumber = optional(get, "AS", readAsNumber);
  const backend = get("CALICO_NETWORKING_BACKEND") ?? "bird";
  if (backend !== "bird" && backend !== "vxlan" && backend !== "none") {
    throw new ConfigError("CALICO_NETWORKING_BACKEND", `"${backend}" is not bird, vxlan or none`);
  }
  const routerId = optional(get, "CALICO_ROUTER_ID", readRouterId);
  const flannel = flannelOf(get, environment, backend);
  return {
    nodeName: (get("NODENAME") ?? hostName).toLowerCase(),
    runDirectory: get("CARACAL_RUN_DIR") ?? "/var/run/calico",
    libDirectory: get("CARACAL_LIB_DIR") ?? "/var/lib/calico",
    datastore: datastoreOf(get),
    address: {
      4: addressChoice(get, "IP", "IP_AUTODETECTION_METHOD"),
      6: addressChoice(get, "IP6", "IP6_AUTODETECTION_METHOD"),
    },
    ...(asNumber === undefined ? {} : { asNumber }),
    networkingBackend: backend,
    ...(flannel === undefined ? {} : { flannel }),
    ...(routerId === undefined ? {} : { routerId }),
    secretNamespace: get("NAMESPACE") ?? "kube-system",
    defaultPools: defaultPoolsOf(get),
    cutForbiddenFlows: flag("CARACAL_CUT_FORBIDDEN_FLOWS", get("CARACAL_CUT_FORBIDDEN_FLOWS"), false),
    ownsTables: flag("CARACAL_NFTABLES_OWNER", get("CARACAL_NFTABLES_OWNER"), true),
    autodetectIntervalMs: duration(get, "AUTODETECT_POLL_INTERVAL", "60s"),
    pathCheckIntervalMs: duration(get, "CARACAL_PATH_CHECK_INTERVAL", "60s"),
    felix: Object.fromEntries(
      Object.entries(environment).filter(
        (entry): entry is [string, string] => entry[0].startsWith("FELIX_") && entry[1] !== undefined,
      ),
    ),
  };
}

type Get = (name: string) => string | undefined;

function datastoreOf(get: Get): DatastoreConfig {
  const type = get("DATASTORE_TYPE") ?? "kubernetes";
  if (type !== "kubernetes") throw new ConfigError("DATASTORE_TYPE", `"${type}" is not supported: use "kubernetes"`);
  const socket = get("CARACAL_API_SOCKET");
  if (socket !== undefined) return { kind: "socket", path: socket };
  const kubeconfig = get("KUBECONFIG");
  return kubeconfig === undefined ? { kind: "in-cluster" } : { kind: "kubeconfig", path: kubeconfig };
}

/** Canal: other nodes are flannel's, and so it has to be the only one that writes routes to them. */
function flannelOf(get: Get, environment: Environment, backend: string): FlannelOptions | undefined {
  if (!flag("CARACAL_FLANNEL", get("CARACAL_FLANNEL"), false)) return undefined;
  if (backend !== "none")
    throw new ConfigError("CARACAL_FLANNEL", `it needs CALICO_NETWORKING_BACKEND "none", which is "${backend}"`);
  return checked("CARACAL_FLANNEL", "", () => {
    const command = readFlannelCommand(["-kube-subnet-mgr"], environment);
    if (command.run !== "daemon") throw new Error(`FLANNELD_${command.run.toUpperCase()} is set`);
    return command.options;
  });
}

/** IPv4 is detected unless told otherwise; IPv6 is used only when asked for. */
function addressChoice(get: Get, variable: "IP" | "IP6", methodVariable: string): AddressChoice {
  const text = get(variable) ?? (variable === "IP" ? "autodetect" : "none");
  if (text === "none") return { kind: "none" };
  if (text === "autodetect") {
    return { kind: "detect", method: checked(methodVariable, get(methodVariable) ?? "first-found", parseMethod) };
  }
  const family = variable === "IP" ? 4 : 6;
  const address = checked(variable, text, (value) => {
    const given = value.includes("/") ? parseInterfaceAddress(value) : parseAddress(value);
    const actual = "length" in given ? given.address.family : given.family;
    if (actual !== family) throw new Error(`"${value}" is not an IPv${family} address`);
    return given;
  });
  return { kind: "fixed", address };
}

function readAsNumber(text: string): number {
  try {
    return parseWith(asNumberSchema, text, "AS number");
  } catch (error) {
    throw new Error(`"${text}" is not an AS number from 1 to 4294967295`, { cause: error });
  }
}

function readRouterId(text: string): string {
  if (text === "hash") return text;
  const { family, value } = parseAddress(text);
  if (family !== 4 || value === 0n) throw new Error(`"${text}" is neither "hash" nor an IPv4 address but 0.0.0.0`);
  return text;
}

/** calico/node's own defaults: no encapsulation, and NAT for the IPv4 pool only. There is an IPv6 pool where it is named. */
function defaultPoolsOf(get: Get): DefaultPool[] {
  const named = ["CALICO_IPV4POOL_CIDR", "CALICO_IPV6POOL_CIDR"].find((variable) => get(variable) !== undefined);
  if (flag("NO_DEFAULT_POOLS", get("NO_DEFAULT_POOLS"), false)) {
    if (named !== undefined) throw new ConfigError("NO_DEFAULT_POOLS", `${named} names a pool all the same`);
    return [];
  }
  const v4 = get("CALICO_IPV4POOL_CIDR") ?? "192.168.0.0/16";
  const v6 = get("CALICO_IPV6POOL_CIDR") ?? "none";
  return [
    ...(v4 === "none" ? [] : [defaultPool(get, "CALICO_IPV4POOL", "default-ipv4-ippool", v4, 4)]),
    ...(v6 === "none" ? [] : [defaultPool(get, "CALICO_IPV6POOL", "default-ipv6-ippool", v6, 6)]),
  ];
}

function defaultPool(get: Get, variables: string, name: string, network: string, family: Family): DefaultPool {
  const blockSize = optional(get, `${variables}_BLOCK_SIZE`, (text) =>
    family === 4 ? wholeNumber(text, 20, 32) : wholeNumber(text, 116, 128),
  );
  const cidr = checked(`${variables}_CIDR`, network, (text) => {
    const { address, length } = parseInterfaceAddress(text);
    if (address.family !== family) throw new Error(`"${text}" is not an IPv${family} CIDR`);
    return networkOf(address, length);
  });
  const ipipMode = family === 4 ? encapsulation(get, `${variables}_IPIP`) : "Never";
  const vxlanMode = encapsulation(get, `${variables}_VXLAN`);
  if (ipipMode !== "Never" && vxlanMode !== "Never") {
    throw new ConfigError(`${variables}_VXLAN`, `"${vxlanMode}" excludes ${variables}_IPIP "${ipipMode}"`);
  }
  return {
    name,
    cidr,
    ...(blockSize === undefined ? {} : { blockSize }),
    ipipMode,
    vxlanMode,
    natOutgoing: flag(`${variables}_NAT_OUTGOING`, get(`${variables}_NAT_OUTGOING`), family === 4),
    nodeSelector:
      optional(get, `${variables}_NODE_SELECTOR`, (text) => {
        parseSelector(text);
        return text;
      }) ?? "all()",
    disableBGPExport: flag(`${variables}_DISABLE_BGP_EXPORT`, get(`${variables}_DISABLE_BGP_EXPORT`), false),
  };
}

/** In any case of letters, and in calico/node's older spellings. */
function encapsulation(get: Get, variable: string): DefaultPool["ipipMode"] {
  const text = get(variable) ?? "Never";
  const spellings = {
    always: "Always",
    crosssubnet: "CrossSubnet",
    "cross-subnet": "CrossSubnet",
    never: "Never",
    off: "Never",
  } as const;
  const known = Object.entries(spellings).find(([spelling]) => spelling === text.toLowerCase());
  if (known === undefined) throw new ConfigError(variable, `"${text}" is not Always, CrossSubnet or Never`);
  return known[1];
}

function optional<Value>(get: Get, variable: string, parse: (text: string) => Value): Value | undefined {
  const text = get(variable);
  return text === undefined ? undefined : checked(variable, text, parse);
}

function checked<Value>(variable: string, text: string, parse: (text: string) => Value): Value {
  try {
    return parse(text);
  } catch (error) {
    throw new ConfigError(variable, messageOf(error));
  }
}

function wholeNumber(text: string, low: number, high: number): number {
  const value = Number(text);
  if (!/^[0-9]+$/.test(text) || value < low || value > high)
    throw new Error(`"${text}" is not a number from ${low} to ${high}`);
  return value;
}

function flag(variable: string, text: string | undefined, otherwise: boolean): boolean {
  if (text === undefined) return otherwise;
  if (/^(true|1|yes|t|y)$/i.test(text)) return true;
  if (/^(false|0|no|f|n)$/i.test(text)) return false;
  throw new ConfigError(variable, `"${text}" is not true or false`);
}

/** As Go writes them, `60s`, `1m30s`, `500ms`, or seconds without a unit; in milliseconds. */
function duration(get: Get, variable: string, otherwise: string): number {
  const text = get(variable) ?? otherwise;
  const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
  if (/^[0-9]+$/.test(text)) return Number(text) * units.s;
  if (!/^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$/.test(text)) {
    throw new ConfigError(variable, `"${text}" is not a duration like 60s`);
  }
  const parts = [...text.matchAll(/([0-9.]+)(ms|s|m|h)/g)];
  return parts.reduce((sum, [, number, unit]) => sum + Number(number) * units[unit as keyof typeof units], 0);
}

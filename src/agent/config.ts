import { type Method, parseMethod } from "../dataplane/autodetect.ts";
import { parseAddress, type Address, type Family } from "../ip/address.ts";
import { parseInterfaceAddress, parsePrefix, type InterfaceAddress, type Prefix } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";

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
  readonly routerId?: string;
  /** Pools that are made when there are none. */
  readonly defaultPools: readonly DefaultPool[];
  /** `AUTODETECT_POLL_INTERVAL`, milliseconds. */
  readonly autodetectIntervalMs: number;
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
  const asNumber =
    get("AS") === undefined ? undefined : checked("AS", get("AS")!, (text) => wholeNumber(text, 1, 4294967295));
  const backend = get("CALICO_NETWORKING_BACKEND") ?? "bird";
  if (backend !== "bird" && backend !== "vxlan" && backend !== "none") {
    throw new ConfigError("CALICO_NETWORKING_BACKEND", `"${backend}" is not bird, vxlan or none`);
  }
  const routerId = get("CALICO_ROUTER_ID");
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
    ...(routerId === undefined ? {} : { routerId }),
    defaultPools: get("NO_DEFAULT_POOLS") === "true" ? [] : defaultPoolsOf(get),
    autodetectIntervalMs: duration(get("AUTODETECT_POLL_INTERVAL") ?? "60s"),
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

/** IPv4 is detected unless told otherwise; IPv6 is used only when asked for. */
function addressChoice(get: Get, variable: "IP" | "IP6", methodVariable: string): AddressChoice {
  const text = get(variable) ?? (variable === "IP" ? "autodetect" : "none");
  if (text === "none") return { kind: "none" };
  if (text === "autodetect") {
    return { kind: "detect", method: checked(methodVariable, get(methodVariable) ?? "first-found", parseMethod) };
  }
  return {
    kind: "fixed",
    address: checked(variable, text, (value) =>
      value.includes("/") ? parseInterfaceAddress(value) : parseAddress(value),
    ),
  };
}

/** calico/node's own defaults: IPIP for the IPv4 pool, NAT for it and not for IPv6. */
function defaultPoolsOf(get: Get): DefaultPool[] {
  const pool = (
    prefix: "CALICO_IPV4POOL" | "CALICO_IPV6POOL",
    name: string,
    cidr: string,
    family: Family,
  ): DefaultPool => {
    const mode = (variable: string, otherwise: string): "Always" | "CrossSubnet" | "Never" => {
      const text = get(variable) ?? otherwise;
      const known = (["Always", "CrossSubnet", "Never"] as const).find(
        (value) => value.toLowerCase() === text.toLowerCase(),
      );
      if (known === undefined) throw new ConfigError(variable, `"${text}" is not Always, CrossSubnet or Never`);
      return known;
    };
    const blockSize = get(`${prefix}_BLOCK_SIZE`);
    return {
      name,
      cidr: checked(`${prefix}_CIDR`, cidr, (text) => {
        const parsed = parsePrefix(text);
        if (parsed.address.family !== family) throw new Error(`"${text}" is not an IPv${family} CIDR`);
        return parsed;
      }),
      ...(blockSize === undefined
        ? {}
        : {
            blockSize: checked(`${prefix}_BLOCK_SIZE`, blockSize, (text) =>
              family === 4 ? wholeNumber(text, 20, 32) : wholeNumber(text, 116, 128),
            ),
          }),
      ipipMode:
        family === 4 ? mode(`${prefix}_IPIP`, get(`${prefix}_VXLAN`) === undefined ? "Always" : "Never") : "Never",
      vxlanMode: mode(`${prefix}_VXLAN`, "Never"),
      natOutgoing: flag(`${prefix}_NAT_OUTGOING`, get(`${prefix}_NAT_OUTGOING`), family === 4),
      nodeSelector: get(`${prefix}_NODE_SELECTOR`) ?? "all()",
      disableBGPExport: flag(`${prefix}_DISABLE_BGP_EXPORT`, get(`${prefix}_DISABLE_BGP_EXPORT`), false),
    };
  };
  const pools = [pool("CALICO_IPV4POOL", "default-ipv4-ippool", get("CALICO_IPV4POOL_CIDR") ?? "192.168.0.0/16", 4)];
  const v6 = get("CALICO_IPV6POOL_CIDR");
  if (v6 !== undefined) pools.push(pool("CALICO_IPV6POOL", "default-ipv6-ippool", v6, 6));
  return pools;
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
  if (/^(true|1|yes)$/i.test(text)) return true;
  if (/^(false|0|no)$/i.test(text)) return false;
  throw new ConfigError(variable, `"${text}" is not true or false`);
}

/** `60s`, `5m`, `500ms`, or seconds without a unit; in milliseconds. */
function duration(text: string): number {
  const match = /^([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?$/.exec(text);
  if (match === null) throw new ConfigError("AUTODETECT_POLL_INTERVAL", `"${text}" is not a duration like 60s`);
  return Number(match[1]) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[(match[2] ?? "s") as "ms" | "s" | "m" | "h"];
}

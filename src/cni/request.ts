import { messageOf } from "../lib/errors.ts";
import type { PodRoute } from "../dataplane/endpoint.ts";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { CniError } from "./error.ts";

/** The versions of the specification that requests and results may speak, oldest first. */
export const CNI_VERSIONS = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

export const CNI_COMMANDS = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] as const;
export type CniCommand = (typeof CNI_COMMANDS)[number];

/** Since which version of the specification a runtime may send the command. */
const COMMAND_SINCE: Partial<Record<CniCommand, CniVersion>> = { CHECK: "0.4.0", GC: "1.1.0", STATUS: "1.1.0" };

/** The network configuration (the keys of Calico's plugin), checked. */
export interface NetworkConfig {
  readonly cniVersion: CniVersion;
  /** Name of the network: the first half of every IPAM handle. */
  readonly name: string;
  readonly ipamType: "calico-ipam" | "host-local";
  /** The `ipam` object as it came: what a delegate reads, and pools that the configuration names. */
  readonly ipam: Readonly<Record<string, unknown>>;
  /** `ipam.ipv4_pools` and `ipam.ipv6_pools`: names or CIDRs. */
  readonly ipv4Pools?: readonly string[];
  readonly ipv6Pools?: readonly string[];
  /** `ipam.assign_ipv4`/`assign_ipv6`: "true" | "false"; undefined leaves it to the pools. */
  readonly assignIpv4?: boolean;
  readonly assignIpv6?: boolean;
  /** 0 or absent: the node's own. Bytes. */
  readonly mtu?: number;
  readonly allowIpForwarding: boolean;
  readonly includeDefaultRoutes: boolean;
  readonly prevResult?: Readonly<Record<string, unknown>>;
  /** GC: the attachments that still live, as `containerID` and `ifname`. */
  readonly validAttachments?: readonly Attachment[];
  /** The whole object as it came, for a delegate. */
  readonly raw: Readonly<Record<string, unknown>>;
}

export interface Attachment {
  readonly containerId: string;
  readonly interfaceName: string;
}

/** Which pod the runtime speaks of: `CNI_ARGS` of a Kubernetes runtime, or a bare container. */
export type Workload =
  | { readonly orchestrator: "k8s"; readonly namespace: string; readonly pod: string; readonly uid?: string }
  | { readonly orchestrator: "cni" };

export interface CniRequest {
  readonly command: CniCommand;
  readonly containerId: string;
  /** Path of the pod's network namespace; empty at a DEL after the namespace went. */
  readonly netns: string;
  readonly interfaceName: string;
  readonly path: readonly string[];
  readonly workload: Workload;
  readonly config: NetworkConfig;
  /** The `CNI_*` variables as they came, for a delegate. */
  readonly environment: Readonly<Record<string, string>>;
}

/** Splits what the shim sends: `NAME=VALUE NUL … NUL NUL`, then the configuration. */
export function splitRequest(bytes: Uint8Array): { environment: Record<string, string>; stdin: string } {
  const decoder = new TextDecoder();
  const environment: Record<string, string> = {};
  let start = 0;
  for (;;) {
    const end = bytes.indexOf(0, start);
    if (end < 0) throw new CniError("decode-failure", "the plugin's request ends within its environment");
    if (end === start) return { environment, stdin: decoder.decode(bytes.subarray(end + 1)) };
    const [name, value] = splitOnce(decoder.decode(bytes.subarray(start, end)), "=");
    environment[name] = value;
    start = end + 1;
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
}

/** Checks the whole of a request; throws `CniError` with the code of the specification. */
export function parseRequest(environment: Readonly<Record<string, string>>, stdin: string): CniRequest {
  const command = CNI_COMMANDS.find((name) => name === environment["CNI_COMMAND"]);
  if (command === undefined) {
    throw new CniError(
      "invalid-environment",
      `CNI_COMMAND is "${environment["CNI_COMMAND"] ?? ""}", not one of ${CNI_COMMANDS.join(", ")}`,
    );
  }
  const config = command === "VERSION" ? parseVersionConfig(stdin) : parseConfig(stdin);
  const since = COMMAND_SINCE[command];
  if (since !== undefined && CNI_VERSIONS.indexOf(config.cniVersion) < CNI_VERSIONS.indexOf(since)) {
    throw new CniError(
      "incompatible-version",
      `${command} needs cniVersion ${since}, the configuration says ${config.cniVersion}`,
    );
  }
  const attachment = command === "ADD" || command === "DEL" || command === "CHECK";
  const containerId = environment["CNI_CONTAINERID"] ?? "";
  const interfaceName = environment["CNI_IFNAME"] ?? "";
  const netns = environment["CNI_NETNS"] ?? "";
  if (attachment) {
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(containerId)) {
      throw new CniError("invalid-environment", `CNI_CONTAINERID "${containerId}" is not a container id`);
    }
    // The kernel's own rule for names (dev_valid_name in net/core/dev.c), which the specification repeats.
    if (
      interfaceName === "" ||
      interfaceName.length > 15 ||
      /[/:\s]/.test(interfaceName) ||
      /^\.\.?$/.test(interfaceName)
    ) {
      throw new CniError(
        "invalid-environment",
        `CNI_IFNAME "${interfaceName}" is not an interface name of 1 to 15 characters`,
      );
    }
    if (netns === "" && command !== "DEL")
      throw new CniError("invalid-environment", `CNI_NETNS is required at ${command}`);
  }
  const path = (environment["CNI_PATH"] ?? "").split(":").filter((part) => part !== "");
  return {
    command,
    containerId,
    netns,
    interfaceName,
    path,
    workload: parseArgs(environment["CNI_ARGS"] ?? ""),
    config,
    environment,
  };
}

/** `CNI_ARGS`: `K8S_POD_NAMESPACE=…;K8S_POD_NAME=…;…` in any order; others are ignored, as IgnoreUnknown asks. */
function parseArgs(text: string): Workload {
  const args = new Map(text.split(";").map((pair) => splitOnce(pair, "=")));
  const namespace = args.get("K8S_POD_NAMESPACE") ?? "";
  const pod = args.get("K8S_POD_NAME") ?? "";
  if (namespace === "" && pod === "") return { orchestrator: "cni" };
  if (namespace === "" || pod === "") {
    throw new CniError("invalid-environment", "CNI_ARGS names only one of K8S_POD_NAMESPACE and K8S_POD_NAME");
  }
  const uid = args.get("K8S_POD_UID") ?? "";
  return { orchestrator: "k8s", namespace, pod, ...(uid === "" ? {} : { uid }) };
}

function parseJson(stdin: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(stdin);
  } catch (error) {
    throw new CniError("decode-failure", `the network configuration is not JSON: ${messageOf(error)}`);
  }
  if (!isObject(value)) throw new CniError("decode-failure", "the network configuration is not a JSON object");
  return value;
}

function versionOf(raw: Readonly<Record<string, unknown>>): CniVersion {
  const version = CNI_VERSIONS.find((known) => known === raw["cniVersion"]);
  if (version !== undefined) return version;
  throw new CniError(
    "incompatible-version",
    `cniVersion ${JSON.stringify(raw["cniVersion"])} is not supported`,
    `supported: ${CNI_VERSIONS.join(", ")}`,
  );
}

/** VERSION is asked in order to find out what is supported, so it is answered whatever version it speaks. */
function parseVersionConfig(stdin: string): NetworkConfig {
  const raw = stdin.trim() === "" ? {} : parseJson(stdin);
  const cniVersion = CNI_VERSIONS.find((known) => known === raw["cniVersion"]) ?? "1.0.0";
  return {
    cniVersion,
    name: "",
    ipamType: "calico-ipam",
    ipam: {},
    allowIpForwarding: false,
    includeDefaultRoutes: false,
    raw,
  };
}

function parseConfig(stdin: string): NetworkConfig {
  const raw = parseJson(stdin);
  const cniVersion = versionOf(raw);
  const field = new Fields(raw, "");
  const name = field.string("name") ?? "";
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) throw invalid("name", `"${name}" is not a network name`);
  const ipam = new Fields(field.object("ipam") ?? {}, "ipam.");
  const ipamType = ipam.string("type") ?? "calico-ipam";
  if (ipamType !== "calico-ipam" && ipamType !== "host-local") {
    throw invalid("ipam.type", `"${ipamType}" is not supported: use "calico-ipam" or "host-local"`);
  }
  const mtu = field.number("mtu");
  if (mtu !== undefined && mtu !== 0 && (mtu < 68 || mtu > 65535))
    throw invalid("mtu", `${mtu} is not 0 or 68 to 65535`);
  const containerSettings = new Fields(field.object("container_settings") ?? {}, "container_settings.");
  const ipv4Pools = ipam.strings("ipv4_pools");
  const ipv6Pools = ipam.strings("ipv6_pools");
  const assignIpv4 = ipam.flag("assign_ipv4");
  const assignIpv6 = ipam.flag("assign_ipv6");
  const prevResult = field.object("prevResult");
  const validAttachments = attachmentsOf(raw["cni.dev/valid-attachments"]);
  return {
    cniVersion,
    name,
    ipamType,
    ipam: ipam.raw,
    ...(ipv4Pools === undefined ? {} : { ipv4Pools }),
    ...(ipv6Pools === undefined ? {} : { ipv6Pools }),
    ...(assignIpv4 === undefined ? {} : { assignIpv4 }),
    ...(assignIpv6 === undefined ? {} : { assignIpv6 }),
    ...(mtu === undefined || mtu === 0 ? {} : { mtu }),
    allowIpForwarding: containerSettings.flag("allow_ip_forwarding") ?? false,
    includeDefaultRoutes: field.flag("include_default_routes") ?? false,
    ...(prevResult === undefined ? {} : { prevResult }),
    ...(validAttachments === undefined ? {} : { validAttachments }),
    raw,
  };
}

function attachmentsOf(value: unknown): Attachment[] | undefined {
  if (value === undefined) return undefined;
  const path = "cni.dev/valid-attachments";
  if (!Array.isArray(value)) throw invalid(path, "expected a list");
  return value.map((item: unknown, index) => {
    const containerId = isObject(item) ? item["containerID"] : undefined;
    const interfaceName = isObject(item) ? item["ifname"] : undefined;
    if (typeof containerId !== "string" || typeof interfaceName !== "string") {
      throw invalid(`${path}[${index}]`, "expected containerID and ifname");
    }
    return { containerId, interfaceName };
  });
}

/** `{dst, gw}` objects of an IPAM result or a configuration. */
export function parseConfigRoutes(value: unknown, path: string): PodRoute[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw invalid(path, "expected a list of routes");
  return value.map((item: unknown, index) => {
    const dst = isObject(item) ? item["dst"] : undefined;
    const gw = isObject(item) ? item["gw"] : undefined;
    try {
      if (typeof dst !== "string") throw new Error("dst is missing");
      const destination = parsePrefix(dst);
      return typeof gw === "string" ? { destination, gateway: parseAddress(gw) } : { destination };
    } catch (error) {
      throw invalid(`${path}[${index}]`, messageOf(error));
    }
  });
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(path: string, reason: string): CniError {
  return new CniError("invalid-config", `the network configuration is not valid: ${path}: ${reason}`);
}

/** Typed reads of an object whose faults name their path. */
class Fields {
  readonly raw: Readonly<Record<string, unknown>>;
  readonly #prefix: string;
  constructor(raw: Readonly<Record<string, unknown>>, prefix: string) {
    this.raw = raw;
    this.#prefix = prefix;
  }
  #read<Value>(name: string, wanted: string, accept: (value: unknown) => Value | undefined): Value | undefined {
    const value = this.raw[name];
    if (value === undefined || value === null) return undefined;
    const accepted = accept(value);
    if (accepted === undefined)
      throw invalid(this.#prefix + name, `expected ${wanted}, found ${JSON.stringify(value)}`);
    return accepted;
  }
  string(name: string): string | undefined {
    return this.#read(name, "a string", (value) => (typeof value === "string" ? value : undefined));
  }
  number(name: string): number | undefined {
    return this.#read(name, "a whole number", (value) => (Number.isInteger(value) ? Number(value) : undefined));
  }
  object(name: string): Record<string, unknown> | undefined {
    return this.#read(name, "an object", (value) => (isObject(value) ? value : undefined));
  }
  strings(name: string): string[] | undefined {
    return this.#read(name, "a list of strings", (value) =>
      Array.isArray(value) && value.every((item) => typeof item === "string") ? value : undefined,
    );
  }
  /** true or false, also as text: Calico's configurations write `"assign_ipv4": "true"`. */
  flag(name: string): boolean | undefined {
    return this.#read(name, "true or false", (value) => {
      if (typeof value === "boolean") return value;
      return value === "true" ? true : value === "false" ? false : undefined;
    });
  }
}

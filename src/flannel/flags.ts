import { type Address, parseAddress } from "../ip/address.ts";
import { Failure, messageOf } from "../lib/errors.ts";

/** flanneld's command line: Go's flags (`-name=value`, `--name value`), each of which may stand in the environment too. */

export interface FlannelOptions {
  readonly etcd: {
    readonly endpoints: readonly string[];
    readonly prefix: string;
    readonly caFile?: string;
    readonly certFile?: string;
    readonly keyFile?: string;
    readonly username?: string;
    readonly password?: string;
  };
  readonly external: {
    readonly interfaces: readonly string[];
    readonly patterns: readonly string[];
    readonly canReach?: string;
    readonly publicIp?: Address;
    readonly publicIpv6?: Address;
  };
  readonly subnetFile: string;
  readonly renewMarginMinutes: number;
  readonly ipMasq: boolean;
  readonly forwardRules: boolean;
  readonly resyncSeconds: number;
  readonly healthz: { readonly address: string; readonly port: number };
  readonly kubernetes?: {
    readonly apiUrl?: string;
    readonly kubeconfig?: string;
    readonly annotationPrefix: string;
    readonly configFile: string;
    readonly setNetworkAvailable: boolean;
  };
}

/** `version` and `help` only print. */
export type FlannelCommand =
  | { readonly run: "daemon"; readonly options: FlannelOptions }
  | { readonly run: "version" }
  | { readonly run: "help"; readonly text: string };

export class FlagError extends Failure<"usage"> {
  constructor(message: string) {
    super("usage", message);
  }
}

interface Flag {
  readonly kind: "text" | "list" | "switch" | "number";
  readonly usual: string;
  readonly help: string;
}

const text = (usual: string, help: string): Flag => ({ kind: "text", usual, help });
const list = (help: string): Flag => ({ kind: "list", usual: "", help });
const on = (usual: "true" | "false", help: string): Flag => ({ kind: "switch", usual, help });
const number = (usual: number, help: string): Flag => ({ kind: "number", usual: String(usual), help });

/** flanneld's flags, with its defaults: main.go. */
const FLAGS = {
  "etcd-endpoints": text("http://127.0.0.1:4001,http://127.0.0.1:2379", "etcd's addresses, separated by commas"),
  "etcd-prefix": text("/coreos.com/network", "where flannel's keys are in etcd"),
  "etcd-keyfile": text("", "private key for etcd, in PEM"),
  "etcd-certfile": text("", "certificate for etcd, in PEM"),
  "etcd-cafile": text("", "certificate of etcd's authority, in PEM"),
  "etcd-username": text("", "user of etcd"),
  "etcd-password": text("", "its password"),
  iface: list("interface (name or address) by which other nodes are reached; the first that is there"),
  "iface-regex": list("the same by a regular expression, asked after -iface"),
  "iface-can-reach": text("", "the interface by which this address is reached"),
  "public-ip": text("", "IPv4 address that other nodes send to"),
  "public-ipv6": text("", "IPv6 address that other nodes send to"),
  "subnet-file": text("/run/flannel/subnet.env", "file that the container runtime reads"),
  "subnet-lease-renew-margin": number(60, "minutes before its end that a lease is renewed, 1 to 1439"),
  "ip-masq": on("false", "masquerade what leaves the pods' network"),
  "iptables-forward-rules": on("true", "accept forwarding from and to pods"),
  "iptables-resync": number(5, "seconds between looks at those rules"),
  "kube-subnet-mgr": on("false", "take subnets from Kubernetes' nodes instead of etcd"),
  "kube-api-url": text("", "address of the API server"),
  "kubeconfig-file": text("", "kubeconfig for it"),
  "kube-annotation-prefix": text("flannel.alpha.coreos.com", "prefix of the nodes' annotations"),
  "net-config-path": text("/etc/kube-flannel/net-conf.json", "network configuration, with -kube-subnet-mgr"),
  "set-node-network-unavailable": on("true", "set the node's condition NetworkUnavailable to False"),
  "healthz-ip": text("0.0.0.0", "address of the health server"),
  "healthz-port": number(0, "port of the health server, 0 for none"),
  v: text("", "flanneld's log level, which is taken and changes nothing: all that there is to say is said"),
  vmodule: text("", "the same by source file"),
  log_backtrace_at: text("", "taken, and changes nothing"),
  version: on("false", "print the version"),
  help: on("false", "print this"),
} as const satisfies Record<string, Flag>;
type FlagName = keyof typeof FLAGS;

const ENVIRONMENT_PREFIX = "FLANNELD_";
const variableOf = (name: string): string => ENVIRONMENT_PREFIX + name.toUpperCase().replaceAll("-", "_");

/** A flag comes before its variable (`FLANNELD_ETCD_ENDPOINTS`), that before the default. Throws `FlagError`. */
export function readFlannelCommand(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): FlannelCommand {
  const given = readFlags(args);
  const valuesOf = (name: FlagName): readonly string[] => {
    const variable = environment[variableOf(name)];
    return given.get(name) ?? (variable === undefined ? [FLAGS[name].usual] : [variable]);
  };
  const textOf = (name: FlagName): string => valuesOf(name).at(-1) ?? "";
  const listOf = (name: FlagName): string[] =>
    valuesOf(name)
      .flatMap((value) => value.split(","))
      .filter((value) => value !== "");
  const isOn = (name: FlagName): boolean => readSwitch(name, textOf(name));
  const numberOf = (name: FlagName, low: number, high: number): number => readNumber(name, textOf(name), low, high);
  /** Left out where empty. */
  const optional = <Key extends string>(key: Key, name: FlagName): { [K in Key]?: string } =>
    textOf(name) === "" ? {} : ({ [key]: textOf(name) } as { [K in Key]?: string });

  if (isOn("help")) return { run: "help", text: flagsHelp() };
  if (isOn("version")) return { run: "version" };
  const publicIp = readAddress("public-ip", textOf("public-ip"), 4);
  const publicIpv6 = readAddress("public-ipv6", textOf("public-ipv6"), 6);
  const options: FlannelOptions = {
    etcd: {
      endpoints: listOf("etcd-endpoints"),
      prefix: textOf("etcd-prefix"),
      ...optional("caFile", "etcd-cafile"),
      ...optional("certFile", "etcd-certfile"),
      ...optional("keyFile", "etcd-keyfile"),
      ...optional("username", "etcd-username"),
      ...optional("password", "etcd-password"),
    },
    external: {
      interfaces: listOf("iface"),
      // A regular expression may hold commas.
      patterns: valuesOf("iface-regex").filter((value) => value !== ""),
      ...optional("canReach", "iface-can-reach"),
      ...(publicIp !== undefined && { publicIp }),
      ...(publicIpv6 !== undefined && { publicIpv6 }),
    },
    subnetFile: textOf("subnet-file"),
    renewMarginMinutes: numberOf("subnet-lease-renew-margin", 1, 24 * 60 - 1),
    ipMasq: isOn("ip-masq"),
    forwardRules: isOn("iptables-forward-rules"),
    resyncSeconds: numberOf("iptables-resync", 1, 3600),
    healthz: { address: textOf("healthz-ip"), port: numberOf("healthz-port", 0, 65535) },
  };
  if (!isOn("kube-subnet-mgr")) return { run: "daemon", options };
  const kubernetes = {
    ...optional("apiUrl", "kube-api-url"),
    ...optional("kubeconfig", "kubeconfig-file"),
    annotationPrefix: readAnnotationPrefix(textOf("kube-annotation-prefix")),
    configFile: textOf("net-config-path"),
    setNetworkAvailable: isOn("set-node-network-unavailable"),
  };
  return { run: "daemon", options: { ...options, kubernetes } };
}

/** As Go's package flag: one dash or two, the value after `=` or in the next word, and none for a switch. */
function readFlags(args: readonly string[]): Map<FlagName, string[]> {
  const given = new Map<FlagName, string[]>();
  for (let at = 0; at < args.length; at += 1) {
    const word = args[at]!;
    const match = /^--?([a-z][a-z0-9_-]*)(?:=(.*))?$/s.exec(word);
    if (match === null) throw new FlagError(`unexpected argument "${word}": flannel takes flags only`);
    const [, name = "", inline] = match;
    const flag = flagNamed(name === "h" ? "help" : name);
    const isSwitch = FLAGS[flag].kind === "switch";
    if (inline === undefined && !isSwitch) at += 1;
    const value = inline ?? (isSwitch ? "true" : args[at]);
    if (value === undefined) throw new FlagError(`-${name} needs a value`);
    given.set(flag, [...(given.get(flag) ?? []), value]);
  }
  return given;
}

function flagNamed(name: string): FlagName {
  const known = (Object.keys(FLAGS) as FlagName[]).find((each) => each === name);
  if (known === undefined) throw new FlagError(`unknown flag -${name}; -help lists them`);
  return known;
}

/** strconv.ParseBool */
function readSwitch(name: FlagName, value: string): boolean {
  if (/^(1|t|true)$/i.test(value)) return true;
  if (/^(0|f|false)$/i.test(value)) return false;
  throw new FlagError(`-${name}: "${value}" is not true or false`);
}

function readNumber(name: FlagName, value: string, low: number, high: number): number {
  const parsed = Number(value);
  if (/^[0-9]+$/.test(value) && parsed >= low && parsed <= high) return parsed;
  throw new FlagError(`-${name}: "${value}" is not a number from ${low} to ${high}`);
}

function readAddress(name: FlagName, value: string, family: 4 | 6): Address | undefined {
  if (value === "") return undefined;
  try {
    const address = parseAddress(value);
    if (address.family === family) return address;
  } catch (error) {
    throw new FlagError(`-${name}: ${messageOf(error)}`);
  }
  throw new FlagError(`-${name}: "${value}" is not an IPv${family} address`);
}

/** What annotations' names begin with: a domain and a slash, and words that end in `-` where there are any behind it. */
function readAnnotationPrefix(value: string): string {
  const prefix = value.includes("/") ? value : `${value}/`;
  const whole = /[/-]$/.test(prefix) ? prefix : `${prefix}-`;
  if (/^([a-z0-9_-]+\.)+[a-z0-9_-]+\/([a-z0-9_-]+-)?$/.test(whole)) return whole;
  throw new FlagError(`-kube-annotation-prefix: "${value}" is not a domain, or a domain, a slash and a word`);
}

function flagsHelp(): string {
  const rows = Object.entries(FLAGS).map(([name, { kind, usual, help }]) => {
    const value = kind === "switch" ? "" : kind === "number" ? " N" : " VALUE";
    return `  -${`${name}${value}`.padEnd(34)}${help}${usual === "" ? "" : ` (default: ${usual})`}`;
  });
  return [
    "usage: caracal flannel [FLAGS]",
    "       caracal flannel cni",
    "",
    "Run as flanneld: give this node a subnet, and keep the ways to the subnets of all others.",
    `Each flag may stand in the environment too: -etcd-endpoints as ${variableOf("etcd-endpoints")}.`,
    '"caracal flannel cni" answers as the CNI plugin "flannel".',
    "",
    ...rows,
    "",
  ].join("\n");
}

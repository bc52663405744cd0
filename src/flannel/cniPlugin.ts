import { formatPrefix } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import type { SubnetEnv } from "./subnetEnv.ts";

/**
 * The CNI plugin `flannel`: it turns the node's `subnet.env` into the configuration of another plugin, `bridge` with
 * `host-local` where nobody says otherwise, and calls that.
 */

/** Versions of the specification that a configuration may have: it is the delegate that answers. */
export const CNI_VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;

/** Codes of the specification (section 5): what a runtime makes of them. */
const CODES = {
  "bad-config": 7,
  "bad-environment": 4,
  "io-failure": 5,
  "not-ready": 50,
  "delegate-failed": 999,
} as const;
type CniCode = keyof typeof CODES;

export class PluginError extends Failure<CniCode> {
  /** As the specification has errors. */
  toResult(cniVersion: string): object {
    return { cniVersion, code: CODES[this.code], msg: this.message };
  }
}

export interface PluginConfig {
  readonly cniVersion: string;
  readonly name: string;
  readonly subnetFile: string;
  /** Where the delegate's configuration is kept from ADD to DEL. */
  readonly dataDir: string;
  readonly delegate: Readonly<Record<string, unknown>>;
  readonly ipam: Readonly<Record<string, unknown>>;
  readonly runtimeConfig?: unknown;
}

const DEFAULTS = {
  subnetFile: "/run/flannel/subnet.env",
  dataDir: "/var/lib/cni/flannel",
  cniVersion: "0.1.0",
} as const;

/** Throws `PluginError`, code `bad-config`. */
export function parsePluginConfig(text: string): PluginConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new PluginError("bad-config", `the network configuration is not JSON: ${messageOf(error)}`);
  }
  const fields = objectIn(json, "the network configuration");
  const textOr = (name: string, usual: string): string => {
    const value = fields[name] ?? usual;
    if (typeof value === "string") return value;
    throw new PluginError("bad-config", `${name} is not text`);
  };
  const name = textOr("name", "");
  if (name === "") throw new PluginError("bad-config", "name is missing");
  const delegate = objectIn(fields["delegate"] ?? {}, "delegate");
  for (const field of ["name", "ipam"]) {
    if (field in delegate)
      throw new PluginError("bad-config", `delegate.${field} is flannel's to set, and must not be there`);
  }
  return {
    cniVersion: textOr("cniVersion", DEFAULTS.cniVersion),
    name,
    subnetFile: textOr("subnetFile", "") || DEFAULTS.subnetFile,
    dataDir: textOr("dataDir", "") || DEFAULTS.dataDir,
    delegate,
    ipam: objectIn(fields["ipam"] ?? {}, "ipam"),
    ...(fields["runtimeConfig"] !== undefined && { runtimeConfig: fields["runtimeConfig"] }),
  };
}

/** What the delegate is called with, and its type. What the configuration says comes before flannel's own ideas. */
export function delegateConfig(
  config: PluginConfig,
  env: SubnetEnv,
): { readonly type: string; readonly config: Readonly<Record<string, unknown>> } {
  const type = config.delegate["type"] ?? "bridge";
  if (typeof type !== "string") throw new PluginError("bad-config", "delegate.type is not text");
  return {
    type,
    config: {
      ipMasq: !env.ipMasq,
      mtu: env.mtu,
      ...(type === "bridge" && { isGateway: true }),
      ...config.delegate,
      type,
      name: config.name,
      cniVersion: config.cniVersion,
      ...(config.runtimeConfig !== undefined && { runtimeConfig: config.runtimeConfig }),
      ipam: ipamOf(config, env),
    },
  };
}

function ipamOf({ ipam }: PluginConfig, { subnets, networks, ipv6Networks }: SubnetEnv): object {
  const given = ipam["routes"] ?? [];
  if (!Array.isArray(given)) throw new PluginError("bad-config", "ipam.routes is not a list");
  const ranges = [subnets.ipv4, subnets.ipv6].flatMap((subnet) =>
    subnet === undefined ? [] : [[{ subnet: formatPrefix(subnet) }]],
  );
  const routes = [...networks, ...ipv6Networks].map((network) => ({ dst: formatPrefix(network) }));
  return { type: "host-local", ...ipam, ranges, routes: [...(given as readonly unknown[]), ...routes] };
}

/** The file of a container in `dataDir`. Throws `PluginError` for an id that is no file name. */
export function containerFile(dataDir: string, containerId: string): string {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(containerId)) return `${dataDir}/${containerId}`;
  throw new PluginError("bad-environment", `CNI_CONTAINERID "${containerId}" is not a container id`);
}

function objectIn(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  throw new PluginError("bad-config", `${what} is not a JSON object`);
}

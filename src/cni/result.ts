import type { PodRoute } from "../dataplane/endpoint.ts";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix, type InterfaceAddress } from "../ip/prefix.ts";
import { CNI_CODES, type CniError } from "./error.ts";
import { CNI_VERSIONS, type CniVersion } from "./request.ts";

/** What an ADD made, before it is written in the version that the runtime speaks. */
export interface AddResult {
  readonly hostInterface: { readonly name: string; readonly mac: string };
  readonly podInterface: { readonly name: string; readonly mac: string; readonly mtu: number; readonly netns: string };
  readonly addresses: readonly InterfaceAddress[];
  readonly routes: readonly PodRoute[];
}

/**
 * The result of ADD (CNI specification, "ADD Success"). Versions before 1.0.0 carry the family of each address as
 * `version`; 1.1.0 adds the MTU.
 */
export function formatAddResult(result: AddResult, version: CniVersion): object {
  const { hostInterface, podInterface } = result;
  const hasMtu = version === "1.1.0";
  return {
    cniVersion: version,
    interfaces: [
      { name: hostInterface.name, mac: hostInterface.mac, ...(hasMtu ? { mtu: podInterface.mtu } : {}) },
      {
        name: podInterface.name,
        mac: podInterface.mac,
        ...(hasMtu ? { mtu: podInterface.mtu } : {}),
        sandbox: podInterface.netns,
      },
    ],
    ips: result.addresses.map((address) => ({
      ...(version.startsWith("0.") ? { version: String(address.address.family) } : {}),
      interface: 1,
      address: formatPrefix(address),
    })),
    ...(result.routes.length === 0
      ? {}
      : {
          routes: result.routes.map((route) => ({
            dst: formatPrefix(route.destination),
            ...(route.gateway === undefined ? {} : { gw: formatAddress(route.gateway) }),
          })),
        }),
    dns: {},
  };
}

export function formatVersionResult(version: CniVersion): object {
  return { cniVersion: version, supportedVersions: CNI_VERSIONS };
}

export function formatError(error: CniError, version: CniVersion): object {
  return { cniVersion: version, code: CNI_CODES[error.code], msg: error.message, details: error.details };
}

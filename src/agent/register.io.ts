import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { formatAddress, parseAddress } from "../ip/address.ts";
import type { Endpoint } from "../dataplane/endpoint.ts";
import { messageOf } from "../lib/errors.ts";

/**
 * The endpoints of this node, in memory and as one small file each below the run directory, which like the pods
 * themselves does not outlive a reboot. A new agent reads them before it touches the kernel.
 */
export interface EndpointFiles {
  readonly find: (containerId: string, podInterface: string) => Endpoint | undefined;
  readonly findByHostInterface: (hostInterface: string) => Endpoint | undefined;
  readonly list: () => Endpoint[];
  add(endpoint: Endpoint): void;
  remove(endpoint: Endpoint): void;
}

/** `onBadFile` is told of files that cannot be read; they are left where they are. */
export function openEndpointFiles(directory: string, onBadFile: (path: string, reason: string) => void): EndpointFiles {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const byKey = new Map<string, Endpoint>();
  const byHostInterface = new Map<string, Endpoint>();
  // Neither has a colon; both may have dots.
  const keyOf = (containerId: string, podInterface: string): string => `${containerId}:${podInterface}`;
  const remember = (endpoint: Endpoint): void => {
    byKey.set(keyOf(endpoint.containerId, endpoint.podInterface), endpoint);
    byHostInterface.set(endpoint.hostInterface, endpoint);
  };
  for (const name of readdirSync(directory)) {
    const path = `${directory}/${name}`;
    if (name.startsWith(".")) {
      rmSync(path, { force: true }); // half written when an agent died: its ADD was never answered
      continue;
    }
    try {
      remember(parseEndpoint(readFileSync(path, "utf8")));
    } catch (error) {
      onBadFile(path, messageOf(error));
    }
  }
  return {
    find: (containerId, podInterface) => byKey.get(keyOf(containerId, podInterface)),
    findByHostInterface: (hostInterface) => byHostInterface.get(hostInterface),
    list: () => [...byKey.values()],
    add(endpoint) {
      const key = keyOf(endpoint.containerId, endpoint.podInterface);
      // A container's id begins with a letter or digit, so that no endpoint's file is taken for a half-written one.
      writeFileSync(`${directory}/.${key}`, printEndpoint(endpoint), { mode: 0o600 });
      renameSync(`${directory}/.${key}`, `${directory}/${key}`);
      remember(endpoint);
    },
    remove(endpoint) {
      const key = keyOf(endpoint.containerId, endpoint.podInterface);
      rmSync(`${directory}/${key}`, { force: true });
      byKey.delete(key);
      const owner = byHostInterface.get(endpoint.hostInterface);
      if (owner !== undefined && keyOf(owner.containerId, owner.podInterface) === key) {
        byHostInterface.delete(endpoint.hostInterface);
      }
    },
  };
}

function printEndpoint(endpoint: Endpoint): string {
  return JSON.stringify({ ...endpoint, addresses: endpoint.addresses.map(formatAddress) });
}

function parseEndpoint(text: string): Endpoint {
  const value: unknown = JSON.parse(text);
  if (!isStored(value)) throw new Error("it is not an endpoint as this agent writes it");
  return { ...value, addresses: value.addresses.map(parseAddress) };
}

type StoredEndpoint = Omit<Endpoint, "addresses"> & { readonly addresses: readonly string[] };

function isStored(value: unknown): value is StoredEndpoint {
  if (typeof value !== "object" || value === null) return false;
  const fields: Record<string, unknown> = { ...value };
  const texts = ["containerId", "podInterface", "hostInterface", "mac", "netns", "network"];
  const { addresses } = fields;
  return (
    texts.every((name) => typeof fields[name] === "string") &&
    typeof fields["mtu"] === "number" &&
    Array.isArray(addresses) &&
    addresses.every((address) => typeof address === "string")
  );
}

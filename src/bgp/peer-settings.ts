import { parseAddress, type Address, type Family } from "../ip/address.ts";
import type { Capabilities } from "./capabilities.ts";
import type { PeerConfig, SpeakerConfig } from "./config.ts";
import { MAX_ASN } from "./constants.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { compileFilter, defaultRules, filterKey, type Filter, type FilterRules } from "./filters.ts";
import type { ImportPolicy } from "./import-policy.ts";
import type { Negotiated } from "./negotiation.ts";
import type { SessionConfig } from "./session.ts";
import { Failure } from "../lib/errors.ts";

/** What a speaker says of itself at the moment: changes when a restart is over. */
export interface Self {
  readonly asn: number;
  readonly routerId: number;
  /** R and F of RFC 4724. */
  readonly restarting: boolean;
  readonly forwardingPreserved: boolean;
}

const DEFAULT_PORT = 179;
const DEFAULT_HOLD_TIME = 240;
const DEFAULT_CONNECT_TIMEOUT = 2;
const DEFAULT_CONNECT_RETRY = 5;
const DEFAULT_RESTART_TIME = 120;

/** A peer's configuration with every default filled in, checked. */
export interface PeerSettings {
  readonly config: PeerConfig;
  readonly address: Address;
  readonly port: number;
  readonly localAsn: number;
  readonly internal: boolean;
  readonly families: readonly Family[];
  readonly restartTime: number;
  readonly ownNextHops: { readonly [F in Family]?: Address };
  readonly importRules: FilterRules;
  readonly exportRules: FilterRules;
}

/** Throws `Failure` (`bad-config`) with the name of the peer and what is wrong. */
export function settingsOf(config: PeerConfig, asn: number): PeerSettings {
  const bad = (reason: string): Failure => new Failure("bad-config", `BGP peer ${config.name}: ${reason}`);
  const address = parseAddress(config.address);
  const localAsn = config.localAsn ?? asn;
  for (const number of [config.asn, localAsn]) {
    if (!Number.isInteger(number) || number < 1 || number > MAX_ASN) throw bad(`${number} is not an AS number`);
  }
  const holdTime = config.holdTime ?? DEFAULT_HOLD_TIME;
  if (holdTime !== 0 && (holdTime < 3 || holdTime > 65535)) throw bad(`hold time ${holdTime} s is not 0 or 3 to 65535`);
  const families = config.families ?? [address.family];
  if (families.length === 0) throw bad("it has no address family");
  const { sourceAddress, nextHops = {} } = config;
  if (sourceAddress !== undefined && parseAddress(sourceAddress).family !== address.family) {
    throw bad(`source address ${sourceAddress} and ${config.address} are not of one family`);
  }
  const internal = localAsn === config.asn;
  const type = internal ? "iBGP" : "eBGP";
  return {
    config,
    address,
    port: config.port ?? DEFAULT_PORT,
    localAsn,
    internal,
    families,
    restartTime: config.restartTime ?? DEFAULT_RESTART_TIME,
    ownNextHops: {
      ...(nextHops[4] !== undefined && { 4: parseAddress(nextHops[4]) }),
      ...(nextHops[6] !== undefined && { 6: parseAddress(nextHops[6]) }),
    },
    importRules: config.importFilter ?? defaultRules(type),
    exportRules: config.exportFilter ?? defaultRules(type),
  };
}

/** Whether a session must be ended and begun anew for the new settings to take effect. */
export function needsNewSession(before: PeerSettings, after: PeerSettings): boolean {
  const essence = ({ config, port, localAsn, families, restartTime }: PeerSettings): string => {
    const { name, address, asn, sourceAddress, passive = false, holdTime = DEFAULT_HOLD_TIME, keepaliveTime } = config;
    return [
      name,
      address,
      port,
      asn,
      localAsn,
      sourceAddress,
      passive,
      families,
      restartTime,
      holdTime,
      keepaliveTime,
    ].join();
  };
  return essence(before) !== essence(after);
}

export function sameImport(before: PeerSettings, after: PeerSettings): boolean {
  return filterKey(before.importRules) === filterKey(after.importRules);
}

/** Filters made ready, shared by all peers that say the same. */
export type FilterCache = Map<string, Filter>;

function filterOf(cache: FilterCache, rules: FilterRules, family: Family, internal: boolean): Filter {
  const type = internal ? "iBGP" : "eBGP";
  const key = `${family} ${type} ${filterKey(rules)}`;
  let filter = cache.get(key);
  if (filter === undefined) cache.set(key, (filter = compileFilter(rules, family, type)));
  return filter;
}

export function sessionConfig(settings: PeerSettings, self: Self, passive: boolean): SessionConfig {
  const { config, localAsn, families } = settings;
  return {
    localAsn,
    remoteAsn: config.asn,
    routerId: self.routerId,
    holdTime: config.holdTime ?? DEFAULT_HOLD_TIME,
    ...(config.keepaliveTime !== undefined && { keepaliveTime: config.keepaliveTime }),
    passive,
    connectTimeout: 1000 * (config.connectTimeout ?? DEFAULT_CONNECT_TIMEOUT),
    connectRetry: 1000 * (config.connectRetry ?? DEFAULT_CONNECT_RETRY),
    families,
    capabilities: capabilitiesOf(settings, self),
  };
}

function capabilitiesOf({ localAsn, families, restartTime }: PeerSettings, self: Self): Capabilities {
  const { restarting, forwardingPreserved } = self;
  return {
    families,
    routeRefresh: true,
    extendedMessage: true,
    asn: localAsn,
    ...(restartTime > 0 && {
      gracefulRestart: {
        restarting,
        notification: false,
        restartTime,
        families: families.map((family) => ({ family, forwardingPreserved })),
      },
    }),
  };
}

export function importPolicy(
  { localAsn, internal, importRules }: PeerSettings,
  family: Family,
  routerId: number,
  ownAddress: Address | undefined,
  cache: FilterCache,
): ImportPolicy {
  return { localAsn, routerId, internal, ownAddress, filter: filterOf(cache, importRules, family, internal) };
}

/** `sessionAddress` is our end of the TCP connection. */
export function exportPolicy(
  settings: PeerSettings,
  family: Family,
  session: Negotiated,
  sessionAddress: Address,
  cache: FilterCache,
): ExportPolicy {
  const { config, localAsn, internal, ownNextHops, exportRules } = settings;
  return {
    family,
    internal,
    localAsn,
    asOctets: session.asOctets,
    longestMessage: session.longestMessage,
    nextHopSelf: config.nextHopSelf ?? false,
    ownNextHop: ownNextHops[family] ?? (sessionAddress.family === family ? sessionAddress : undefined),
    filter: filterOf(cache, exportRules, family, internal),
  };
}

/** The router ID as the number that messages carry. Throws `Failure` (`bad-config`). */
export function routerIdOf({ routerId, asn }: SpeakerConfig): number {
  if (!Number.isInteger(asn) || asn < 1 || asn > MAX_ASN) throw new Failure("bad-config", `${asn} is not an AS number`);
  const address = parseAddress(routerId);
  if (address.family !== 4 || address.value === 0n) {
    throw new Failure("bad-config", `router ID "${routerId}" is not an IPv4 address other than 0.0.0.0`);
  }
  return Number(address.value);
}

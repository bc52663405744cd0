import { parseAddress, type Address, type Family } from "../ip/address.ts";
import type { Capabilities } from "./capabilities.ts";
import type { BfdConfig } from "./bfd.ts";
import type { BfdSettings, PeerConfig, SpeakerConfig } from "./config.ts";
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
/** RFC 9687 section 6, in seconds. */
const LEAST_SEND_HOLD_TIME = 480;
/** TCP_MD5SIG_MAXKEYLEN of <linux/tcp.h>. */
const LONGEST_PASSWORD = 80;

/** A peer's configuration with every default filled in, checked. */
export interface PeerSettings {
  readonly config: PeerConfig;
  readonly address: Address;
  readonly port: number;
  readonly localAsn: number;
  readonly internal: boolean;
  readonly client: boolean;
  readonly bfd: BfdConfig | undefined;
  readonly extendedNextHop: boolean;
  readonly clusterId: number;
  /** Of the speaker. */
  readonly speakerAsn: number;
  readonly families: readonly Family[];
  readonly restartTime: number;
  readonly ownNextHops: { readonly [F in Family]?: Address };
  readonly importRules: FilterRules;
  readonly exportRules: FilterRules;
}

/** Throws `Failure` (`bad-config`) with the name of the peer and what is wrong. */
export function settingsOf(config: PeerConfig, speaker: SpeakerConfig): PeerSettings {
  const { asn } = speaker;
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
  const client = config.routeReflectorClient ?? false;
  if (client && !internal) throw bad("only an iBGP peer can be a client of a route reflector");
  if (config.nextHopSelf === true && config.nextHopKeep === true) {
    throw bad("the next hop cannot both be ourselves and stay as it was");
  }
  for (const count of [config.allowOwnAs ?? 0, config.maximumPrefixes ?? 0]) {
    if (!Number.isInteger(count) || count < 0) throw bad(`${count} is not a whole number from 0 on`);
  }
  const { password, ttlSecurity } = config;
  if ((password !== undefined || ttlSecurity !== undefined) && speaker.sockets === undefined) {
    throw bad("passwords and TTL security need system calls that this speaker was not given");
  }
  if (password !== undefined && (password === "" || new TextEncoder().encode(password).length > LONGEST_PASSWORD)) {
    throw bad(`a password has 1 to ${LONGEST_PASSWORD} bytes`);
  }
  if (ttlSecurity !== undefined && (!Number.isInteger(ttlSecurity) || ttlSecurity < 1 || ttlSecurity > 255)) {
    throw bad(`TTL security of ${ttlSecurity} hops is not 1 to 255`);
  }
  return {
    config,
    address,
    port: config.port ?? DEFAULT_PORT,
    localAsn,
    internal,
    client,
    bfd: config.bfd === undefined ? undefined : bfdOf(config.bfd, bad),
    extendedNextHop: config.extendedNextHop ?? (address.family === 6 && families.includes(4)),
    clusterId: identifierOf("cluster ID", config.clusterId ?? speaker.clusterId ?? speaker.routerId),
    speakerAsn: asn,
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

/** At least 10 ms: a busy event loop would take the neighbour for dead. */
function bfdOf({ interval = 300, multiplier = 3 }: BfdSettings, bad: (reason: string) => Failure): BfdConfig {
  if (!(interval >= 10 && interval <= 60_000)) throw bad(`a BFD interval of ${interval} ms is not 10 to 60000`);
  if (!Number.isInteger(multiplier) || multiplier < 1 || multiplier > 255) {
    throw bad(`a BFD multiplier of ${multiplier} is not 1 to 255`);
  }
  return { minTx: interval * 1000, minRx: interval * 1000, multiplier };
}

/** Whether the neighbour is watched as before. */
export function sameBfd(before: PeerSettings, after: PeerSettings): boolean {
  return JSON.stringify(before.bfd) === JSON.stringify(after.bfd);
}

/** Whether a session must be ended and begun anew for the new settings to take effect. */
export function needsNewSession(before: PeerSettings, after: PeerSettings): boolean {
  const essence = ({ config, localAsn, client, extendedNextHop, families, restartTime }: PeerSettings): string => {
    const { name, address, asn, sourceAddress, passive = false, holdTime = DEFAULT_HOLD_TIME, keepaliveTime } = config;
    const { password, ttlSecurity, sendHoldTime } = config;
    const { send = false, receive = false } = config.addPath ?? {};
    return [
      name,
      address,
      asn,
      localAsn,
      sourceAddress,
      passive,
      client,
      send,
      receive,
      extendedNextHop,
      password,
      ttlSecurity,
      sendHoldTime,
      families,
      restartTime,
      holdTime,
      keepaliveTime,
    ].join();
  };
  return essence(before) !== essence(after);
}

/** Whether what the peer says is judged as before. */
export function sameImport(before: PeerSettings, after: PeerSettings): boolean {
  const essence = ({ importRules, clusterId, config: { allowOwnAs = 0 } }: PeerSettings): string =>
    [clusterId, allowOwnAs, filterKey(importRules)].join("|");
  return essence(before) === essence(after);
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
  const holdTime = config.holdTime ?? DEFAULT_HOLD_TIME;
  return {
    localAsn,
    remoteAsn: config.asn,
    routerId: self.routerId,
    holdTime,
    ...(config.keepaliveTime !== undefined && { keepaliveTime: config.keepaliveTime }),
    passive,
    connectTimeout: 1000 * (config.connectTimeout ?? DEFAULT_CONNECT_TIMEOUT),
    connectRetry: 1000 * (config.connectRetry ?? DEFAULT_CONNECT_RETRY),
    sendHoldTime: 1000 * (config.sendHoldTime ?? Math.max(LEAST_SEND_HOLD_TIME, 2 * holdTime)),
    signed: config.password !== undefined,
    families,
    capabilities: capabilitiesOf(settings, self),
  };
}

function capabilitiesOf(
  { config, localAsn, extendedNextHop, families, restartTime }: PeerSettings,
  self: Self,
): Capabilities {
  const { restarting, forwardingPreserved } = self;
  const { send = false, receive = false } = config.addPath ?? {};
  return {
    families,
    routeRefresh: true,
    enhancedRouteRefresh: true,
    extendedMessage: true,
    ...(extendedNextHop && { extendedNextHop }),
    asn: localAsn,
    ...((send || receive) && { addPath: families.map((family) => ({ family, send, receive })) }),
    ...(restartTime > 0 && {
      gracefulRestart: {
        restarting,
        notification: true,
        restartTime,
        families: families.map((family) => ({ family, forwardingPreserved })),
      },
    }),
  };
}

export function importPolicy(
  { config, localAsn, speakerAsn, internal, clusterId, importRules }: PeerSettings,
  family: Family,
  routerId: number,
  ownAddress: Address | undefined,
  cache: FilterCache,
): ImportPolicy {
  return {
    ownAsns: localAsn === speakerAsn ? [localAsn] : [localAsn, speakerAsn],
    allowOwnAs: config.allowOwnAs ?? 0,
    routerId,
    clusterId,
    internal,
    ownAddress,
    filter: filterOf(cache, importRules, family, internal),
  };
}

/** `sessionAddress` is our end of the TCP connection. */
export function exportPolicy(
  settings: PeerSettings,
  family: Family,
  session: Negotiated,
  sessionAddress: Address,
  cache: FilterCache,
): ExportPolicy {
  const { config, localAsn, internal, client, clusterId, ownNextHops, exportRules } = settings;
  const usable = sessionAddress.family === family || (sessionAddress.family === 6 && session.extendedNextHop);
  return {
    family,
    internal,
    client,
    clusterId,
    localAsn,
    asOctets: session.asOctets,
    longestMessage: session.longestMessage,
    addPath: session.addPathSend.includes(family),
    nextHopMode: config.nextHopSelf === true ? "self" : config.nextHopKeep === true ? "keep" : "auto",
    extendedNextHop: session.extendedNextHop,
    gracefulShutdown: config.gracefulShutdown ?? false,
    ownNextHop: ownNextHops[family] ?? (usable ? sessionAddress : undefined),
    filter: filterOf(cache, exportRules, family, internal),
  };
}

/** The router ID as the number that messages carry. Throws `Failure` (`bad-config`). */
export function routerIdOf({ routerId, asn }: SpeakerConfig): number {
  if (!Number.isInteger(asn) || asn < 1 || asn > MAX_ASN) throw new Failure("bad-config", `${asn} is not an AS number`);
  return identifierOf("router ID", routerId);
}

function identifierOf(what: string, text: string): number {
  const address = parseAddress(text);
  if (address.family !== 4 || address.value === 0n) {
    throw new Failure("bad-config", `${what} "${text}" is not an IPv4 address other than 0.0.0.0`);
  }
  return Number(address.value);
}

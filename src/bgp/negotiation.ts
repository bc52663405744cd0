import type { Family } from "../ip/address.ts";
import type { Capabilities, GracefulRestart } from "./capabilities.ts";
import { MAX_EXTENDED_MESSAGE, MAX_MESSAGE } from "./constants.ts";
import type { OpenMessage } from "./message.ts";
import { notification, OPEN_ERROR, type Notification } from "./notification.ts";

/** What the two OPENs of a session agreed on. Times are seconds. */
export interface Negotiated {
  readonly remoteRouterId: number;
  readonly internal: boolean;
  readonly holdTime: number;
  readonly keepaliveTime: number;
  readonly families: readonly Family[];
  /** Octets of an AS number in both directions (RFC 6793). */
  readonly asOctets: 2 | 4;
  /** Longest message that may be sent and received, in bytes (RFC 8654). */
  readonly longestMessage: number;
  readonly routeRefresh: boolean;
  /** Beginning and end of a refresh are marked (RFC 7313). */
  readonly enhancedRouteRefresh: boolean;
  /** IPv4 routes may have IPv6 next hops (RFC 8950). */
  readonly extendedNextHop: boolean;
  /** The peer's, where both sides have the capability. */
  readonly gracefulRestart?: GracefulRestart;
  /** A NOTIFICATION, but for a hard reset, leaves room for a restart as a lost connection does (RFC 8538). */
  readonly notificationRestart: boolean;
  /** Families whose prefixes carry path identifiers, towards us and away from us (RFC 7911). */
  readonly addPathReceive: readonly Family[];
  readonly addPathSend: readonly Family[];
}

export interface Offer {
  readonly localAsn: number;
  readonly remoteAsn: number;
  readonly routerId: number;
  readonly holdTime: number;
  readonly keepaliveTime?: number;
  readonly families: readonly Family[];
  readonly capabilities: Capabilities;
}

/** RFC 4271 section 6.2: whether the peer's OPEN is one that we can live with, and what follows from both. */
export function negotiate(
  open: OpenMessage,
  offer: Offer,
): { session: Negotiated } | { refusal: Notification; reason: string } {
  const refuse = (subcode: number, reason: string, data?: Uint8Array) => ({
    refusal: notification(OPEN_ERROR.code, subcode, data),
    reason,
  });
  if (open.asn !== offer.remoteAsn) {
    return refuse(OPEN_ERROR.badPeerAs, `wrong AS: expected ${offer.remoteAsn}, got ${open.asn}`);
  }
  const internal = offer.localAsn === offer.remoteAsn;
  // RFC 6286 section 2.2: any identifier but zero, and within an AS not our own.
  if (open.routerId === 0 || (internal && open.routerId === offer.routerId)) {
    const reason = open.routerId === 0 ? "the peer's router ID is 0.0.0.0" : "the peer has our own router ID";
    return refuse(OPEN_ERROR.badIdentifier, reason);
  }
  if (open.holdTime === 1 || open.holdTime === 2) {
    return refuse(OPEN_ERROR.unacceptableHoldTime, `the peer wants a hold time of ${open.holdTime} s; 3 is the least`);
  }
  const theirs = open.capabilities;
  const ours = offer.capabilities;
  const offered = theirs.families ?? [4];
  const families = offer.families.filter((family) => offered.includes(family));
  if (families.length === 0) {
    const list = (names: readonly Family[]): string => names.map((family) => `IPv${family}`).join(" and ") || "none";
    const reason = `no address family in common: we have ${list(offer.families)}, the peer ${list(offered)}`;
    return refuse(OPEN_ERROR.unsupportedCapability, reason);
  }
  const holdTime = Math.min(offer.holdTime, open.holdTime);
  const both = (name: "routeRefresh" | "enhancedRouteRefresh" | "extendedMessage" | "extendedNextHop"): boolean =>
    theirs[name] === true && ours[name] === true;
  const addPath = (from: Capabilities, to: Capabilities): Family[] =>
    families.filter(
      (family) =>
        from.addPath?.some((entry) => entry.family === family && entry.send) === true &&
        to.addPath?.some((entry) => entry.family === family && entry.receive) === true,
    );
  return {
    session: {
      remoteRouterId: open.routerId,
      internal,
      holdTime,
      keepaliveTime: Math.min(offer.keepaliveTime ?? Infinity, holdTime / 3),
      families,
      asOctets: theirs.asn === undefined || ours.asn === undefined ? 2 : 4,
      longestMessage: both("extendedMessage") ? MAX_EXTENDED_MESSAGE : MAX_MESSAGE,
      routeRefresh: both("routeRefresh"),
      // RFC 7313 section 4 wants both capabilities.
      enhancedRouteRefresh: both("routeRefresh") && both("enhancedRouteRefresh"),
      extendedNextHop: both("extendedNextHop"),
      ...(theirs.gracefulRestart !== undefined &&
        ours.gracefulRestart !== undefined && { gracefulRestart: theirs.gracefulRestart }),
      notificationRestart: theirs.gracefulRestart?.notification === true && ours.gracefulRestart?.notification === true,
      addPathReceive: addPath(theirs, ours),
      addPathSend: addPath(ours, theirs),
    },
  };
}

/** For people: what a session can beyond RFC 4271. */
export function agreedOn(session: Negotiated): string[] {
  const { addPathReceive, addPathSend, gracefulRestart } = session;
  const paths = [
    ...addPathReceive.map((family) => `receive IPv${family}`),
    ...addPathSend.map((family) => `send IPv${family}`),
  ];
  return [
    ...(session.asOctets === 4 ? ["four-octet AS"] : []),
    ...(session.enhancedRouteRefresh ? ["enhanced route refresh"] : session.routeRefresh ? ["route refresh"] : []),
    ...(session.longestMessage > MAX_MESSAGE ? ["extended messages"] : []),
    ...(session.extendedNextHop ? ["IPv6 next hops for IPv4"] : []),
    ...(gracefulRestart === undefined ? [] : ["graceful restart"]),
    ...(session.notificationRestart ? ["graceful restart after notifications"] : []),
    ...(paths.length === 0 ? [] : [`add-path (${paths.join(", ")})`]),
  ];
}

import type { Family } from "../ip/address.ts";

/** RFC 4271 section 4.1; RFC 2918 section 3. */
export const MESSAGE = { open: 1, update: 2, notification: 3, keepalive: 4, routeRefresh: 5 } as const;

export const VERSION = 4;
export const HEADER_LENGTH = 19;
/** RFC 4271 section 4.1. */
export const MAX_MESSAGE = 4096;
/** RFC 8654: everything but OPEN and KEEPALIVE, when both sides say so. */
export const MAX_EXTENDED_MESSAGE = 65535;

/** Stands for us in two-octet fields when our AS does not fit (RFC 6793 section 9). */
export const AS_TRANS = 23456;
export const MAX_ASN = 4294967295;

/** Address family identifiers, and the subsequent identifier of unicast (RFC 4760). */
export const SAFI_UNICAST = 1;
export const AFI: Readonly<Record<Family, number>> = { 4: 1, 6: 2 };

/** The family of an AFI and SAFI, where it is one that we speak. */
export function familyOf(afi: number, safi: number): Family | undefined {
  if (safi !== SAFI_UNICAST) return undefined;
  return afi === AFI[4] ? 4 : afi === AFI[6] ? 6 : undefined;
}

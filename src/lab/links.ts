import { LabError } from "./labError.ts";

/** What may be wrong with the wire between a member of a lab and its segment. Nothing is, where all of it is absent. */
export interface LinkFault {
  /** Nothing passes. */
  readonly cut?: boolean;
  /** Larger packets are swallowed in silence, as by a switch. Bytes. */
  readonly mtu?: number;
  /** What a firewall on the way drops. */
  readonly blocked?: readonly Blocked[];
}

/** An IP protocol, or one port of it as destination. */
export interface Blocked {
  readonly protocol: number;
  readonly port?: number;
}

/** IANA's numbers. */
const PROTOCOLS: Readonly<Record<string, number>> = { icmp: 1, ipip: 4, tcp: 6, udp: 17, icmpv6: 58 };

/** `ipip`, `udp:4789`, `4`. Throws `LabError`. */
export function parseBlocked(text: string): Blocked {
  const match = /^([a-z0-9]+)(?::(\d{1,5}))?$/.exec(text);
  const [, name = "", port] = match ?? [];
  const protocol = PROTOCOLS[name] ?? (/^\d{1,3}$/.test(name) ? Number(name) : 256);
  if (protocol > 255 || Number(port ?? 0) > 65_535) {
    const words = Object.keys(PROTOCOLS).join(", ");
    throw new LabError("bad-definition", `"${text}" is not a protocol (${words}, or a number), with or without a port`);
  }
  return { protocol, ...(port !== undefined && { port: Number(port) }) };
}

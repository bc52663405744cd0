import net from "node:net";
import { ASN } from "./daemons.testing.ts";
import { encodeKeepalive, encodeOpen } from "./message.ts";

// What every daemon is measured with: neighbours that say what they are told to and count what they hear. They read and
// write messages by themselves, so that nothing of what is measured is measured by itself.

/** Prefixes of one length, counted from a base address on. */
export interface Numbering {
  readonly base: number;
  /** Bits of a prefix. */
  readonly length: number;
  readonly count: number;
}

export interface Client {
  readonly established: boolean;
  /** How many of the numbered prefixes it has been told and not been taken again. */
  readonly held: number;
  /** Prefixes announced or withdrawn to it in all, numbered or not. */
  readonly heard: number;
  /** Sessions that came up: more than one says that the daemon ended one. */
  readonly sessions: number;
  /** Messages one after the other: given to the kernel as fast as the daemon reads. */
  send(messages: Uint8Array): void;
  onUpdate: (() => void) | undefined;
  /** Reads no more, until `resume`. */
  pause(): void;
  resume(): void;
  end(): void;
}

export interface ClientOptions {
  readonly address: string;
  readonly to: string;
  readonly asn: number;
  readonly routerId: number;
  readonly expects: Numbering;
  /** Of the numbered prefixes, those that it announces itself: some reflectors tell it of them again. */
  readonly own?: { readonly first: number; readonly count: number };
  /** Seconds. */
  readonly holdTime?: number;
  /** Why a session ended, for whoever looks for it. */
  readonly onEnd?: (reason: string) => void;
}

const [OPEN, UPDATE, NOTIFICATION, KEEPALIVE] = [1, 2, 3, 4];
const HEADER = 19;
/** How long a client waits, in milliseconds, before it tries again to connect. */
const RETRY = 200;

/** Connects, and again whenever the connection ends. */
export function connectClient(options: ClientOptions): Client {
  const { base, length, count } = options.expects;
  const shift = 32 - length;
  const holds = new Uint8Array(count);
  const { first, count: owned } = options.own ?? { first: 0, count: 0 };
  const holdTime = options.holdTime ?? 240;
  let socket: net.Socket | undefined;
  let pending: Buffer | undefined;
  let retry: NodeJS.Timeout | undefined;
  let over = false;
  const own = { established: false, held: 0, heard: 0, sessions: 0 };
  const client: Client = {
    get established() {
      return own.established;
    },
    get held() {
      return own.held;
    },
    get heard() {
      return own.heard;
    },
    get sessions() {
      return own.sessions;
    },
    send: (messages) => void socket?.write(messages),
    onUpdate: undefined,
    pause: () => void socket?.pause(),
    resume: () => void socket?.resume(),
    end() {
      over = true;
      clearInterval(keepalives);
      clearTimeout(retry);
      socket?.destroy();
    },
  };

  /** Walks the prefixes from `start` to `end`, none of which may be IPv6. */
  function walk(bytes: Buffer, start: number, end: number, present: 0 | 1): void {
    const unused = 32 - 8 * ((length + 7) >> 3);
    let heard = 0;
    let held = 0;
    for (let at = start; at < end;) {
      const bits = bytes[at]!;
      const next = at + 1 + ((bits + 7) >> 3);
      heard += 1;
      if (bits === length) {
        let address = 0;
        for (at += 1; at < next; at += 1) address = (address << 8) | bytes[at]!;
        // Those before the base come out as large numbers.
        const index = (((address << unused) >>> 0) - base) >>> shift;
        if (index < count && holds[index] !== present && (index < first || index >= first + owned)) {
          holds[index] = present;
          held += 1;
        }
      }
      at = next;
    }
    own.heard += heard;
    own.held += present === 1 ? held : -held;
  }

  function update(bytes: Buffer, start: number, end: number): void {
    const withdrawn = start + 2 + bytes.readUInt16BE(start);
    walk(bytes, start + 2, withdrawn, 0);
    walk(bytes, withdrawn + 2 + bytes.readUInt16BE(withdrawn), end, 1);
    client.onUpdate?.();
  }

  function read(chunk: Buffer): void {
    const bytes = pending === undefined ? chunk : Buffer.concat([pending, chunk]);
    let at = 0;
    while (bytes.length - at >= HEADER) {
      const end = at + bytes.readUInt16BE(at + 16);
      if (end > bytes.length) break;
      const type = bytes[at + 18];
      if (type === OPEN) socket?.write(encodeKeepalive());
      else if (type === UPDATE) update(bytes, at + HEADER, end);
      else if (type === KEEPALIVE && !own.established) {
        own.established = true;
        own.sessions += 1;
      } else if (type === NOTIFICATION) options.onEnd?.(`NOTIFICATION ${bytes[at + 19]}/${bytes[at + 20]}`);
      at = end;
    }
    pending = at === bytes.length ? undefined : bytes.subarray(at);
  }

  function dial(): void {
    if (over) return;
    pending = undefined;
    const opened = net.connect({ host: options.to, port: 179, localAddress: options.address, noDelay: true });
    socket = opened;
    opened.on("connect", () => {
      const { asn, routerId } = options;
      opened.write(encodeOpen({ asn, holdTime, routerId, capabilities: { families: [4], asn, routeRefresh: true } }));
    });
    opened.on("data", read);
    opened.on("error", (error) => options.onEnd?.(error.message));
    opened.on("close", () => {
      own.established = false;
      // What a session told is gone with it.
      holds.fill(0);
      own.held = 0;
      if (!over) retry = setTimeout(dial, RETRY);
    });
  }
  const keepalives = setInterval(() => own.established && socket?.write(encodeKeepalive()), (holdTime * 1000) / 3);
  dial();
  return client;
}

/** Which table is sent. */
export interface Profile {
  readonly name: string;
  /** iBGP between the neighbours, which are clients of the reflector; or eBGP, each an AS of its own. */
  readonly internal: boolean;
  readonly length: number;
  readonly base: number;
  /** Prefixes that share attributes. */
  readonly sharing: number;
  /** Attributes of the n-th set. */
  attributes(set: number, nextHop: number): Buffer;
}

function attribute(flags: number, code: number, ...words: number[]): number[] {
  const value = words.flatMap((word) => [word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255]);
  return [flags, code, value.length, ...value];
}

const ORIGIN_IGP = [0x40, 1, 1, 0];
/** 172.16.0.0/12: where the next hops of the first profile lie, which every daemon has a route to. */
export const NEXT_HOPS = { network: "172.16.0.0/12", first: 0xac100001 };

/** Of a route that begins in this AS. */
export function internalAttributes(nextHop: number): Buffer {
  return Buffer.from([
    ...ORIGIN_IGP,
    ...attribute(0x40, 2),
    ...attribute(0x40, 3, nextHop),
    ...attribute(0x40, 5, 100),
  ]);
}

export const PROFILES: readonly [hops: Profile, shared: Profile] = [
  {
    name: "next hop per 4 prefixes",
    internal: true,
    length: 26,
    base: 0x10000000,
    sharing: 4,
    attributes: (set) => internalAttributes(NEXT_HOPS.first + set),
  },
  {
    name: "shared attributes",
    internal: false,
    length: 24,
    base: 0x20000000,
    sharing: 100,
    attributes(set, nextHop) {
      const asns = [sender.asn, 3356, 1299, 100_000 + set];
      const path = [0x40, 2, 2 + 4 * asns.length, 2, asns.length, ...attribute(0, 0, ...asns).slice(3)];
      return Buffer.from([
        ...ORIGIN_IGP,
        ...path,
        ...attribute(0x40, 3, nextHop),
        ...attribute(0xc0, 8, 0x0d1c0001, 0x0d1c0000 + (set & 0xff)),
      ]);
    },
  },
];

/** Who announces the table, and who hears it, by number of host; in eBGP each is an AS of its own. */
export const sender = { number: 20, asn: 65_020 };
export const receiver = { number: 21, asn: 65_021 };

export const asnOf = ({ internal }: Pick<Profile, "internal">, { asn }: { asn: number }): number =>
  internal ? ASN : asn;

/** UPDATEs that announce `count` prefixes, from the `first` on. */
export function announcements(profile: Profile, first: number, count: number, nextHop: number): Buffer {
  const octets = 1 + ((profile.length + 7) >> 3);
  const messages: Buffer[] = [];
  for (let at = 0; at < count; at += profile.sharing) {
    const attributes = profile.attributes(Math.floor((first + at) / profile.sharing), nextHop);
    const many = Math.min(profile.sharing, count - at);
    for (let done = 0; done < many;) {
      const fits = Math.min(many - done, Math.floor((4096 - HEADER - 4 - attributes.length) / octets));
      const message = startUpdate(HEADER + 4 + attributes.length + fits * octets);
      message.writeUInt16BE(attributes.length, HEADER + 2);
      attributes.copy(message, HEADER + 4);
      writePrefixes(message, HEADER + 4 + attributes.length, profile, first + at + done, fits);
      messages.push(message);
      done += fits;
    }
  }
  return Buffer.concat(messages);
}

/** UPDATEs that withdraw them. */
export function withdrawals(profile: Pick<Profile, "base" | "length">, first: number, count: number): Buffer {
  const octets = 1 + ((profile.length + 7) >> 3);
  const messages: Buffer[] = [];
  const most = Math.floor((4096 - HEADER - 4) / octets);
  for (let at = 0; at < count; at += most) {
    const fits = Math.min(most, count - at);
    const message = startUpdate(HEADER + 4 + fits * octets);
    message.writeUInt16BE(fits * octets, HEADER);
    writePrefixes(message, HEADER + 2, profile, first + at, fits);
    messages.push(message);
  }
  return Buffer.concat(messages);
}

function startUpdate(length: number): Buffer {
  const message = Buffer.alloc(length);
  message.fill(255, 0, 16);
  message.writeUInt16BE(length, 16);
  message[18] = UPDATE;
  return message;
}

function writePrefixes(
  message: Buffer,
  start: number,
  { base, length }: Pick<Profile, "base" | "length">,
  first: number,
  count: number,
): void {
  const octets = (length + 7) >> 3;
  let at = start;
  for (let index = first; index < first + count; index += 1) {
    const address = base + index * 2 ** (32 - length);
    message[at] = length;
    for (let octet = 0; octet < octets; octet += 1) message[at + 1 + octet] = (address >>> (24 - 8 * octet)) & 255;
    at += 1 + octets;
  }
}

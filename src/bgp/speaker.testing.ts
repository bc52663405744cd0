import net from "node:net";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { Clock } from "./clock.ts";
import type { PeerConfig, RouteChange, Speaker, SpeakerConfig } from "./config.ts";
import { encodeKeepalive, encodeOpen, nextFrame, type OpenMessage } from "./message.ts";
import { createSpeaker } from "./speaker.io.ts";

export const ASN = 64512;

/** A clock that runs so many times faster than ours. */
export function fastClock(factor: number): Clock {
  const start = Date.now();
  return {
    now: () => start + (Date.now() - start) * factor,
    elapsed: () => performance.now() * factor,
    after(milliseconds, callback) {
      const timer = setTimeout(callback, milliseconds / factor);
      return () => clearTimeout(timer);
    },
  };
}

/** A speaker on 127.0.0.N, and what it has told of learned routes: prefix to next hops, in text. */
export interface TestSpeaker extends Speaker {
  readonly address: string;
  readonly table: Map<string, string>;
  readonly history: string[];
  readonly settledAt: { table: string[] } | undefined;
}

export async function speakerAt(
  number: number,
  port: number,
  options: Partial<SpeakerConfig> & { clock?: Clock } = {},
): Promise<TestSpeaker> {
  const address = `127.0.0.${number}`;
  const { clock, ...config } = options;
  const speaker = await createSpeaker(
    { asn: ASN, routerId: `10.0.0.${number}`, port, listenAddresses: [address], ...config },
    clock,
  );
  const table = new Map<string, string>();
  const history: string[] = [];
  let settledAt: TestSpeaker["settledAt"];
  speaker.on("routes", (changes: readonly RouteChange[]) => {
    for (const { prefix, nextHops, peer } of changes) {
      const key = formatPrefix(prefix);
      history.push(`${nextHops.length === 0 ? "-" : "+"}${key}`);
      if (nextHops.length === 0) table.delete(key);
      else table.set(key, peer ?? "");
    }
  });
  speaker.on("settled", () => {
    settledAt = { table: [...table.keys()] };
  });
  return Object.defineProperties(Object.create(speaker) as TestSpeaker, {
    address: { value: address },
    table: { value: table },
    history: { value: history },
    settledAt: { get: () => settledAt },
  });
}

/** Runs a test with speakers that are abandoned afterwards, whatever happens. */
export async function withSpeakers(
  run: (keep: <One extends Speaker>(speaker: Promise<One>) => Promise<One>) => Promise<void>,
): Promise<void> {
  const running: Speaker[] = [];
  try {
    await run(async (pending) => {
      const speaker = await pending;
      running.push(speaker);
      return speaker;
    });
  } finally {
    for (const speaker of running) await speaker.abandon();
  }
}

/** How the speaker on 127.0.0.`from` knows the one on 127.0.0.`to`: next hops are of TEST-NET-1. */
export function peerOf(from: number, to: number, port: number, change: Partial<PeerConfig> = {}): PeerConfig {
  return {
    name: `Mesh_127_0_0_${to}`,
    address: `127.0.0.${to}`,
    port,
    asn: ASN,
    sourceAddress: `127.0.0.${from}`,
    nextHops: { 4: `192.0.2.${from}`, 6: `2001:db8::${from}` },
    ...change,
  };
}

export function originate(speaker: Speaker, ...prefixes: string[]): void {
  speaker.setOrigination(prefixes.map((prefix) => ({ prefix: parsePrefix(prefix) })));
}

/** Waits until it holds, looking again and again; says what was awaited where it never does. */
export async function until(what: string, holds: () => boolean, milliseconds = 3000): Promise<void> {
  const end = performance.now() + milliseconds;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`waited ${milliseconds} ms in vain for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A peer made of nothing but a socket, to misbehave with. */
export interface RawPeer {
  readonly types: number[];
  readonly bodies: Uint8Array[];
  readonly closed: boolean;
  send(bytes: Uint8Array): void;
  /** Reads no more. */
  pause(): void;
  end(): void;
}

export async function rawPeer(from: string, to: Speaker & { address: string }): Promise<RawPeer> {
  const socket = net.connect({ host: to.address, port: to.port, localAddress: from });
  await new Promise((resolve, reject) => socket.once("connect", resolve).once("error", reject));
  let pending: Uint8Array = new Uint8Array(0);
  let closed = false;
  const types: number[] = [];
  const bodies: Uint8Array[] = [];
  socket.on("data", (chunk: Buffer) => {
    const bytes = Buffer.concat([pending, chunk]);
    let at = 0;
    for (let frame = nextFrame(bytes, at, 65535); frame !== undefined; frame = nextFrame(bytes, at, 65535)) {
      types.push(frame.type);
      bodies.push(bytes.subarray(frame.start, frame.end));
      at = frame.end;
    }
    pending = bytes.subarray(at);
  });
  socket.on("error", () => undefined);
  socket.on("close", () => {
    closed = true;
  });
  return {
    types,
    bodies,
    get closed() {
      return closed;
    },
    send: (bytes) => void socket.write(bytes),
    pause: () => void socket.pause(),
    end: () => void socket.destroy(),
  };
}

/** Speaks as far as Established, and then as it is told. */
export async function rawSession(
  from: string,
  to: Speaker & { address: string },
  open: Partial<OpenMessage> = {},
): Promise<RawPeer> {
  const raw = await rawPeer(from, to);
  const capabilities = { families: [4], asn: ASN } as const;
  raw.send(encodeOpen({ asn: ASN, holdTime: 90, routerId: 0x0a0000fe, capabilities, ...open }));
  await until("an OPEN and a KEEPALIVE", () => raw.types.includes(1) && raw.types.includes(4));
  raw.send(encodeKeepalive());
  return raw;
}

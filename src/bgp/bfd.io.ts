import dgram from "node:dgram";
import { formatAddress, type Address, type Family } from "../ip/address.ts";
import { codeOf, messageOf } from "../lib/errors.ts";
import {
  BFD_PORT,
  decodeBfd,
  encodeBfd,
  startBfd,
  stepBfd,
  type BfdAction,
  type BfdConfig,
  type BfdEvent,
  type BfdPacket,
  type BfdState,
  type BfdStateName,
} from "./bfd.ts";
import type { Clock } from "./clock.ts";
import type { SocketCalls } from "./config.ts";
import { plainAddress } from "./connection.io.ts";

/** A neighbour that is watched. */
export interface BfdSession {
  readonly state: BfdStateName;
  /** When it entered the state: milliseconds since 1970. */
  readonly since: number;
  /** Tells the neighbour that watching ends, and that this is no failure. */
  stop(): void;
}

export interface BfdListener {
  up(): void;
  down(failed: boolean, reason: string): void;
}

/** All sessions of a host, which share the port on which they hear. Single hop (RFC 5881). */
export interface BfdService {
  watch(local: Address, remote: Address, config: BfdConfig, listener: BfdListener): BfdSession;
  close(): void;
}

export interface BfdHost {
  readonly clock: Clock;
  readonly sockets: SocketCalls | undefined;
  log(level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

/** RFC 5881 section 4: what a session sends from. */
const SOURCE_PORTS = { first: 49_152, count: 16_384 };
const LARGEST_TTL = 255;

interface Endpoint extends BfdSession {
  readonly remote: Address;
  readonly mine: number;
  handle(event: BfdEvent): void;
}

export function createBfdService(host: BfdHost): BfdService {
  const byDiscriminator = new Map<number, Endpoint>();
  const ears: { [F in Family]?: dgram.Socket } = {};

  function hear(family: Family): void {
    if (ears[family] !== undefined) return;
    const socket = dgram.createSocket({ type: family === 4 ? "udp4" : "udp6", ipv6Only: family === 6 });
    ears[family] = socket;
    socket.on("error", (error) => {
      const why = `${messageOf(error)} (${codeOf(error) ?? "unknown"})`;
      host.log("warn", `cannot hear BFD of IPv${family} on port ${BFD_PORT}: ${why}`, {});
    });
    socket.on("message", (bytes, { address }) => receive(bytes, plainAddress(address)));
    socket.bind(BFD_PORT, () => {
      try {
        // RFC 5881 section 5: who is on the link sends with the largest TTL, and nobody else can.
        host.sockets?.requireTtl(datagramDescriptorOf(socket), family, LARGEST_TTL);
      } catch (thrown) {
        host.log("warn", `BFD of IPv${family} takes packets from further away than the link: ${messageOf(thrown)}`, {});
      }
    });
  }

  function receive(bytes: Uint8Array, from: string): void {
    let packet: BfdPacket;
    try {
      packet = decodeBfd(bytes);
    } catch {
      return; // RFC 5880 section 6.8.6: discarded
    }
    const session = packet.yours === 0 ? sessionWith(from) : byDiscriminator.get(packet.yours);
    if (session === undefined || formatAddress(session.remote) !== from) return;
    session.handle({ type: "packet", packet });
  }

  function sessionWith(address: string): Endpoint | undefined {
    return [...byDiscriminator.values()].find(({ remote }) => formatAddress(remote) === address);
  }

  return {
    watch(local, remote, config, listener) {
      hear(remote.family);
      let mine: number;
      do mine = 1 + Math.floor(Math.random() * 0xfffffffe);
      while (byDiscriminator.has(mine));
      const session = createEndpoint({ local, remote, config, mine }, listener, host, () =>
        byDiscriminator.delete(mine),
      );
      byDiscriminator.set(mine, session);
      return session;
    },
    close() {
      for (const session of byDiscriminator.values()) session.stop();
      for (const socket of Object.values(ears)) socket.close();
    },
  };
}

/** As with `descriptorOf`: a datagram socket keeps its handle behind a symbol. */
function datagramDescriptorOf(socket: dgram.Socket): number {
  const hidden = socket as unknown as Record<symbol, { handle?: { fd?: number } } | undefined>;
  const fds = Object.getOwnPropertySymbols(socket).map((symbol) => hidden[symbol]?.handle?.fd);
  return fds.find((fd) => fd !== undefined) ?? -1;
}

function createEndpoint(
  { local, remote, config, mine }: { local: Address; remote: Address; config: BfdConfig; mine: number },
  listener: BfdListener,
  host: BfdHost,
  gone: () => void,
): Endpoint {
  const { clock } = host;
  let state: BfdState = startBfd(mine, config).state;
  let since = clock.now();
  let stopTransmit: (() => void) | undefined;
  let stopDetect: (() => void) | undefined;
  let mouth: dgram.Socket | undefined;
  let ready = false;
  let over = false;

  function open(attempts: number): void {
    const socket = dgram.createSocket(remote.family === 4 ? "udp4" : "udp6");
    mouth = socket;
    socket.on("error", (error) => {
      if (over || ready) return; // a neighbour that is away may refuse what we send
      socket.close();
      if (codeOf(error) === "EADDRINUSE" && attempts > 1) open(attempts - 1);
      else host.log("warn", `cannot send BFD from ${formatAddress(local)}: ${messageOf(error)}`, {});
    });
    const port = SOURCE_PORTS.first + Math.floor(Math.random() * SOURCE_PORTS.count);
    socket.bind({ address: formatAddress(local), port, exclusive: true }, () => {
      if (over) return;
      ready = true;
      socket.setTTL(LARGEST_TTL);
      perform(startBfd(mine, config).actions);
    });
  }

  function handle(event: BfdEvent): void {
    const before = state.name;
    const { state: next, actions } = stepBfd(state, event, config);
    state = next;
    if (state.name !== before) since = clock.now();
    perform(actions);
  }

  function perform(actions: readonly BfdAction[]): void {
    for (const action of actions) {
      switch (action.type) {
        case "send":
          if (ready) mouth?.send(encodeBfd(action.packet), BFD_PORT, formatAddress(remote), () => undefined);
          break;
        case "transmitIn":
          stopTransmit?.();
          stopTransmit = action.interval === undefined ? undefined : startTransmit(action.interval);
          break;
        case "detectIn":
          stopDetect?.();
          stopDetect = startDetect(action.interval / 1000);
          break;
        case "up":
          listener.up();
          break;
        case "down":
          listener.down(action.failed, action.reason);
          break;
      }
    }
  }

  /** RFC 5880 section 6.8.7: up to a quarter less, and at least a tenth less where every packet counts. */
  function startTransmit(interval: number): () => void {
    const most = config.multiplier === 1 ? 0.9 : 1;
    const part = most - Math.random() * (most - 0.75);
    return clock.after((interval * part) / 1000, () => handle({ type: "transmitExpired" }));
  }

  function startDetect(milliseconds: number): () => void {
    let cancelled = false;
    const cancel = clock.after(milliseconds, () => {
      // What arrived while we were busy is read first.
      setImmediate(() => setImmediate(() => !cancelled && handle({ type: "detectExpired" })));
    });
    return () => {
      cancelled = true;
      cancel();
    };
  }

  open(8);
  return {
    remote,
    mine,
    get state() {
      return state.name;
    },
    get since() {
      return since;
    },
    handle,
    stop() {
      if (over) return;
      handle({ type: "stop" });
      over = true;
      stopTransmit?.();
      stopDetect?.();
      gone();
      // The farewell leaves first.
      setImmediate(() => mouth?.close());
    },
  };
}

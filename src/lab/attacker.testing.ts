import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, existsSync, writeSync } from "node:fs";
import { setPriority } from "node:os";
import { parseAddress } from "../ip/address.ts";
import {
  AF_INET,
  AF_INET6,
  connect,
  MSG_DONTWAIT,
  receive,
  setSocketOption,
  SO_RCVBUFFORCE,
  SOCK_RAW,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { PROTOCOL } from "../policy/model.ts";
import { packetBytes } from "./rawPackets.testing.ts";
import { sockaddr } from "./sockaddr.ts";

/** Attempts to connect, one a millisecond in each stream, from a process of its own: none waits for the one before. */
export interface Stream {
  readonly name: string;
  /** Where the attempts begin. It may come to be later: they begin then. */
  readonly netns: string;
  readonly source: string;
  readonly destination: string;
  /** TCP. Nobody needs to listen: a refusal is an answer. */
  readonly port: number;
  /** Where attempts are seen to arrive; absent: answers are counted where they began. */
  readonly seenIn?: string;
}

export interface StreamReport {
  readonly name: string;
  /** Those that the kernel took. */
  readonly sent: number;
  readonly answered: number;
  /** Attempts in a row that nobody answered, the longest of them: about as many milliseconds. */
  readonly longestSilence: number;
}

export interface Attacker {
  /** Begins with these streams. */
  start(streams: readonly Stream[]): Promise<void>;
  /** What has come of it until now. */
  report(): Promise<readonly StreamReport[]>;
  /** No more is sent, and what is on its way has time to be answered. */
  stop(): Promise<readonly StreamReport[]>;
  close(): void;
}

export function openAttacker(): Attacker {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", import.meta.filename], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
  const ask = (question: Question): Promise<readonly StreamReport[]> => {
    const answer = answerOf(child);
    child.send(question);
    return answer;
  };
  return {
    start: async (streams) => void (await ask({ do: "start", streams })),
    report: () => ask({ do: "report" }),
    stop: () => ask({ do: "stop" }),
    close: () => void child.kill("SIGKILL"),
  };
}

type Question = { readonly do: "start"; readonly streams: readonly Stream[] } | { readonly do: "report" | "stop" };

function answerOf(child: ChildProcess): Promise<readonly StreamReport[]> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void => reject(new Error(`the attacker has ended with ${code}`));
    child.once("exit", ended);
    child.once("message", (message) => {
      child.off("exit", ended);
      resolve(message as readonly StreamReport[]);
    });
  });
}

/** Answers on their way are there by then. */
const LAST_ANSWERS_MS = 250;
const FIRST_PORT = 10_000;
const PORTS = 50_000;

interface Running {
  readonly stream: Stream;
  sender: number | undefined;
  receiver: number | undefined;
  attempts: number;
  sent: number;
  /** By attempt: 1 where it was sent, 2 where it was answered. */
  readonly states: Uint8Array;
}

function open(netns: string, address: string, protocol: number, isConnected: boolean): number {
  const { family } = parseAddress(address);
  const fd = socketIn(netns, family === 4 ? AF_INET : AF_INET6, SOCK_RAW, protocol);
  setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
  if (protocol === IPPROTO_RAW && family === 6) setSocketOption(fd, IPPROTO_IPV6, IPV6_HDRINCL, 1);
  if (isConnected) connect(fd, sockaddr(parseAddress(address), 0));
  return fd;
}
const IPPROTO_RAW = 255;
const IPPROTO_IPV6 = 41;
const IPV6_HDRINCL = 36;
const ATTEMPTS_MAX = 400_000;

function attempt(running: Running): void {
  const { stream, states } = running;
  const { netns, source, destination, port } = stream;
  const number = running.attempts;
  if (number >= ATTEMPTS_MAX) return;
  running.attempts += 1;
  const packet = {
    source: parseAddress(source),
    destination: parseAddress(destination),
    protocol: PROTOCOL.TCP,
    sourcePort: FIRST_PORT + (number % PORTS),
    destinationPort: port,
  };
  try {
    if (running.sender === undefined) {
      if (!existsSync(netns)) return;
      running.sender = open(netns, destination, IPPROTO_RAW, false);
    }
    // Until it has a way there the kernel says no.
    connect(running.sender, sockaddr(packet.destination, 0));
    writeSync(running.sender, packetBytes(packet, number));
    running.sent += 1;
    states[number] = 1;
  } catch {
    // It was not sent. The namespace may be gone, and another in its place.
    if (running.sender !== undefined) closeSync(running.sender);
    running.sender = undefined;
  }
}

const buffer = new Uint8Array(2048);
const view = new DataView(buffer.buffer);

/** Answers, or the attempts themselves where they are seen to arrive. */
function collect(running: Running): void {
  const { stream, states } = running;
  const isV4 = !stream.destination.includes(":");
  const isSeen = stream.seenIn !== undefined;
  if (running.receiver === undefined) {
    const [where, other] = isSeen ? [stream.seenIn, stream.source] : [stream.netns, stream.destination];
    if (!existsSync(where)) return;
    try {
      running.receiver = open(where, other, PROTOCOL.TCP, !isSeen);
    } catch {
      return; // its namespace has no way there yet
    }
  }
  for (;;) {
    const length = receive(running.receiver, buffer, MSG_DONTWAIT);
    if (length === undefined) return;
    const tcp = isV4 ? (buffer[0]! & 15) * 4 : 0;
    const [from, to] = [view.getUint16(tcp), view.getUint16(tcp + 2)];
    const [ours, theirs] = isSeen ? [from, to] : [to, from];
    if (theirs !== stream.port || ours < FIRST_PORT || ours >= FIRST_PORT + PORTS) continue;
    // The last attempt by that port.
    const round = Math.floor((running.attempts - 1 - (ours - FIRST_PORT)) / PORTS);
    if (round >= 0) states[round * PORTS + ours - FIRST_PORT] = 2;
  }
}

function reportOf({ stream, sent, states, attempts }: Running): StreamReport {
  let [answered, silence, longestSilence] = [0, 0, 0];
  for (let at = 0; at < attempts; at += 1) {
    if (states[at] === 0) continue;
    silence = states[at] === 1 ? silence + 1 : 0;
    answered += states[at] === 2 ? 1 : 0;
    longestSilence = Math.max(longestSilence, silence);
  }
  return { name: stream.name, sent, answered, longestSilence };
}

function begin(stream: Stream): Running {
  const states = new Uint8Array(ATTEMPTS_MAX);
  const running: Running = { stream, sender: undefined, receiver: undefined, attempts: 0, sent: 0, states };
  collect(running);
  return running;
}

function end({ sender, receiver }: Running): void {
  for (const fd of [sender, receiver]) if (fd !== undefined) closeSync(fd);
}

if (import.meta.main) {
  let all: Running[] = [];
  let began = 0;
  let isOver = false;
  // Whoever shares the machine does not make the attempts fewer.
  setPriority(-10);
  setInterval(() => {
    const due = performance.now() - began;
    for (const running of all) {
      // What was missed is missed: the attempts of a process that had to wait would come in a flood.
      if (!isOver && running.attempts < due) attempt(running);
      collect(running);
    }
  }, 1);
  process.on("message", (question: Question) => {
    if (question.do === "start") {
      all.forEach(end);
      all = question.streams.map(begin);
      [began, isOver] = [performance.now(), false];
    }
    isOver ||= question.do === "stop";
    setTimeout(() => process.send?.(all.map(reportOf)), question.do === "stop" ? LAST_ANSWERS_MS : 0);
  });
  process.on("disconnect", () => process.exit(0));
}

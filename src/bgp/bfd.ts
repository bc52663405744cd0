import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";

/** Bidirectional forwarding detection (RFC 5880), asynchronous mode: notices a dead neighbour in less than a second. */

const STATES = ["adminDown", "down", "init", "up"] as const;
export type BfdStateName = (typeof STATES)[number];

/** RFC 5880 section 4.1, for people. */
const DIAGNOSTICS = [
  "",
  "nothing heard within the detection time",
  "echo function failed",
  "the neighbour says it is down",
  "forwarding plane reset",
  "path down",
  "concatenated path down",
  "administratively down",
  "reverse concatenated path down",
] as const;
const TIME_EXPIRED = 1;
const NEIGHBOR_DOWN = 3;
const ADMINISTRATIVELY_DOWN = 7;

export interface BfdPacket {
  readonly diagnostic: number;
  readonly state: BfdStateName;
  /** P: answer at once; F: this is the answer. */
  readonly poll: boolean;
  readonly final: boolean;
  readonly multiplier: number;
  readonly mine: number;
  readonly yours: number;
  /** Microseconds. */
  readonly desiredMinTx: number;
  readonly requiredMinRx: number;
}

/** RFC 5881 section 4. */
export const BFD_PORT = 3784;
const LENGTH = 24;
const VERSION = 1;
const [POLL, FINAL, AUTHENTICATION, MULTIPOINT] = [0x20, 0x10, 0x04, 0x01];

//  0                   1                   2                   3
// |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect mult  |    Length     |
// |                       My discriminator                        |
// |                      Your discriminator                       |
// |     Desired min TX, required min RX, required min echo RX     |
/** Throws `MalformedBytes` for what RFC 5880 section 6.8.6 wants discarded; we use no authentication. */
export function decodeBfd(bytes: Uint8Array): BfdPacket {
  const reader = new ByteReader(bytes);
  const head = reader.u8("version and diagnostic");
  if (head >> 5 !== VERSION) throw new MalformedBytes(`BFD version ${head >> 5} is not ${VERSION}`);
  const flags = reader.u8("state and flags");
  const multiplier = reader.u8("detect multiplier");
  const length = reader.u8("length");
  if (length < LENGTH || length > bytes.length) throw new MalformedBytes(`${length} is no length of this packet`);
  if ((flags & AUTHENTICATION) !== 0) throw new MalformedBytes("the packet is authenticated, which was not asked for");
  if ((flags & MULTIPOINT) !== 0) throw new MalformedBytes("the multipoint bit is set");
  if (multiplier === 0) throw new MalformedBytes("the detect multiplier is 0");
  const state = STATES[flags >> 6] ?? "down";
  const mine = reader.u32("my discriminator");
  const yours = reader.u32("your discriminator");
  if (mine === 0) throw new MalformedBytes("my discriminator is 0");
  if (yours === 0 && (state === "init" || state === "up")) throw new MalformedBytes("your discriminator is 0");
  return {
    diagnostic: head & 0x1f,
    state,
    poll: (flags & POLL) !== 0,
    final: (flags & FINAL) !== 0,
    multiplier,
    mine,
    yours,
    desiredMinTx: reader.u32("desired min TX interval"),
    requiredMinRx: reader.u32("required min RX interval"),
  };
}

export function encodeBfd(packet: BfdPacket): Uint8Array {
  const writer = new ByteWriter(LENGTH);
  writer.u8((VERSION << 5) | packet.diagnostic);
  writer.u8((STATES.indexOf(packet.state) << 6) | (packet.poll ? POLL : 0) | (packet.final ? FINAL : 0));
  writer.u8(packet.multiplier);
  writer.u8(LENGTH);
  writer.u32(packet.mine);
  writer.u32(packet.yours);
  writer.u32(packet.desiredMinTx);
  writer.u32(packet.requiredMinRx);
  writer.u32(0); // we do not echo
  return writer.finish();
}

/** Microseconds. */
export interface BfdConfig {
  readonly minTx: number;
  readonly minRx: number;
  readonly multiplier: number;
}

/** RFC 5880 section 6.8.1, as far as asynchronous mode has it. */
export interface BfdState {
  readonly name: BfdStateName;
  readonly mine: number;
  readonly yours: number;
  readonly diagnostic: number;
  /** A change of our intervals that the neighbour has not confirmed yet. */
  readonly polling: boolean;
  /** What the neighbour last said. */
  readonly remoteMinRx: number;
  readonly remoteMinTx: number;
  readonly remoteMultiplier: number;
}

export type BfdEvent =
  | { readonly type: "packet"; readonly packet: BfdPacket }
  | { readonly type: "transmitExpired" }
  | { readonly type: "detectExpired" }
  /** Administrative: the neighbour is told that this is no failure. */
  | { readonly type: "stop" };

export type BfdAction =
  | { readonly type: "send"; readonly packet: BfdPacket }
  /** Microseconds, from which the shell takes up to a quarter by chance; `undefined`: not for now. */
  | { readonly type: "transmitIn"; readonly interval: number | undefined }
  | { readonly type: "detectIn"; readonly interval: number }
  | { readonly type: "up" }
  /** `failed`: the path is gone, not just the neighbour's wish to watch it (RFC 5882 section 3.2). */
  | { readonly type: "down"; readonly failed: boolean; readonly reason: string };

export interface BfdStep {
  readonly state: BfdState;
  readonly actions: readonly BfdAction[];
}

/** RFC 5880 section 6.8.3: as long as a session is not up, at most one packet a second. */
const SLOW = 1_000_000;

/** `discriminator` is any number but 0 that no other session of ours has. */
export function startBfd(discriminator: number, config: BfdConfig): BfdStep {
  const state: BfdState = {
    name: "down",
    mine: discriminator,
    yours: 0,
    diagnostic: 0,
    polling: false,
    remoteMinRx: 1,
    remoteMinTx: 0,
    remoteMultiplier: 1,
  };
  return { state, actions: [send(state, config), transmit(state, config)] };
}

export function stepBfd(state: BfdState, event: BfdEvent, config: BfdConfig): BfdStep {
  switch (event.type) {
    case "transmitExpired":
      return { state, actions: [send(state, config), transmit(state, config)] };
    case "detectExpired":
      return expire(state, config);
    case "packet":
      return state.name === "adminDown" ? { state, actions: [] } : receive(state, event.packet, config);
    case "stop": {
      const stopped: BfdState = { ...state, name: "adminDown", diagnostic: ADMINISTRATIVELY_DOWN, polling: false };
      return { state: stopped, actions: [send(stopped, config), { type: "transmitIn", interval: undefined }] };
    }
  }
}

/** Section 6.8.4. The neighbour may come back as another: its discriminator is forgotten. */
function expire(state: BfdState, config: BfdConfig): BfdStep {
  const forgotten: BfdState = { ...state, yours: 0, remoteMinRx: 1, polling: false };
  if (state.name !== "up" && state.name !== "init") return { state: forgotten, actions: [] };
  const next: BfdState = { ...forgotten, name: "down", diagnostic: TIME_EXPIRED };
  return { state: next, actions: [...change(state, next), send(next, config), transmit(next, config)] };
}

/** Section 6.8.6. */
function receive(state: BfdState, packet: BfdPacket, config: BfdConfig): BfdStep {
  const heard: BfdState = {
    ...state,
    yours: packet.mine,
    remoteMinRx: packet.requiredMinRx,
    remoteMinTx: packet.desiredMinTx,
    remoteMultiplier: packet.multiplier,
    polling: state.polling && !packet.final,
  };
  const name = nextState(state.name, packet.state);
  const changed = name !== state.name;
  const diagnostic = name === "down" && changed ? NEIGHBOR_DOWN : name === "up" ? 0 : state.diagnostic;
  // Coming up changes our intervals from slow to what is configured, which a poll tells (section 6.8.3).
  const polling = name === "up" ? (changed ? true : heard.polling) : false;
  const next: BfdState = { ...heard, name, diagnostic, polling };
  const actions: BfdAction[] = [
    ...change(state, next, packet.state === "adminDown"),
    { type: "detectIn", interval: detectionTime(next, config) },
  ];
  if (packet.poll) actions.push({ type: "send", packet: { ...packetOf(next, config), poll: false, final: true } });
  // A change is told at once; otherwise the timer runs on, unless the neighbour wants another pace.
  if (changed) actions.push(send(next, config));
  if (changed || interval(next, config) !== interval(state, config)) actions.push(transmit(next, config));
  return { state: next, actions };
}

function nextState(own: BfdStateName, theirs: BfdStateName): BfdStateName {
  if (theirs === "adminDown") return "down";
  if (own === "down") return theirs === "down" ? "init" : theirs === "init" ? "up" : "down";
  if (own === "init") return theirs === "down" ? "init" : "up";
  return theirs === "down" ? "down" : own;
}

function change(before: BfdState, after: BfdState, byWish = false): BfdAction[] {
  if (before.name !== "up" && after.name === "up") return [{ type: "up" }];
  if (before.name === "up" && after.name !== "up") {
    const reason = byWish ? "the neighbour was told to stop watching" : (DIAGNOSTICS[after.diagnostic] ?? "");
    return [{ type: "down", failed: !byWish, reason }];
  }
  return [];
}

function packetOf(state: BfdState, config: BfdConfig): BfdPacket {
  return {
    diagnostic: state.diagnostic,
    state: state.name,
    poll: state.polling,
    final: false,
    multiplier: config.multiplier,
    mine: state.mine,
    yours: state.yours,
    desiredMinTx: desiredMinTx(state, config),
    requiredMinRx: config.minRx,
  };
}

function desiredMinTx({ name }: BfdState, { minTx }: BfdConfig): number {
  return name === "up" ? minTx : Math.max(minTx, SLOW);
}

/** Section 6.8.7. A neighbour that wants to hear nothing says so with 0. */
function interval(state: BfdState, config: BfdConfig): number | undefined {
  return state.remoteMinRx === 0 ? undefined : Math.max(desiredMinTx(state, config), state.remoteMinRx);
}

/** Section 6.8.4: how many of its packets may be lost, at the pace that the two agreed on. */
function detectionTime({ remoteMultiplier, remoteMinTx }: BfdState, { minRx }: BfdConfig): number {
  return remoteMultiplier * Math.max(minRx, remoteMinTx);
}

function send(state: BfdState, config: BfdConfig): BfdAction {
  return { type: "send", packet: packetOf(state, config) };
}

function transmit(state: BfdState, config: BfdConfig): BfdAction {
  return { type: "transmitIn", interval: interval(state, config) };
}

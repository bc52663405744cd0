import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAddress, type Family } from "../ip/address.ts";
import { ByteReader, fromHex, toHex } from "../lib/bytes.ts";
import { fromCanonical } from "./attribute-bytes.ts";
import { ATTRIBUTES } from "./attributes.ts";
import { negotiated } from "./bgp.testing.ts";
import { MESSAGE } from "./constants.ts";
import { compileFilter } from "./filters.ts";
import { decodeOpen, decodeRouteRefresh, nextFrame } from "./message.ts";
import { decodeNlri } from "./nlri.ts";
import { decodeNotification, describeNotification, ProtocolError } from "./notification.ts";
import { diceOf, mutate, takeApart } from "./mutation.testing.ts";
import { policyOf } from "./tables.testing.ts";
import { readingOf, Tables, type Reading } from "./tables.ts";
import { UpdateScanner } from "./update-scan.ts";
import { decodeUpdate, type UpdateContext } from "./update.ts";

// Messages of other people's speakers, and what must not come of them however they are mutated.

export interface Captured {
  readonly who: string;
  /** The session it is said in. */
  readonly session: Session;
  /** The whole message. */
  readonly bytes: Uint8Array;
}

export interface Session {
  readonly kind: keyof typeof KINDS;
  readonly internal: boolean;
}

const FAMILIES: readonly Family[] = [4, 6];
const OWN = { 4: parseAddress("192.0.2.1"), 6: parseAddress("2001:db8::1") } as const;
const KINDS = {
  "four-octet": { extendedNextHop: true },
  "two-octet": { asOctets: 2 },
  "add-path": { addPathReceive: FAMILIES, addPathSend: FAMILIES },
} as const;
const SESSIONS: readonly Session[] = (["four-octet", "two-octet", "add-path"] as const).flatMap((kind) =>
  [true, false].map((internal) => ({ kind, internal })),
);

export function captured(): Captured[] {
  const text = readFileSync(join(import.meta.dirname, "golden/captured.txt"), "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [who = "", kind = "", rest = ""] = line.split(" ");
      const bytes = fromHex("ff".repeat(16) + rest);
      // Nobody sends it to another AS (RFC 4271 section 5.1.5).
      const internal = takeApart(bytes)?.attributes.some(({ code }) => code === ATTRIBUTES.localPref.code) ?? false;
      return { who, session: { kind: kind as Session["kind"], internal }, bytes };
    });
}

const KNOWN_CODES = new Set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 32]);

/**
 * What RFC 7606 asks for in return for an UPDATE, read as plainly as can be: whether the session must end, may, or must
 * not (whatever else becomes of the routes).
 */
function judge(body: Uint8Array, context: UpdateContext): "must" | "may" | "must not" {
  const u16 = (at: number): number => (body[at]! << 8) | body[at + 1]!;
  if (body.length < 4) return "must";
  const attributes = 2 + u16(0);
  if (attributes + 2 > body.length) return "must";
  const nlri = attributes + 2 + u16(attributes);
  if (nlri > body.length) return "must";
  const broken = (family: Family, from: number, to: number): boolean => {
    for (let at = from; at < to;) {
      if (context.addPath.has(family)) at += 4;
      const length = at < to ? body[at]! : 255;
      if (length > (family === 4 ? 32 : 128)) return true;
      at += 1 + Math.ceil(length / 8);
      if (at > to) return true;
    }
    return false;
  };
  // Section 5.3: where prefixes cannot be found.
  if (broken(4, 2, attributes) || broken(4, nlri, body.length)) return "must";
  let verdict: "may" | "must not" = "must not";
  const seen = new Set<number>();
  for (let at = attributes + 2; at + 3 <= nlri;) {
    const extended = (body[at]! & 16) !== 0;
    const value = at + (extended ? 4 : 3);
    if (value > nlri) break;
    const end = value + (extended ? u16(at + 2) : body[at + 2]!);
    if (end > nlri) break;
    const code = body[at + 1]!;
    if (code === 14 || code === 15) {
      // Section 3 (g); sections 7.11 and 7.12.
      if (seen.has(code) || end - value < 3) return "must";
      const family = body[value + 2] === 1 ? ({ 1: 4, 2: 6 } as const)[u16(value)] : undefined;
      const hops = body[value + 3] ?? 0;
      const prefixes = code === 15 ? value + 3 : value + 5 + hops;
      if (prefixes > end) return "must";
      const lengths = family === 6 ? [16, 32] : context.extendedNextHop === true ? [4, 16, 32] : [4];
      if (family !== undefined && code === 14 && !lengths.includes(hops)) return "must";
      if (family !== undefined && broken(family, prefixes, end)) return "must";
    } else if (!KNOWN_CODES.has(code) && (body[at]! & 0x80) === 0 && !seen.has(code)) {
      // RFC 4271 section 6.3: well-known and not recognised. Only of interest to a message with routes.
      verdict = "may";
    }
    seen.add(code);
    at = end;
  }
  return verdict;
}

/** Tables with a neighbour of each kind, to one of which each message is said. */
export interface Victim {
  /** Throws an assertion where something became of it that must not. */
  suffer(session: Session, message: Uint8Array): void;
  /** Ends all sessions; nothing may be left of them. */
  end(): void;
  readonly outcomes: { readonly [Name in Outcome]: number };
}

/**
 * What became of a message: it was read as it stands; something in it was wrong and cost no more than a route or an
 * attribute; it ended the session; or it was not whole, so that more would have been waited for.
 */
export const OUTCOMES = ["read", "forgiven", "refused", "not whole"] as const;
export type Outcome = (typeof OUTCOMES)[number];

export function createVictim(): Victim {
  const tables = new Tables({ routerId: 99, resolve: () => ({}), maxPaths: 4 });
  const scanner = new UpdateScanner();
  const outcomes = { read: 0, forgiven: 0, refused: 0, "not whole": 0 };
  let messages = 0;
  const filter = (family: Family, internal: boolean) =>
    compileFilter({ rules: [], otherwise: "accept" }, family, internal ? "iBGP" : "eBGP");
  const neighbours = SESSIONS.map(({ kind, internal }, index) => {
    const session = negotiated({ internal, families: FAMILIES, ...KINDS[kind] });
    const imports = (family: Family) => ({
      ownAsns: [64512],
      allowOwnAs: 0,
      routerId: 99,
      clusterId: 99,
      internal,
      ownAddress: OWN[family],
      filter: filter(family, internal),
    });
    const peer = tables.addPeer({
      name: `${kind} ${internal ? "iBGP" : "eBGP"}`,
      address: parseAddress(`192.0.2.${index + 2}`),
      internal,
      client: internal,
      routerId: index + 1,
      imports: { 4: imports(4), 6: imports(6) },
    });
    for (const family of FAMILIES) {
      const { asOctets, addPathSend } = session;
      const change = {
        family,
        asOctets,
        client: internal,
        addPath: addPathSend.includes(family),
        extendedNextHop: true,
        ownNextHop: OWN[family],
      };
      const policy = { ...policyOf(internal, undefined, change), filter: filter(family, internal) };
      const context: UpdateContext = { asOctets, internal, addPath: new Set(addPathSend), extendedNextHop: true };
      // What they are told must be what they can read.
      const write = (bytes: Uint8Array): void => {
        for (let at = 0; at < bytes.length;) {
          const frame = nextFrame(bytes, at, 4096);
          assert.ok(frame, "half a message was told");
          const { treatedAsWithdraw } = decodeUpdate(bytes, frame.start, frame.end, context);
          assert.equal(treatedAsWithdraw, undefined, toHex(bytes.subarray(at, frame.end)));
          at = frame.end;
        }
      };
      tables.join(policy, { peer: peer.index, ready: () => true, write, synced: () => undefined });
    }
    return { kind, internal, index: peer.index, reading: readingOf(session) };
  });

  function settle(): void {
    for (let turn = 0; tables.flush(true).more; turn += 1) assert.ok(turn < 100, "the tables do not come to rest");
  }

  function update(index: number, reading: Reading, body: Uint8Array): Outcome {
    const verdict = judge(body, reading);
    compare(body, reading);
    let outcome: Outcome;
    try {
      outcome = tables.receive(index, reading, body, 0, body.length).problems.length === 0 ? "read" : "forgiven";
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      assert.notEqual(verdict, "must not", `reset for less: ${thrown.message}`);
      assert.equal(thrown.notification.code, 3);
      for (const family of FAMILIES) tables.ribs[family].drop(index, "all");
      throw thrown;
    }
    assert.notEqual(verdict, "must", "not reset");
    return outcome;
  }

  /** What the fast reader takes, the clear one reads in the same way. */
  function compare(body: Uint8Array, context: UpdateContext): void {
    if (!scanner.scan(body, 0, body.length, context)) return;
    const clear = decodeUpdate(body, 0, body.length, context);
    assert.equal(clear.treatedAsWithdraw, undefined);
    assert.deepEqual(scanner.withdrawn ? decodeNlri(scanner.withdrawn) : [], clear.withdrawn.flatMap(decodeNlri));
    const [announced] = clear.announced;
    assert.equal(scanner.announced === undefined, announced === undefined);
    if (announced === undefined || scanner.announced === undefined) return;
    assert.deepEqual(decodeNlri(scanner.announced), decodeNlri(announced.nlri));
    assert.deepEqual(fromCanonical(scanner.canonical, 0, scanner.canonicalLength), announced.attributes);
  }

  function read(session: Session, message: Uint8Array): Outcome {
    const frame = nextFrame(message, 0, 4096);
    if (frame === undefined) return "not whole";
    const body = message.slice(frame.start, frame.end);
    const { index, reading } = neighbours.find(
      ({ kind, internal }) => kind === session.kind && internal === session.internal,
    )!;
    switch (frame.type) {
      case MESSAGE.open:
        decodeOpen(body, 0, body.length);
        break;
      case MESSAGE.update:
        return update(index, reading, body);
      case MESSAGE.notification:
        assert.equal(typeof describeNotification(decodeNotification(new ByteReader(body))), "string");
        break;
      case MESSAGE.routeRefresh:
        decodeRouteRefresh(body, 0, body.length);
        break;
      default:
    }
    return "read";
  }

  return {
    outcomes,
    suffer(session, message) {
      messages += 1;
      try {
        outcomes[read(session, message)] += 1;
      } catch (thrown) {
        if (!(thrown instanceof ProtocolError)) {
          throw new Error(`${JSON.stringify(session)}: ${toHex(message)}: ${String(thrown)}`, { cause: thrown });
        }
        outcomes.refused += 1;
      }
      if (messages % 16 === 0) settle();
    },
    end() {
      for (const { index } of neighbours) for (const family of FAMILIES) tables.ribs[family].drop(index, "all");
      settle();
      for (const family of FAMILIES) assert.equal(tables.ribs[family].prefixes.size, 0, "prefixes are left");
      assert.equal(tables.sets.size, 0, "attributes are left");
      assert.equal(tables.sets.hops.size, 0, "next hops are left");
    },
  };
}

/** Says so many mutants to a victim, and what came of them. Throws at the first that something is wrong with. */
export function torment(messages: number, seed: number): Victim["outcomes"] {
  const dice = diceOf(seed);
  const corpus = captured();
  const victim = createVictim();
  for (const { session, bytes } of corpus) victim.suffer(session, bytes);
  for (let count = 0; count < messages; count += 1) {
    const { session, bytes } = corpus[dice(corpus.length)]!;
    const other = corpus[dice(corpus.length)]!.bytes;
    victim.suffer(session, mutate(bytes, other, dice));
  }
  victim.end();
  return victim.outcomes;
}

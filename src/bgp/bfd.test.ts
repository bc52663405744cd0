import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { fromHex } from "../lib/bytes.ts";
import {
  decodeBfd,
  encodeBfd,
  startBfd,
  stepBfd,
  type BfdAction,
  type BfdConfig,
  type BfdPacket,
  type BfdState,
  type BfdStateName,
} from "./bfd.ts";

const CONFIG: BfdConfig = { minTx: 300_000, minRx: 200_000, multiplier: 3 };
const PACKET: BfdPacket = {
  diagnostic: 0,
  state: "down",
  poll: false,
  final: false,
  multiplier: 5,
  mine: 7,
  yours: 0,
  desiredMinTx: 1_000_000,
  requiredMinRx: 50_000,
};
const STATES: readonly BfdStateName[] = ["adminDown", "down", "init", "up"];

function inState(name: BfdStateName, change: Partial<BfdState> = {}): BfdState {
  return { ...startBfd(1, CONFIG).state, name, yours: 7, ...change };
}

const has = (actions: readonly BfdAction[], type: BfdAction["type"]): boolean =>
  actions.some((action) => action.type === type);

describe("BFD packets", () => {
  test("are what RFC 5880 section 4.1 draws", () => {
    const wire = fromHex("20 c8 03 18 00000001 00000002 000493e0 000493e0 00000000");
    const packet = decodeBfd(wire);
    assert.deepEqual(packet, {
      diagnostic: 0,
      state: "up",
      poll: false,
      final: false,
      multiplier: 3,
      mine: 1,
      yours: 2,
      desiredMinTx: 300_000,
      requiredMinRx: 300_000,
    });
    // The C bit says how the neighbour is built, which is of no interest.
    assert.deepEqual(encodeBfd(packet), fromHex("20 c0 03 18 00000001 00000002 000493e0 000493e0 00000000"));
  });

  const malformed: { name: string; wire: string; reason: RegExp }[] = [
    { name: "short", wire: "20 40 03 18 00000001", reason: /24 is no length/ },
    { name: "version 0", wire: "00 40 03 18 00000001 00000000 000f4240 000f4240 00000000", reason: /version 0/ },
    {
      name: "length of less than a packet",
      wire: "20 40 03 17 00000001 00000000 000f4240 000f4240 00000000",
      reason: /23 is no length/,
    },
    {
      name: "multiplier 0",
      wire: "20 40 00 18 00000001 00000000 000f4240 000f4240 00000000",
      reason: /multiplier is 0/,
    },
    {
      name: "authenticated",
      wire: "20 44 03 18 00000001 00000000 000f4240 000f4240 00000000",
      reason: /authenticated/,
    },
    { name: "multipoint", wire: "20 41 03 18 00000001 00000000 000f4240 000f4240 00000000", reason: /multipoint/ },
    {
      name: "from nobody",
      wire: "20 40 03 18 00000000 00000000 000f4240 000f4240 00000000",
      reason: /my discriminator/,
    },
    { name: "up with nobody", wire: "20 c0 03 18 00000001 00000000 000f4240 000f4240 00000000", reason: /your discr/ },
  ];
  for (const { name, wire, reason } of malformed) {
    test(`are discarded: ${name}`, () => {
      assert.throws(() => decodeBfd(fromHex(wire)), reason);
    });
  }

  test("are read as they were written, and noise is refused without harm", () => {
    const u32 = fc.nat(0xffffffff);
    const packets = fc.record({
      diagnostic: fc.nat(31),
      state: fc.constantFrom(...STATES),
      poll: fc.boolean(),
      final: fc.boolean(),
      multiplier: fc.integer({ min: 1, max: 255 }),
      mine: fc.integer({ min: 1, max: 0xffffffff }),
      yours: fc.integer({ min: 1, max: 0xffffffff }),
      desiredMinTx: u32,
      requiredMinRx: u32,
    });
    fc.assert(fc.property(packets, (packet) => assert.deepEqual(decodeBfd(encodeBfd(packet)), { ...packet })));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          decodeBfd(bytes);
        } catch (thrown) {
          assert.equal((thrown as { code?: unknown }).code, "malformed");
        }
      }),
    );
  });
});

describe("a BFD session", () => {
  /** RFC 5880 section 6.8.6: own state (rows) when the neighbour says its own (columns). */
  const NEXT: Record<BfdStateName, readonly BfdStateName[]> = {
    //          adminDown    down         init         up
    adminDown: ["adminDown", "adminDown", "adminDown", "adminDown"],
    down: ["down", "init", "up", "down"],
    init: ["down", "init", "up", "up"],
    up: ["down", "down", "up", "up"],
  };
  for (const own of STATES) {
    for (const [index, theirs] of STATES.entries()) {
      test(`in ${own}, hearing ${theirs}, is ${NEXT[own][index]}`, () => {
        const packet = { ...PACKET, state: theirs, yours: 1 };
        const { state, actions } = stepBfd(inState(own), { type: "packet", packet }, CONFIG);
        assert.equal(state.name, NEXT[own][index]);
        assert.equal(has(actions, "up"), own !== "up" && state.name === "up");
        assert.equal(has(actions, "down"), own === "up" && state.name !== "up");
        assert.equal(has(actions, "send"), state.name !== own, "a change is told at once");
        const down = actions.find((action) => action.type === "down");
        if (down !== undefined) assert.equal(down.failed, theirs !== "adminDown");
      });
    }
  }

  test("goes down when nothing is heard for the neighbour's multiplier at the slower of the two paces", () => {
    const packet: BfdPacket = { ...PACKET, state: "up", yours: 1, desiredMinTx: 250_000 };
    const heard = stepBfd(inState("up"), { type: "packet", packet }, CONFIG);
    assert.deepEqual(
      heard.actions.filter((action) => action.type === "detectIn"),
      [{ type: "detectIn", interval: 5 * 250_000 }],
    );
    const lost = stepBfd(heard.state, { type: "detectExpired" }, CONFIG);
    assert.deepEqual(lost.actions[0], {
      type: "down",
      failed: true,
      reason: "nothing heard within the detection time",
    });
    assert.deepEqual([lost.state.name, lost.state.yours, lost.state.diagnostic], ["down", 0, 1]);
    assert.deepEqual(stepBfd(lost.state, { type: "detectExpired" }, CONFIG).actions, []);
  });

  test("sends slowly until it is up, then as configured or as slowly as the neighbour wants", () => {
    const pace = (state: BfdState): number | undefined => {
      const { actions } = stepBfd(state, { type: "transmitExpired" }, CONFIG);
      const timer = actions.find((action) => action.type === "transmitIn");
      return timer?.interval;
    };
    assert.equal(pace(inState("down")), 1_000_000);
    assert.equal(pace(inState("up", { remoteMinRx: 50_000 })), 300_000);
    assert.equal(pace(inState("up", { remoteMinRx: 900_000 })), 900_000);
    assert.equal(pace(inState("up", { remoteMinRx: 0 })), undefined);
  });

  test("polls when it comes up, until it is answered; and answers polls at once", () => {
    const packet: BfdPacket = { ...PACKET, state: "init", yours: 1, poll: true };
    const { state, actions } = stepBfd(inState("down"), { type: "packet", packet }, CONFIG);
    const sent = actions.flatMap((action) => (action.type === "send" ? [action.packet] : []));
    assert.deepEqual(
      sent.map(({ poll, final, desiredMinTx }) => ({ poll, final, desiredMinTx })),
      [
        { poll: false, final: true, desiredMinTx: 300_000 },
        { poll: true, final: false, desiredMinTx: 300_000 },
      ],
    );
    assert.ok(state.polling);
    const answer: BfdPacket = { ...PACKET, state: "up", yours: 1, final: true };
    assert.ok(!stepBfd(state, { type: "packet", packet: answer }, CONFIG).state.polling);
  });

  test("that is stopped says that this is no failure", () => {
    const { state, actions } = stepBfd(inState("up"), { type: "stop" }, CONFIG);
    const [sent] = actions.flatMap((action) => (action.type === "send" ? [action.packet] : []));
    assert.deepEqual([state.name, sent?.state, sent?.diagnostic], ["adminDown", "adminDown", 7]);
    assert.ok(!has(actions, "down"));
  });

  test("two of them come up, whatever is lost on the way, and never both stay down while packets pass", () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { maxLength: 30 }), (losses) => {
        let [a, b] = [startBfd(1, CONFIG).state, startBfd(2, CONFIG).state];
        const deliver = (from: BfdState, to: BfdState): BfdState => {
          const { actions } = stepBfd(from, { type: "transmitExpired" }, CONFIG);
          const sent = actions.find((action) => action.type === "send");
          return sent === undefined ? to : stepBfd(to, { type: "packet", packet: sent.packet }, CONFIG).state;
        };
        for (const [index, lost] of [...losses, false, false, false, false, false, false].entries()) {
          if (lost) continue;
          if (index % 2 === 0) b = deliver(a, b);
          else a = deliver(b, a);
        }
        for (let round = 0; round < 3; round += 1) [b, a] = [deliver(a, b), deliver(b, a)];
        assert.deepEqual([a.name, b.name], ["up", "up"]);
      }),
    );
  });
});

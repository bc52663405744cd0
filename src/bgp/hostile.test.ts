import assert from "node:assert/strict";
import { test } from "node:test";
import { MESSAGE } from "./constants.ts";
import { captured, createVictim, torment } from "./hostile.testing.ts";

// At length: node bench/bgp-fuzz.ts --messages 1000000

test("what other speakers say is read as it stands, or forgiven where it is plainly wrong", () => {
  const victim = createVictim();
  const all = captured();
  for (const { session, bytes } of all) victim.suffer(session, bytes);
  // OpenBGPD says that the next hop of its own IPv6 routes is ::1.
  assert.deepEqual(victim.outcomes, { read: all.length - 3, forgiven: 3, refused: 0, "not whole": 0 });
  assert.ok(all.filter(({ bytes }) => bytes[18] === MESSAGE.update).length > 30);
  assert.deepEqual([...new Set(all.map(({ who }) => who))].toSorted(), ["bird", "exabgp", "frr", "gobgp", "openbgpd"]);
  victim.end();
});

test("mutated, it ends sessions only where RFC 7606 says so, and leaves nothing behind", () => {
  const seed = Number(process.env["CARACAL_SEED"] ?? 0) || Math.floor(Math.random() * 2 ** 31);
  try {
    const { read, forgiven, refused } = torment(4000, seed);
    const counts = `${read} were read, ${forgiven} forgiven, ${refused} refused`;
    assert.ok(Math.min(read, forgiven, refused) > 400, counts);
  } catch (thrown) {
    throw new Error(`with CARACAL_SEED=${seed}: ${String(thrown)}`, { cause: thrown });
  }
});

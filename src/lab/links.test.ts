import assert from "node:assert/strict";
import { test } from "node:test";
import { LabError } from "./labError.ts";
import { parseBlocked } from "./links.ts";

test("what a firewall drops is a protocol, by name or number, or a port of it", () => {
  assert.deepEqual(parseBlocked("ipip"), { protocol: 4 });
  assert.deepEqual(parseBlocked("udp:4789"), { protocol: 17, port: 4789 });
  assert.deepEqual(parseBlocked("47"), { protocol: 47 });
  for (const text of ["", "gre", "udp:", "udp:65536", "256", "tcp:80:81", "-1"]) {
    assert.throws(() => parseBlocked(text), LabError, text);
  }
});

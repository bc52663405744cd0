import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parsePrefix } from "../ip/prefix.ts";
import { peerOf, speakerAt, until, withSpeakers } from "./speaker.testing.ts";

// Needs the Debian package bgpdump.

/** What bgpdump makes of records, one line each (its option -m), without the times. */
function read(records: readonly Uint8Array[]): string[] {
  const directory = mkdtempSync(join(tmpdir(), "caracal-mrt-"));
  try {
    const file = join(directory, "dump.mrt");
    writeFileSync(file, Buffer.concat(records));
    const text = execFileSync("bgpdump", ["-m", file], { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
    return text
      .trim()
      .split("\n")
      .map((line) => line.replace(/\|\d+(\.\d+)?\|/, "|"));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const ACCEPT = { rules: [], otherwise: "accept" } as const;

test("bgpdump reads our tables and the trace of a session", () =>
  withSpeakers(async (keep) => {
    const one = await keep(speakerAt(1, 0));
    const two = await keep(speakerAt(2, one.port, { asn: 4_200_000_001 }));
    two.setOrigination([
      { prefix: parsePrefix("10.244.2.0/26"), attributes: { med: 7, communities: [0xfbff0064] } },
      { prefix: parsePrefix("2001:db8:244:2::/122") },
    ]);
    one.setOrigination([{ prefix: parsePrefix("10.244.1.0/26") }]);
    const families = [4, 6] as const;
    const filters = { families, importFilter: ACCEPT, exportFilter: ACCEPT };
    const addPath = { send: true, receive: true };
    const toTwo = peerOf(1, 2, one.port, { asn: 4_200_000_001, passive: true, addPath, ...filters });
    one.setPeers([toTwo]);
    const records: Uint8Array[] = [];
    const stop = one.trace(toTwo.name, (record) => records.push(record));
    two.setPeers([peerOf(2, 1, one.port, { addPath: { send: true }, ...filters })]);
    await until("the routes", () => one.table.size === 2 && two.table.size === 1);
    stop();
    const heard = records.length;

    assert.deepEqual(read([...one.dump()]).toSorted(), [
      "TABLE_DUMP2_AP|B|127.0.0.2|4200000001|10.244.2.0/26|1|4200000001|IGP|192.0.2.2|0|7|64511:100|NAG||",
      "TABLE_DUMP2_AP|B|127.0.0.2|4200000001|2001:db8:244:2::/122|1|4200000001|IGP|2001:db8::2|0|0||NAG||",
      "TABLE_DUMP2|B|0.0.0.0|64512|10.244.1.0/26||IGP|0.0.0.0|0|0||NAG||",
    ]);
    assert.deepEqual(
      read(records).filter((line) => !line.includes("|3|4") && !line.includes("|1|3")),
      [
        "BGP4MP_ET|STATE|127.0.0.2|4200000001|4|5",
        "BGP4MP_ET|STATE|127.0.0.2|4200000001|5|6",
        "BGP4MP_ET|A|127.0.0.2|4200000001|10.244.1.0/26|64512|IGP|192.0.2.1|0|0||NAG||",
        "BGP4MP_ET_AP|A|127.0.0.2|4200000001|10.244.2.0/26|1|4200000001|IGP|192.0.2.2|0|7|64511:100|NAG||",
        "BGP4MP_ET_AP|A|127.0.0.2|4200000001|2001:db8:244:2::/122|1|4200000001|IGP|2001:db8::2|0|0||NAG||",
      ],
    );
    one.setOrigination([]);
    await until("the withdrawal", () => two.table.size === 0);
    assert.equal(records.length, heard, "nothing is traced any more");
  }));

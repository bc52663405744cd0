import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { assertGolden } from "../lib/golden.testing.ts";
import { CNI_CODES, CniError } from "./error.ts";
import { CNI_VERSIONS } from "./request.ts";
import { formatAddResult, formatError, formatVersionResult, type AddResult } from "./result.ts";

const GOLDEN = join(import.meta.dirname, "golden");
const pretty = (value: object): string => `${JSON.stringify(value, undefined, 2)}\n`;

const DUAL_STACK: AddResult = {
  hostInterface: { name: "cali0123456789a", mac: "ee:ee:ee:ee:ee:ee" },
  podInterface: { name: "eth0", mac: "02:00:00:00:00:01", mtu: 1450, netns: "/run/netns/pod" },
  addresses: ["10.65.0.1/32", "fd00:10:65::1/128"].map(parseInterfaceAddress),
  routes: [
    { destination: parsePrefix("0.0.0.0/0"), gateway: parseAddress("169.254.1.1") },
    { destination: parsePrefix("::/0"), gateway: parseAddress("fe80::ecee:eeff:feee:eeee") },
    { destination: parsePrefix("198.51.100.0/24") },
  ],
};

describe("the result of ADD", () => {
  for (const version of CNI_VERSIONS) {
    test(`is written as CNI ${version} has it`, () => {
      assertGolden(join(GOLDEN, `add-${version}.json`), pretty(formatAddResult(DUAL_STACK, version)));
    });
  }

  test("has no routes where there are none", () => {
    assert.equal("routes" in formatAddResult({ ...DUAL_STACK, routes: [] }, "1.0.0"), false);
  });
});

test("the result of VERSION lists what is supported", () => {
  assert.deepEqual(formatVersionResult("0.4.0"), {
    cniVersion: "0.4.0",
    supportedVersions: ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
  });
});

test("an error has the number of the specification, its sentence and details", () => {
  assert.deepEqual(formatError(new CniError("try-again-later", "wait", "why"), "1.1.0"), {
    cniVersion: "1.1.0",
    code: 11,
    msg: "wait",
    details: "why",
  });
  const ours = new Set(["endpoint-mismatch", "address-unavailable", "interface-failed"]);
  const specified = Object.entries(CNI_CODES).filter(([name]) => !ours.has(name));
  assert.deepEqual(
    specified.map(([, code]) => code),
    [1, 2, 3, 4, 5, 6, 7, 11, 50, 51],
  );
  for (const [name, code] of Object.entries(CNI_CODES)) assert.equal(code >= 100, ours.has(name), name);
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { parseAddress, type Family } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { assertGolden } from "../lib/golden.testing.ts";
import { describeRoute, SCOPE_LINK } from "../netlink/route.ts";
import {
  familiesOf,
  GATEWAY_V6,
  HOST_MAC,
  hostSysctls,
  macFromRandom,
  NODE_SYSCTLS,
  podRoutes,
  podSysctls,
  waysOut,
  type PodSettings,
  type Sysctl,
} from "./endpoint.ts";

const GOLDEN = join(import.meta.dirname, "golden");
const DUAL_STACK: readonly Family[] = [4, 6];

/** As `sysctl` writes them. */
const printed = (rows: readonly Sysctl[]): string =>
  rows
    .map(
      ({ key, value, optional }) =>
        `net.${key.replaceAll("/", ".")} = ${value}${optional ? " (if it is there)" : ""}\n`,
    )
    .join("");

test("the settings of both ends, and of the node", () => {
  const sections = [
    ["node", NODE_SYSCTLS],
    ["node's end, IPv4 only", hostSysctls("cali1", [4], "2")],
    ["node's end, IPv6 only", hostSysctls("cali1", [6], "1")],
    ["node's end, both", hostSysctls("cali1", DUAL_STACK, "1")],
    ["pod, IPv4 only", podSysctls("eth0", [4], false)],
    ["pod, both", podSysctls("eth0", DUAL_STACK, false)],
    ["pod that forwards", podSysctls("eth0", DUAL_STACK, true)],
  ] as const;
  assertGolden(join(GOLDEN, "sysctls.txt"), sections.map(([name, rows]) => `# ${name}\n${printed(rows)}`).join("\n"));
});

describe("a pod's routes", () => {
  const v4 = parseAddress("10.65.0.1");
  const v6 = parseAddress("fd00:10:65::1");
  const settings = (routes: readonly string[], includeDefaultRoutes = false): PodSettings => ({
    allowIpForwarding: false,
    includeDefaultRoutes,
    routes: routes.map((text) => ({ destination: parsePrefix(text), gateway: parseAddress("10.65.0.254") })),
  });

  test("as `ip route` writes them", () => {
    const cases = [
      ["IPv4", [v4], settings([])],
      ["IPv6", [v6], settings([])],
      ["both", [v4, v6], settings([])],
      ["the IPAM plugin's own", [v4], settings(["10.0.0.0/8", "172.16.0.0/12"])],
      ["the IPAM plugin's own, and the default", [v4, v6], settings(["10.0.0.0/8"], true)],
      ["the default named twice", [v4], settings(["0.0.0.0/0", "0.0.0.0/0"], true)],
      ["of a family that the pod has not", [v4], settings(["fd00::/8", "10.0.0.0/8"])],
      ["none", [], settings([])],
    ] as const;
    const text = cases.map(([name, addresses, each]) => {
      const lines = podRoutes(addresses, each, 7).map(
        (route) => `${describeRoute(route, () => "eth0")}${route.scope === SCOPE_LINK ? " scope link" : ""}\n`,
      );
      return `# ${name}\n${lines.join("")}`;
    });
    assertGolden(join(GOLDEN, "pod-routes.txt"), text.join("\n"));
  });

  test("are what the result of ADD says, less the way to the gateway itself", () => {
    for (const addresses of [[v4], [v6], [v4, v6]]) {
      for (const each of [settings([]), settings(["10.0.0.0/8", "fd00::/8"], true)]) {
        const written = podRoutes(addresses, each, 7).filter(({ scope }) => scope !== SCOPE_LINK);
        const said = waysOut(familiesOf(addresses), each);
        assert.deepEqual(
          written.map(({ destination, nextHops }) => [formatPrefix(destination), nextHops?.[0]?.gateway]),
          said.map(({ destination, gateway }) => [formatPrefix(destination), gateway]),
        );
      }
    }
  });
});

test("the IPv6 gateway is what a kernel makes of the MAC of the node's end (RFC 4291, appendix A)", () => {
  const [a, b, c, d, e, f] = HOST_MAC.split(":").map((octet) => Number.parseInt(octet, 16)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const hex = [
    [a ^ 2, b],
    [c, 0xff],
    [0xfe, d],
    [e, f],
  ].map(([high, low]) => ((high! << 8) | low!).toString(16));
  assert.deepEqual(GATEWAY_V6, parseAddress(`fe80::${hex.join(":")}`));
});

test("a MAC of random bytes is unicast and locally administered", () => {
  assert.equal(macFromRandom(new Uint8Array([0xff, 1, 2, 3, 4, 0xab])), "fe:01:02:03:04:ab");
  assert.equal(macFromRandom(new Uint8Array(6)), "02:00:00:00:00:00");
});

test("families are those of the addresses, IPv4 first", () => {
  assert.deepEqual(familiesOf([parseAddress("::1"), parseAddress("10.0.0.1"), parseAddress("::2")]), [4, 6]);
  assert.deepEqual(familiesOf([]), []);
});

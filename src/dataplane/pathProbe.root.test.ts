import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { openProber, type EchoOutcome, type Prober } from "./pathProbe.io.ts";

/** A host, a router with a narrow way behind it, and another host: 192.0.2.1 - 192.0.2.2 … 198.51.100.1 - 198.51.100.2. */

describe("echoes on a wire", () => {
  const spaces = [temporaryNamespace(), temporaryNamespace(), temporaryNamespace()] as const;
  const [here, router, there] = spaces;
  let prober: Prober;
  before(() => {
    const ip = (name: string, ...args: string[]): string => inside(name, "ip", ...args);
    for (const { path } of spaces)
      inNamespace(path, () => {
        for (const which of ["all", "default"]) writeSysctl(`ipv6/conf/${which}/accept_dad`, 0);
      });
    ip(here.name, "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", "r1", "netns", router.name);
    ip(there.name, "link", "add", "eth0", "mtu", "1400", "type", "veth", "peer", "name", "r2", "netns", router.name);
    ip(router.name, "link", "set", "dev", "r2", "mtu", "1400");
    const addresses = [
      [here.name, "eth0", "192.0.2.1/24", "2001:db8:1::1/64"],
      [router.name, "r1", "192.0.2.2/24", "2001:db8:1::2/64"],
      [router.name, "r2", "198.51.100.1/24", "2001:db8:2::1/64"],
      [there.name, "eth0", "198.51.100.2/24", "2001:db8:2::2/64"],
    ] as const;
    for (const [name, device, ...own] of addresses) {
      ip(name, "link", "set", device, "up");
      for (const address of own) ip(name, "address", "add", address, "dev", device, "nodad");
    }
    ip(here.name, "route", "add", "default", "via", "192.0.2.2");
    ip(here.name, "-6", "route", "add", "default", "via", "2001:db8:1::2");
    ip(there.name, "route", "add", "default", "via", "198.51.100.1");
    ip(there.name, "-6", "route", "add", "default", "via", "2001:db8:2::1");
    inNamespace(router.path, () => {
      writeSysctl("ipv4/ip_forward", 1);
      writeSysctl("ipv6/conf/all/forwarding", 1);
    });
    prober = openProber(here.path);
  });
  after(() => {
    prober.close();
    for (const space of spaces) space[Symbol.dispose]();
  });

  const show = (outcome: EchoOutcome): string => {
    if (outcome.kind === "silence") return "silence";
    if (outcome.kind === "not sent") return `not sent ${outcome.code}`;
    const reason = outcome.kind === "reply" ? "reply" : JSON.stringify(outcome.reason);
    return `${formatAddress(outcome.from)} ${reason}`;
  };
  const rows: { to: string; length: number; hops?: number; says: string }[] = [
    { to: "198.51.100.2", length: 28, says: "198.51.100.2 reply" },
    { to: "198.51.100.2", length: 1400, says: "198.51.100.2 reply" },
    { to: "198.51.100.2", length: 1401, says: '192.0.2.2 {"mtu":1400}' },
    // What the kernel has learned by now of the way is not asked.
    { to: "198.51.100.2", length: 1500, says: '192.0.2.2 {"mtu":1400}' },
    { to: "198.51.100.2", length: 1501, says: "not sent EMSGSIZE" },
    { to: "198.51.100.2", length: 1400, hops: 1, says: '192.0.2.2 "expired"' },
    { to: "203.0.113.1", length: 100, says: '192.0.2.2 "unreachable"' },
    { to: "192.0.2.77", length: 100, says: "silence" },
    { to: "2001:db8:2::2", length: 48, says: "2001:db8:2::2 reply" },
    { to: "2001:db8:2::2", length: 1400, says: "2001:db8:2::2 reply" },
    { to: "2001:db8:2::2", length: 1401, says: '2001:db8:1::2 {"mtu":1400}' },
    { to: "2001:db8:2::2", length: 1400, hops: 1, says: '2001:db8:1::2 "expired"' },
    { to: "2001:db8:3::3", length: 100, says: '2001:db8:1::2 "unreachable"' },
  ];
  test("say what becomes of them", async () => {
    const said = await Promise.all(
      rows.map(({ to, length, hops }) =>
        prober.echo({ to: parseAddress(to), length, timeoutMs: 500, ...(hops !== undefined && { hops }) }),
      ),
    );
    assert.deepEqual(
      said.map(show),
      rows.map(({ says }) => says),
    );
  });
  test("of another prober are not taken for its own", async () => {
    const other = openProber(here.path);
    const ask = { to: parseAddress("198.51.100.2"), length: 60, timeoutMs: 1000 };
    const outcomes = await Promise.all([prober.echo(ask), other.echo(ask), prober.echo(ask)]);
    other.close();
    assert.deepEqual(
      outcomes.map(({ kind }) => kind),
      ["reply", "reply", "reply"],
    );
  });
});

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { describe, test } from "node:test";
import { spawnSync } from "node:child_process";
import { formatPrefix, parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { openMonitor, type MonitorGroup } from "./monitor.io.ts";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import type { Notification } from "./notification.ts";
import { openRtnetlink } from "./rtnetlink.io.ts";

const ALL: readonly MonitorGroup[] = [
  "link",
  "neighbour",
  "address4",
  "address6",
  "route4",
  "route6",
  "rule4",
  "rule6",
];

/** Collects what a monitor says, in few words; `until` waits for one of them. */
function listen(namespace: string, groups: readonly MonitorGroup[], receiveBuffer?: number) {
  const heard: string[] = [];
  let told = Promise.withResolvers<void>();
  const note = (words: string): void => {
    heard.push(words);
    told.resolve();
    told = Promise.withResolvers();
  };
  const options = receiveBuffer === undefined ? { namespace, groups } : { namespace, groups, receiveBuffer };
  const stop = openMonitor(options, {
    event: (notification) => note(inWords(notification)),
    overrun: () => note("overrun"),
    failed: (failure) => note(`failed: ${failure.message}`),
  });
  const until = async (words: string): Promise<void> => {
    const expired = Promise.withResolvers<never>();
    const limit = setTimeout(
      () => expired.reject(new Error(`never heard "${words}", but:\n${heard.slice(-50).join("\n")}`)),
      5000,
    );
    while (!heard.includes(words)) await Promise.race([told.promise, expired.promise]);
    clearTimeout(limit);
  };
  return { heard, stop, until };
}

function inWords({ change, item }: Notification): string {
  switch (item.kind) {
    case "link":
      return `${change} link ${item.link.name}${item.link.up ? " up" : ""}`;
    case "address":
      return `${change} address ${formatPrefix(item.address.address)}`;
    case "route":
      return `${change} route ${formatPrefix(item.route.destination)} table ${item.route.table}`;
    case "neighbour":
      return `${change} neighbour ${formatAddress(item.neighbour.address)}`;
    case "forwarding":
      return `${change} forwarding ${item.entry.linkAddress}`;
    case "rule":
      return `${change} rule ${item.rule.priority}`;
  }
}

const descriptors = (): number => readdirSync("/proc/self/fd").length;

describe("the monitor", () => {
  test("tells of everything that changes, in each of several namespaces", async () => {
    using one = temporaryNamespace();
    using other = temporaryNamespace();
    const before = descriptors();
    const here = listen(one.path, ALL);
    const there = listen(other.path, ["link"]);
    try {
      inside(one.name, "ip", "link", "add", "br0", "type", "bridge");
      inside(one.name, "ip", "link", "set", "br0", "up");
      inside(one.name, "ip", "addr", "add", "192.0.2.7/26", "dev", "br0");
      inside(one.name, "ip", "route", "add", "10.1.0.0/16", "via", "192.0.2.9");
      inside(one.name, "ip", "route", "del", "10.1.0.0/16");
      inside(one.name, "ip", "-6", "route", "add", "blackhole", "2001:db8:3::/64");
      inside(one.name, "ip", "neigh", "add", "192.0.2.9", "lladdr", "66:00:00:00:00:09", "dev", "br0");
      inside(one.name, "ip", "rule", "add", "priority", "100", "table", "99");
      inside(one.name, "ip", "link", "del", "br0");
      inside(other.name, "ip", "link", "add", "br9", "type", "bridge");
      for (const words of [
        "new link br0",
        "new link br0 up",
        "new address 192.0.2.7/26",
        "new route 10.1.0.0/16 table 254",
        "deleted route 10.1.0.0/16 table 254",
        "new route 2001:db8:3::/64 table 254",
        "new neighbour 192.0.2.9",
        "new rule 100",
        "deleted address 192.0.2.7/26",
        "deleted link br0",
      ]) {
        await here.until(words);
      }
      await there.until("new link br9");
      assert.ok(here.heard.indexOf("new link br0") < here.heard.indexOf("deleted link br0"));
      assert.ok(here.heard.every((words) => !words.includes("br9")));
      assert.ok(
        there.heard.every((words) => words.includes("link br9")),
        there.heard.join(),
      );

      // After its end it says nothing; the others go on.
      here.stop();
      here.stop();
      const said = here.heard.length;
      inside(one.name, "ip", "link", "add", "br1", "type", "bridge");
      inside(other.name, "ip", "link", "set", "br9", "up");
      await there.until("new link br9 up");
      assert.equal(here.heard.length, said);
    } finally {
      here.stop();
      there.stop();
    }
    assert.equal(descriptors(), before);
  });

  test("a route is told of whole", async () => {
    using node = temporaryNamespace();
    const heard = Promise.withResolvers<Notification>();
    const stop = openMonitor(
      { namespace: node.path, groups: ["route4"] },
      { event: heard.resolve, overrun: (reason) => heard.reject(new Error(reason)), failed: heard.reject },
    );
    try {
      inside(node.name, "ip", "route", "add", "10.1.0.0/16", "via", "203.0.113.1", "dev", "lo", "onlink");
      assert.partialDeepStrictEqual((await heard.promise).item, {
        kind: "route",
        route: { nextHops: [{ gateway: parseAddress("203.0.113.1"), device: 1, onlink: true }] },
      });
    } finally {
      stop();
    }
  });

  test("misses nothing from the moment that it is open, also in a storm", async () => {
    using node = temporaryNamespace();
    const rtnetlink = openRtnetlink(node.path);
    const { heard, until, stop } = listen(node.path, ["route4"]);
    try {
      // More than one turn of the event loop takes off the socket.
      const routes = Array.from({ length: 5000 }, (_, at) => parsePrefix(`10.${at >> 8}.${at & 255}.0/24`));
      rtnetlink.applyRoutes(routes.map((destination) => ({ kind: "add", route: { destination, type: "blackhole" } })));
      await until("new route 10.19.135.0/24 table 254");
      assert.deepEqual(
        heard,
        routes.map((route) => `new route ${formatPrefix(route)} table 254`),
      );
    } finally {
      stop();
      rtnetlink.close();
    }
  });

  test("says that it missed something, and misses nothing after that", async () => {
    using node = temporaryNamespace();
    const rtnetlink = openRtnetlink(node.path);
    // Room for a few messages only.
    const { heard, until, stop } = listen(node.path, ["route4", "address4"], 4096);
    const routes = Array.from({ length: 1000 }, (_, at) => parsePrefix(`10.${at >> 8}.${at & 255}.0/24`));
    try {
      for (const round of [0, 1, 2]) {
        const kind = round % 2 === 0 ? "add" : "remove";
        rtnetlink.applyRoutes(routes.map((destination) => ({ kind, route: { destination, type: "blackhole" } })));
        await until("overrun");
        assert.ok(heard.length < 1000);
        heard.length = 0;
        rtnetlink.addAddress({ device: 1, address: parseInterfaceAddress(`127.0.0.${round + 2}/8`), scope: 254 });
        await until(`new address 127.0.0.${round + 2}/8`);
      }
    } finally {
      stop();
      rtnetlink.close();
    }
  });

  test("what changes while the overrun is being handled is told of", async () => {
    using node = temporaryNamespace();
    const rtnetlink = openRtnetlink(node.path);
    const heard = Promise.withResolvers<void>();
    let listedAnew = false;
    // 127.0.0.9 comes after the list that the overrun asks for: only an event can tell of it.
    const stop = openMonitor(
      { namespace: node.path, groups: ["route4", "address4"], receiveBuffer: 4096 },
      {
        event({ item }) {
          if (item.kind === "address") heard.resolve();
        },
        overrun() {
          if (listedAnew) return;
          listedAnew = true;
          assert.equal(rtnetlink.addresses().length, 2);
          rtnetlink.addAddress({ device: 1, address: parseInterfaceAddress("127.0.0.9/8"), scope: 254 });
        },
        failed: heard.reject,
      },
    );
    const limit = setTimeout(() => heard.reject(new Error("the address was never told of")), 3000);
    try {
      const routes = Array.from({ length: 100 }, (_, at) => parsePrefix(`10.0.${at}.0/24`));
      rtnetlink.applyRoutes(routes.map((destination) => ({ kind: "add", route: { destination, type: "blackhole" } })));
      await heard.promise;
    } finally {
      clearTimeout(limit);
      stop();
      rtnetlink.close();
    }
  });

  test("keeps a process alive until it is ended, and not from its end", () => {
    const url = JSON.stringify(new URL("./monitor.io.ts", import.meta.url).href);
    const run = (end: string): { status: number | null; stderr: string } =>
      spawnSync(
        process.execPath,
        [
          "--input-type=module",
          "-e",
          `import { openMonitor } from ${url};
           const stop = openMonitor({ groups: ["link"] }, { event() {}, overrun() {}, failed() {} });
           setTimeout(() => { process.exitCode = 7; ${end} }, 100).unref();`,
        ],
        { encoding: "utf8", timeout: 10_000 },
      );
    for (const end of ["stop();", "process.exit();"]) {
      const { status, stderr } = run(end);
      assert.equal(status, 7, stderr);
    }
  });
});

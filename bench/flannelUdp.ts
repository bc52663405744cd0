import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { openUdpTunnel, type UdpTunnel } from "../src/flannel/udpTunnel.io.ts";
import type { Lease } from "../src/flannel/lease.ts";
import { parseAddress } from "../src/ip/address.ts";
import { parsePrefix } from "../src/ip/prefix.ts";
import { inNamespace } from "../src/netlink/namespace.io.ts";
import { formatTable, median, type BenchResult } from "./table.ts";

/**
 * Flannel's udp backend beside plain routing, between pods on two hosts: `node bench/flannelUdp.ts [ROUNDS]`. Twice: over
 * a veth pair as it is, by which packets of 64 KB cross the wire, and with its offloads off, so that packets of 1500 bytes
 * do. Each round measures plain routing twice, as a control, and in another order; ratios are of one round.
 */

const ROUNDS = 10;
const STREAM_MS = 700;
const PINGS = 2000;
const PORT = 5201;

interface Bed {
  /** Bits per second to the address. */
  throughput(address: string, streams: number): number;
  /** Median round trip, in microseconds; with each end on a processor of its own, or wherever they are put. */
  latency(address: string, pinned: boolean): number;
  offloads(on: boolean): void;
  close(): Promise<void>;
}

/** Pod 2's addresses: by plain routing, and by the relay. */
const PATHS = { plain: "10.9.2.2", udp: "10.8.2.2" } as const;
type Path = keyof typeof PATHS;

async function openBed(): Promise<Bed> {
  const id = `fu${process.pid}`;
  const [pod1, host1, host2, pod2] = ["p1", "h1", "h2", "p2"].map((name) => `${id}${name}`) as [
    string,
    string,
    string,
    string,
  ];
  const namespaces = [pod1, host1, host2, pod2];
  const directory = mkdtempSync(`${tmpdir()}/caracal-bench-`);
  const tool = `${directory}/stream`;
  const children: ChildProcess[] = [];
  const tunnels: UdpTunnel[] = [];
  const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });
  const close = async (): Promise<void> => {
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(tunnels.map((tunnel) => tunnel.close()));
    for (const name of namespaces) {
      try {
        execFileSync("ip", ["netns", "delete", name], { stdio: "ignore" });
      } catch {
        // It was never made.
      }
    }
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    execFileSync("gcc", ["-O2", "-o", tool, new URL("stream.c", import.meta.url).pathname, "-lpthread"]);
    for (const name of namespaces) {
      ip("netns", "add", name);
      ip("-n", name, "link", "set", "lo", "up");
    }
    ip("-n", host1, "link", "add", "u0", "type", "veth", "peer", "name", "u0", "netns", host2);
    for (const [number, host, pod] of [
      [1, host1, pod1],
      [2, host2, pod2],
    ] as const) {
      const other = 3 - number;
      ip("-n", host, "link", "add", "cali0", "type", "veth", "peer", "name", "eth0", "netns", pod);
      ip("-n", host, "address", "add", `192.0.2.${number}/24`, "dev", "u0");
      for (const net of ["10.9", "10.8"]) {
        ip("-n", host, "address", "add", `${net}.${number}.1/24`, "dev", "cali0");
        ip("-n", pod, "address", "add", `${net}.${number}.2/24`, "dev", "eth0");
      }
      for (const [where, link] of [
        [host, "u0"],
        [host, "cali0"],
        [pod, "eth0"],
      ] as const) {
        ip("-n", where, "link", "set", link, "up");
      }
      ip("-n", host, "route", "add", `10.9.${other}.0/24`, "via", `192.0.2.${other}`);
      ip("-n", pod, "route", "add", "10.9.0.0/16", "via", `10.9.${number}.1`);
      ip("-n", pod, "route", "add", "10.8.0.0/16", "via", `10.8.${number}.1`, "mtu", "1472");
      inNamespace(`/run/netns/${host}`, () => execFileSync("sysctl", ["-qw", "net.ipv4.ip_forward=1"]));
      const tunnel = openUdpTunnel({
        namespace: `/run/netns/${host}`,
        name: "flannel%d",
        local: parseAddress(`192.0.2.${number}`),
        port: 8285,
        address: parseAddress(`10.8.${number}.0`),
        onEnd: (reason) => console.error(`the relay of host ${number} has ended: ${reason}`),
      });
      tunnels.push(tunnel);
      const peer: Lease = {
        subnets: { ipv4: parsePrefix(`10.8.${other}.0/24`) },
        attributes: { publicIp: parseAddress(`192.0.2.${other}`), backendType: "udp" },
      };
      tunnel.setPeers([peer]);
      ip("-n", host, "link", "set", tunnel.name, "mtu", "1472", "txqueuelen", "5000", "up");
      ip("-n", host, "address", "add", `10.8.${number}.0/32`, "dev", tunnel.name);
      ip("-n", host, "route", "add", "10.8.0.0/16", "dev", tunnel.name);
    }
    // Two servers: for round trips each end has a processor of its own, as on two hosts.
    for (const [port, pinned] of [
      [PORT, []],
      [PORT + 1, ["taskset", "-c", "1"]],
    ] as const) {
      const server = spawn("ip", ["netns", "exec", pod2, ...pinned, tool, "serve", String(port)], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      children.push(server);
      await new Promise((resolve) => server.stdout.once("data", resolve));
    }
    const run = (...args: string[]): string =>
      execFileSync("ip", ["netns", "exec", pod1, ...args], { encoding: "utf8", timeout: 30_000 });
    return {
      throughput: (address, streams) =>
        Number(run(tool, "send", address, String(PORT), String(streams), String(STREAM_MS))),
      latency(address, pinned) {
        const [port, prefix] = pinned ? [PORT + 1, ["taskset", "-c", "0"]] : [PORT, []];
        return Number(run(...prefix, tool, "ping", address, String(port), String(PINGS)).split(" ")[0]);
      },
      offloads(on) {
        const word = on ? "on" : "off";
        for (const host of [host1, host2]) {
          const features = ["tso", word, "gso", word, "tx-udp-segmentation", word, "gro", on ? "off" : "on"];
          execFileSync("ip", ["netns", "exec", host, "ethtool", "-K", "u0", ...features]);
        }
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const MEASURES = {
  "TCP, 1 stream": { unit: "Gbit/s", of: (bed: Bed, address: string) => bed.throughput(address, 1) / 1e9 },
  "TCP, 8 streams": { unit: "Gbit/s", of: (bed: Bed, address: string) => bed.throughput(address, 8) / 1e9 },
  "TCP ping-pong": { unit: "µs", of: (bed: Bed, address: string) => bed.latency(address, true) },
  "TCP ping-pong, ends anywhere": { unit: "µs", of: (bed: Bed, address: string) => bed.latency(address, false) },
} as const;
type Measure = keyof typeof MEASURES;

/** What the ratio to plain routing has to be: at least for throughput, at most for latency. */
const BARS: Readonly<Record<Measure, readonly [veth: number, small: number] | undefined>> = {
  "TCP, 1 stream": [0.3, 0.45],
  "TCP, 8 streams": undefined,
  "TCP ping-pong": [3, 3],
  "TCP ping-pong, ends anywhere": undefined,
};
const UNDERLAYS = ["veth as it is", "1500-byte packets"] as const;

export async function benchFlannelUdp(rounds = ROUNDS): Promise<BenchResult> {
  const bed = await openBed();
  const rows: Record<string, string>[] = [];
  const bars: BenchResult["bars"][number][] = [];
  try {
    for (const [at, underlay] of UNDERLAYS.entries()) {
      bed.offloads(at === 0);
      await sleep(100);
      for (const path of Object.values(PATHS)) bed.throughput(path, 1); // warm
      for (const [measure, { unit, of }] of Object.entries(MEASURES)) {
        const figures = { first: [] as number[], second: [] as number[], udp: [] as number[] };
        const runs: readonly (readonly [keyof typeof figures, Path])[] = [
          ["first", "plain"],
          ["udp", "udp"],
          ["second", "plain"],
        ];
        for (let round = 0; round < rounds; round += 1) {
          for (let turn = 0; turn < runs.length; turn += 1) {
            const [name, path] = runs[(turn + round) % runs.length]!;
            figures[name].push(of(bed, PATHS[path]));
          }
        }
        const plain = figures.first.map((value, round) => (value + figures.second[round]!) / 2);
        const ratio = median(figures.udp.map((value, round) => value / plain[round]!));
        const control = median(figures.second.map((value, round) => value / figures.first[round]!));
        rows.push({
          underlay,
          measure,
          plain: `${median(plain).toFixed(1)} ${unit}`,
          "flannel udp": `${median(figures.udp).toFixed(1)} ${unit}`,
          ratio: ratio.toFixed(2),
          "control (plain to plain)": control.toFixed(2),
        });
        const bar = BARS[measure as Measure]?.[at];
        if (bar === undefined) continue;
        const isLatency = unit === "µs";
        bars.push({
          what: `flannel udp, ${measure}, ${underlay}, ratio to plain routing`,
          bar: `${isLatency ? "at most" : "at least"} ${bar}`,
          measured: ratio.toFixed(2),
          met: isLatency ? ratio <= bar : ratio >= bar,
        });
      }
    }
    return { tables: [{ title: `Flannel's udp backend (medians of ${rounds} rounds)`, rows }], bars };
  } finally {
    await bed.close();
  }
}

if (import.meta.main) {
  const { tables, bars } = await benchFlannelUdp(Number(process.argv[2] ?? ROUNDS));
  for (const table of tables) console.log(formatTable(table));
  for (const { what, bar, measured, met } of bars) console.log(`${met ? "yes" : "NO "} ${what}: ${measured} (${bar})`);
}

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { clearLeftovers } from "../lib/leftovers.testing.ts";
import type { PeerConfig, PeerStatus } from "./config.ts";
import type { Command, ProcessConfig, Report } from "./speaker-process.testing.ts";
import { until } from "./speaker.testing.ts";

// Two namespaces joined by a veth pair and by nothing else: Caracal in one, BIRD 2 in the other, configured as Calico
// configures it. Needs the Debian package bird2.

const OURS = `caracal-bgp-${process.pid}-a`;
const THEIRS = `caracal-bgp-${process.pid}-b`;
const ASN = 64512;
const BLOCKS = ["10.244.1.0/26", "10.244.2.0/26", "2001:db8:244:1::/122"];
const WHAT_BIRD_HAS = ["10.9.1.0/24", "10.9.2.0/24", "2001:db8:9:1::/64"];

let directory: string;
const processes = new Set<ChildProcess>();

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, { encoding: "utf8", timeout: 10_000, stdio: ["ignore", "pipe", "pipe"] });
}

function start(namespace: string, ...command: string[]): ChildProcess {
  const [program, ...words] = ["ip", "netns", "exec", namespace, ...command];
  const child = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] });
  processes.add(child);
  child.once("exit", () => processes.delete(child));
  return child;
}

/** `ip netns exec` becomes the command, so that its process is the one to kill. */
async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

function birdConfig(routes: readonly string[]): string {
  const statics = (family: 4 | 6): string =>
    routes
      .filter((prefix) => prefix.includes(":") === (family === 6))
      .map((prefix) => `route ${prefix} blackhole;`)
      .join(" ");
  const session = (name: string, family: 4 | 6, local: string, neighbor: string): string => `
    protocol bgp ${name} {
      local ${local} as ${ASN}; neighbor ${neighbor} as ${ASN};
      multihop; ttl security off; source address ${local};
      connect delay time 2; connect retry time 5; error wait time 5,30;
      graceful restart; graceful restart time 60;
      ipv${family} { import all; export where source = RTS_STATIC; next hop self; add paths on; gateway recursive; };
    }`;
  return `
    router id 192.0.2.2;
    protocol device {}
    protocol direct { ipv4; ipv6; }
    protocol static s4 { ipv4; ${statics(4)} }
    protocol static s6 { ipv6; ${statics(6)} }
    ${session("Mesh_v4", 4, "192.0.2.2", "192.0.2.1")}
    ${session("Mesh_v6", 6, "2001:db8::2", "2001:db8::1")}`;
}

interface Bird {
  readonly process: ChildProcess;
}

const control = (): string => join(directory, "bird.ctl");

async function startBird(routes: readonly string[], ...options: string[]): Promise<Bird> {
  const file = join(directory, "bird.conf");
  writeFileSync(file, birdConfig(routes));
  const child = start(THEIRS, "bird", "-f", "-c", file, "-s", control(), "-P", join(directory, "bird.pid"), ...options);
  await until("BIRD to answer", () => birdc("show", "status").includes("Daemon is up"), 5000);
  return { process: child };
}

function birdc(...command: string[]): string {
  try {
    return run("birdc", "-s", control(), ...command);
  } catch {
    return ""; // not up yet
  }
}

/** The prefixes that BIRD has learned from us. */
function birdHas(): string[] {
  const text = ["Mesh_v4", "Mesh_v6"].map((protocol) => birdc("show", "route", "protocol", protocol)).join("\n");
  return [...text.matchAll(/^([0-9a-f.:]+\/\d+)\s/gm)].map((match) => match[1] ?? "").toSorted();
}

class Caracal {
  readonly process: ChildProcess;
  readonly table = new Map<string, string>();
  readonly history: string[] = [];
  settled = false;
  peers: readonly PeerStatus[] = [];

  constructor(originate: readonly string[], restarting: boolean) {
    const peer = (name: string, address: string, sourceAddress: string): PeerConfig => ({
      name,
      address,
      asn: ASN,
      sourceAddress,
    });
    const config: ProcessConfig = {
      speaker: { asn: ASN, routerId: "192.0.2.1", restart: { restarting, forwardingPreserved: true } },
      peers: [peer("Mesh_192_0_2_2", "192.0.2.2", "192.0.2.1"), peer("Mesh_2001_db8__2", "2001:db8::2", "2001:db8::1")],
      originate,
    };
    const script = join(import.meta.dirname, "speaker-process.testing.ts");
    this.process = start(OURS, process.execPath, script, JSON.stringify(config));
    createInterface({ input: this.process.stdout! }).on("line", (line) => this.#heard(JSON.parse(line) as Report));
  }

  #heard(report: Report): void {
    if (report.type === "settled") this.settled = true;
    else if (report.type === "status") this.peers = report.peers;
    else {
      for (const { prefix, nextHops } of report.changes) {
        this.history.push(`${nextHops.length > 0 ? "+" : "-"}${prefix}`);
        if (nextHops.length > 0) this.table.set(prefix, nextHops.join());
        else this.table.delete(prefix);
      }
    }
  }

  tell(command: Command): void {
    this.process.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  async status(holds: (peers: readonly PeerStatus[]) => boolean, what: string): Promise<void> {
    this.peers = [];
    await until(
      what,
      () => {
        this.tell({ status: true });
        return this.peers.length > 0 && holds(this.peers);
      },
      8000,
    );
  }
}

describe("against BIRD 2", () => {
  let bird: Bird;
  let caracal: Caracal;

  before(async () => {
    clearLeftovers();
    directory = mkdtempSync(join(tmpdir(), `caracal-bird-${process.pid}-`));
    for (const namespace of [OURS, THEIRS]) run("ip", "netns", "add", namespace);
    run("ip", "-n", OURS, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", THEIRS);
    for (const [namespace, number] of [
      [OURS, 1],
      [THEIRS, 2],
    ] as const) {
      run("ip", "-n", namespace, "address", "add", `192.0.2.${number}/24`, "dev", "eth0");
      run("ip", "-n", namespace, "address", "add", `2001:db8::${number}/64`, "dev", "eth0", "nodad");
      for (const link of ["lo", "eth0"]) run("ip", "-n", namespace, "link", "set", link, "up");
    }
    bird = await startBird(WHAT_BIRD_HAS);
    caracal = new Caracal(BLOCKS, false);
  });

  after(async () => {
    for (const child of processes) await kill(child);
    for (const namespace of [OURS, THEIRS]) {
      try {
        run("ip", "netns", "delete", namespace);
      } catch {
        // it was never made
      }
    }
    rmSync(directory, { recursive: true, force: true });
  });

  test("IPv4 and IPv6 routes are exchanged both ways, each in its own session", async () => {
    await until("BIRD's routes", () => caracal.table.size === 3, 8000);
    assert.deepEqual(
      caracal.table,
      new Map([
        ["10.9.1.0/24", "192.0.2.2"],
        ["10.9.2.0/24", "192.0.2.2"],
        ["2001:db8:9:1::/64", "2001:db8::2"],
      ]),
    );
    await until("our routes in BIRD", () => birdHas().length === 3, 8000);
    assert.deepEqual(birdHas(), BLOCKS);
    const details = birdc("show", "route", "10.244.1.0/26", "all");
    assert.match(details, /via 192\.0\.2\.1 on eth0/);
    assert.match(details, /BGP\.local_pref: 100/);
    const session = birdc("show", "protocols", "all", "Mesh_v4");
    assert.match(session, /Neighbor graceful restart active|Graceful restart/);
    await caracal.status((peers) => peers.every(({ state }) => state === "established"), "both sessions in our status");
    assert.deepEqual(
      caracal.peers.map(({ routes }) => [routes[4]?.advertised, routes[6]?.advertised]),
      [
        [2, undefined],
        [undefined, 1],
      ],
    );
  });

  test("what either side withdraws is gone on the other", async () => {
    caracal.tell({ originate: BLOCKS.slice(1) });
    await until("our withdrawal in BIRD", () => !birdHas().includes("10.244.1.0/26"));
    assert.deepEqual(birdHas(), BLOCKS.slice(1));
    birdc("disable", "s6");
    await until("BIRD's withdrawal", () => !caracal.table.has("2001:db8:9:1::/64"));
    birdc("enable", "s6");
    await until("the route again", () => caracal.table.size === 3);
    caracal.tell({ originate: BLOCKS });
    await until("ours again", () => birdHas().length === 3);
  });

  test("BIRD asks for a route refresh, and loses nothing", async () => {
    const updates = (): number =>
      Number(/Import updates:\s+(\d+)/.exec(birdc("show", "protocols", "all", "Mesh_v4"))?.[1]);
    const before = updates();
    birdc("reload", "in", "Mesh_v4");
    await until("both routes once more", () => updates() === before + 2);
    assert.deepEqual(birdHas(), BLOCKS);
  });

  test("BIRD is killed and comes back: its routes stay, but for the one that it no longer has", async () => {
    caracal.history.length = 0;
    await kill(bird.process);
    await caracal.status(
      (peers) => peers.every(({ gracefulRestart }) => gracefulRestart.staleUntil !== undefined),
      "stale routes",
    );
    assert.equal(caracal.table.size, 3);
    bird = await startBird(WHAT_BIRD_HAS.slice(1), "-R");
    await caracal.status(
      (peers) =>
        peers.every(
          ({ state, gracefulRestart }) => state === "established" && gracefulRestart.staleUntil === undefined,
        ),
      "the end of BIRD's restart",
    );
    await until("the report of it", () => caracal.history.length > 0);
    assert.deepEqual(caracal.history, ["-10.9.1.0/24"]);
    await until("our routes in BIRD again", () => birdHas().length === 3);
  });

  test("we are killed and come back: BIRD keeps our routes all the while, but for the one that we no longer have", async () => {
    await kill(caracal.process);
    await until("BIRD to notice", () =>
      /Neighbor graceful restart active/.test(birdc("show", "protocols", "all", "Mesh_v4")),
    );
    assert.deepEqual(birdHas(), BLOCKS);
    caracal = new Caracal(BLOCKS.slice(1), true);
    const seen: string[] = [];
    await until(
      "BIRD to sweep what we do not announce again",
      () => {
        const has = birdHas();
        seen.push(...BLOCKS.slice(1).filter((prefix) => !has.includes(prefix)));
        return !has.includes("10.244.1.0/26");
      },
      8000,
    );
    assert.deepEqual(seen, [], "a route was gone for a moment");
    await until("the end of our restart", () => caracal.settled, 8000);
    assert.deepEqual([...caracal.table.keys()].toSorted(), WHAT_BIRD_HAS.slice(1));
  });

  test("shutdown says why, both ways", async () => {
    birdc("disable", "Mesh_v4", '"rack 7 moves"');
    await caracal.status(([v4]) => /rack 7 moves/.test(v4?.lastNotification?.text ?? ""), "BIRD's words");
    await until("the routes to go", () => !caracal.table.has("10.9.2.0/24"));
    birdc("enable", "Mesh_v4");
    await until("the routes again", () => caracal.table.has("10.9.2.0/24"), 8000);
    caracal.tell({ close: "kernel upgrade" });
    await until("our words in BIRD", () => /kernel upgrade/.test(birdc("show", "protocols", "all", "Mesh_v4")));
    await until("our routes to go", () => birdHas().length === 0);
  });
});

import { execFileSync, spawn, type ChildProcess, type ExecFileSyncOptionsWithStringEncoding } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clearLeftovers } from "../lib/leftovers.testing.ts";
import { enterNamespace } from "./kernel.testing.ts";
import { until } from "./speaker.testing.ts";

// Other people's BGP speakers, each in a namespace of its own, on one bridge in a namespace that this process enters and
// that is joined to nothing else.

/** Who is where: `192.0.2.N` and `2001:db8::N`. Ours are 1 to 9. */
export const HOSTS = { bird: 11, frr: 12, gobgp: 13, openbgpd: 14, exabgp: 15, caracal: 16 } as const;
export type Host = keyof typeof HOSTS;

/** Ours, and that of those who are one AS with us. */
export const ASN = 64512;
/** For eBGP, where nothing passes without a filter. */
export const ALL = { rules: [], otherwise: "accept" } as const;
/** What each of them announces as its own. */
export const routeOf = (host: Host): string => `10.${HOSTS[host]}.0.0/16`;
/** The four that are routers, each with a command line to ask. */
export const ROUTERS = ["bird", "frr", "gobgp", "openbgpd"] as const;
export type Router = (typeof ROUTERS)[number];

export const address4 = (number: number): string => `192.0.2.${number}`;
export const address6 = (number: number): string => `2001:db8::${number.toString(16)}`;

export interface Daemon {
  readonly process: ChildProcess;
  /** Of all that it consists of, but for their children. */
  readonly pids: readonly number[];
  /** Asks the daemon through its command line; "" while it does not answer. */
  ask(...words: string[]): string;
  /** As a crash would. */
  kill(): Promise<void>;
}

export interface Segment {
  /** Starts a daemon with the text of its configuration, and waits until it answers. */
  start(host: Host, config: string, ...options: string[]): Promise<Daemon>;
  /** Gives us more addresses: numbers of hosts. */
  addAddresses(numbers: readonly number[]): void;
  /** Tells a host the way to a network. */
  addRoute(host: Host, network: string, via: string): void;
  /** Kills what runs on a host, as a crash would. */
  kill(host: Host): Promise<void>;
  /** Cuts a host off, or joins it again: without a word to us, as our side of the bridge stays up. */
  link(host: Host, state: "up" | "down"): void;
  /** Ends every process and namespace, and removes every file. */
  close(): Promise<void>;
  /** The same at once, for a process that is about to end. */
  abandon(): void;
}

const OPENBGPD_DIRECTORY = "/run/openbgpd";

const CONTROL: ExecFileSyncOptionsWithStringEncoding = {
  encoding: "utf8",
  timeout: 10_000,
  stdio: ["ignore", "pipe", "pipe"],
};

function run(command: string, ...args: string[]): string {
  return execFileSync(command, args, CONTROL);
}

/** Makes the segment, and moves this process into it: test files that use it have a process of their own. */
export function openSegment(hosts: readonly Host[]): Segment {
  clearLeftovers();
  const directory = mkdtempSync(join(tmpdir(), `caracal-daemons-${process.pid}-`));
  chmodSync(directory, 0o711);
  const hub = `caracal-bgp-${process.pid}`;
  const namespaceOf = (host: Host): string => `${hub}-${host}`;
  const processes = new Set<ChildProcess>();
  const hostOf = new Map<ChildProcess, Host>();
  const namespaces: string[] = [];
  const add = (name: string): void => {
    run("ip", "netns", "add", name);
    namespaces.push(name);
    run("ip", "-n", name, "link", "set", "lo", "up");
  };
  add(hub);
  run("ip", "-n", hub, "link", "add", "br0", "type", "bridge");
  run("ip", "-n", hub, "link", "set", "br0", "up");
  const addresses = (namespace: string, device: string, numbers: readonly number[]): void => {
    const input = numbers
      .flatMap((number) => [`${address4(number)}/24 dev ${device}`, `${address6(number)}/64 dev ${device} nodad`])
      .map((words) => `address add ${words}\n`)
      .join("");
    execFileSync("ip", ["-n", namespace, "-batch", "-"], { ...CONTROL, stdio: "pipe", input });
  };
  addresses(hub, "br0", [1, 2, 3, 4]);
  for (const host of hosts) {
    const name = namespaceOf(host);
    add(name);
    run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", host, "netns", hub);
    addresses(name, "eth0", [HOSTS[host]]);
    run("ip", "-n", name, "link", "set", "eth0", "up");
    run("ip", "-n", hub, "link", "set", host, "master", "br0", "up");
  }
  enterNamespace(hub);

  /** Where OpenBGPD locks itself in, if it was not there before. */
  let madeForOpenbgpd: string | undefined;

  function spawnIn(host: Host, program: string, words: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    // `ip netns exec` becomes the command, so that its process is the one to kill.
    const child = spawn("ip", ["netns", "exec", namespaceOf(host), program, ...words], {
      stdio: ["pipe", "ignore", process.env["CARACAL_DAEMON_LOG"] === undefined ? "ignore" : "inherit"],
      env: { ...process.env, ...env },
    });
    processes.add(child);
    hostOf.set(child, host);
    child.once("exit", () => processes.delete(child));
    return child;
  }

  async function kill(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  type Started = [process: ChildProcess, control: readonly string[], ...companions: ChildProcess[]];
  const programs: Record<Host, (file: string, options: readonly string[]) => Started | Promise<Started>> = {
    bird(file, options) {
      const control = join(directory, "bird.ctl");
      const child = spawnIn("bird", "bird", ["-f", "-c", file, "-s", control, "-P", `${file}.pid`, ...options]);
      return [child, ["birdc", "-s", control]];
    },
    async frr(file, options) {
      const sockets = join(directory, "frr");
      mkdirSync(sockets, { recursive: true });
      // They give up root for the user that the package made.
      run("chown", "frr:frr", sockets, file);
      const common = ["--vty_socket", sockets, "-z", join(sockets, "zserv.api")];
      const daemon = (name: string, ...more: string[]): ChildProcess => {
        const words = ["-f", file, "-i", join(sockets, `${name}.pid`), "-P", "0", ...common, ...more];
        return spawnIn("frr", `/usr/lib/frr/${name}`, words);
      };
      const zebra = daemon("zebra");
      // The others ask for it once, and again only after seconds.
      await until("zebra to answer", () => existsSync(join(sockets, "zserv.api")), 8000);
      const bfdd = daemon("bfdd", "--bfdctl", join(sockets, "bfdd.sock"));
      const child = daemon("bgpd", ...options);
      return [child, ["vtysh", "--vty_socket", sockets, "-c"], zebra, bfdd];
    },
    gobgp(file, options) {
      const child = spawnIn("gobgp", "gobgpd", ["-f", file, ...options]);
      return [child, ["ip", "netns", "exec", namespaceOf("gobgp"), "gobgp"]];
    },
    openbgpd(file, options) {
      // Where it locks itself in; the package leaves it to systemd to make it.
      madeForOpenbgpd ??= mkdirSync(OPENBGPD_DIRECTORY, { recursive: true, mode: 0o755 });
      const child = spawnIn("openbgpd", "bgpd", ["-d", "-f", file, ...options]);
      return [child, ["bgpctl", "-s", join(directory, "openbgpd.ctl")]];
    },
    exabgp(file, options) {
      const env = {
        "exabgp.daemon.user": "root",
        "exabgp.log.destination": "stderr",
        "exabgp.api.cli": "false",
      };
      const child = spawnIn("exabgp", "exabgp", [file, ...options], env);
      return [child, ["true"]];
    },
    caracal(file, options) {
      const script = join(import.meta.dirname, "speaker-process.testing.ts");
      return [spawnIn("caracal", process.execPath, [...options, script, readFileSync(file, "utf8")]), ["true"]];
    },
  };

  return {
    async start(host, config, ...options) {
      const file = join(directory, `${host}.conf`);
      writeFileSync(file, config.replaceAll("@directory@", directory), { mode: 0o600 });
      const [child, control, ...companions] = await programs[host](file, options);
      const ask = (...words: string[]): string => {
        try {
          return run(control[0]!, ...control.slice(1), ...words);
        } catch {
          return ""; // not up yet
        }
      };
      const greeting: Record<Host, readonly string[]> = {
        bird: ["show", "status"],
        frr: ["show bgp summary"],
        gobgp: ["global"],
        openbgpd: ["show"],
        exabgp: [],
        caracal: [],
      };
      await until(`${host} to answer`, () => greeting[host].length === 0 || ask(...greeting[host]) !== "", 8000);
      const pids = [child, ...companions].flatMap(({ pid }) => pid ?? []);
      return { process: child, pids, ask, kill: () => kill(child) };
    },
    addAddresses: (numbers) => addresses(hub, "br0", numbers),
    addRoute: (host, network, via) => void run("ip", "-n", namespaceOf(host), "route", "add", network, "via", via),
    async kill(host) {
      for (const child of processes) if (hostOf.get(child) === host) await kill(child);
    },
    link: (host, state) => void run("ip", "-n", hub, "link", "set", host, state),
    async close() {
      for (const child of processes) await kill(child);
      clear();
    },
    abandon() {
      for (const child of processes) child.kill("SIGKILL");
      clear();
    },
  };

  function clear(): void {
    for (const name of namespaces.splice(0)) {
      try {
        run("ip", "netns", "delete", name);
      } catch {
        // it went with its test
      }
    }
    rmSync(directory, { recursive: true, force: true });
    if (madeForOpenbgpd !== undefined) rmSync(madeForOpenbgpd, { recursive: true, force: true });
  }
}

import { execFile, execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { inNamespace } from "../netlink/namespace.io.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { eventually } from "./lab.testing.ts";

/** Other people's routers on hosts of a lab: BIRD and FRR from Debian. */

export interface HostRouter {
  /** Asks it through its command line. */
  ask(...words: string[]): Promise<string>;
  /** As a crash would, and away for good. */
  close(): Promise<void>;
}

const run = promisify(execFile);

function startIn(namespace: string, program: string, words: readonly string[]): ChildProcess {
  const stdio = process.env["CARACAL_DAEMON_LOG"] === undefined ? "ignore" : "inherit";
  return inNamespace(namespace, () => spawn(program, words, { stdio }));
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGKILL");
  await gone;
}

export function startBird(lab: string, host: string, config: string, ...options: string[]): Promise<HostRouter> {
  return startBirdIn(memberNamespace(lab, host), config, ...options);
}

/** BIRD in a pod, `namespace/name`. */
export function startBirdInPod(lab: string, pod: string, config: string): Promise<HostRouter> {
  const [namespace = "", name = ""] = pod.split("/");
  return startBirdIn(podNamespace(lab, namespace, name), config);
}

async function startBirdIn(namespace: string, config: string, ...options: string[]): Promise<HostRouter> {
  const directory = mkdtempSync(join(tmpdir(), `caracal-bird-${process.pid}-`));
  const [file, control] = [join(directory, "bird.conf"), join(directory, "bird.ctl")];
  writeFileSync(file, config, { mode: 0o600 });
  const words = ["-f", "-c", file, "-s", control, "-P", join(directory, "bird.pid"), ...options];
  const child = startIn(namespace, "bird", words);
  const ask = async (...words: string[]): Promise<string> => (await run("birdc", ["-s", control, ...words])).stdout;
  await eventually(() => ask("show", "status"), 8000);
  return {
    ask,
    async close() {
      await kill(child);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export async function startFrr(lab: string, host: string, config: string): Promise<HostRouter> {
  const directory = mkdtempSync(join(tmpdir(), `caracal-frr-${process.pid}-`));
  chmodSync(directory, 0o711);
  const sockets = join(directory, "run");
  mkdirSync(sockets);
  const file = join(directory, "frr.conf");
  writeFileSync(file, config, { mode: 0o600 });
  // It gives up root for the user that the package made.
  execFileSync("chown", ["frr:frr", sockets, file]);
  const zserv = join(sockets, "zserv.api");
  const daemon = (name: string): ChildProcess => {
    const words = ["-f", file, "-i", join(sockets, `${name}.pid`), "-P", "0", "--vty_socket", sockets, "-z", zserv];
    return startIn(memberNamespace(lab, host), `/usr/lib/frr/${name}`, words);
  };
  const children = [daemon("zebra")];
  // bgpd asks for it once, and again only after seconds.
  await eventually(() => {
    if (!existsSync(zserv)) throw new Error("zebra does not answer");
  }, 8000);
  children.push(daemon("bgpd"));
  const ask = async (...words: string[]): Promise<string> =>
    (await run("vtysh", ["--vty_socket", sockets, "-c", words.join(" ")])).stdout;
  await eventually(() => ask("show bgp summary"), 8000);
  return {
    ask,
    async close() {
      for (const child of children) await kill(child);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

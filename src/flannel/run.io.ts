import type { Server } from "node:http";
import { pino } from "pino";
import { http } from "../lib/http.io.ts";
import { systemClock } from "./clock.io.ts";
import { type FlannelDaemon, startFlannel } from "./daemon.io.ts";
import { openEtcd } from "./etcd.io.ts";
import { etcdManager } from "./etcdManager.ts";
import { type FlannelOptions, readFlannelCommand } from "./flags.ts";
import { type KubernetesNode, openKubeManager } from "./kubeNode.io.ts";
import type { SubnetManager } from "./subnetManager.ts";

/** `caracal flannel`: flanneld's process. */

/** Kubernetes, as flannel sees it: who starts the process knows how to reach it. */
export interface Kubernetes extends KubernetesNode {
  readonly close: () => void;
}

export interface RunOptions {
  readonly version: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly openKubernetes: (options: NonNullable<FlannelOptions["kubernetes"]>) => Promise<Kubernetes>;
}

type Log = (level: "info" | "warn", message: string) => void;

/** Runs until SIGTERM or SIGINT. Throws `FlagError` for flags that make no sense. */
export async function runFlannel(args: readonly string[], run: RunOptions): Promise<number> {
  const command = readFlannelCommand(args, run.environment);
  if (command.run === "help") return print(command.text);
  if (command.run === "version") return print(`caracal flannel ${run.version}\n`);
  const { options } = command;
  const logger = pino({ level: "info" });
  const log: Log = (level, message) => logger[level](message);
  const ended = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => ended.abort());
  const { manager, external, close } = await openManager(options, run, log);
  let daemon: FlannelDaemon | undefined;
  const server = serveHealth(options.healthz, () => daemon, log);
  try {
    daemon = await startFlannel({
      manager,
      external,
      subnetFile: options.subnetFile,
      ipMasq: options.ipMasq,
      forwardRules: options.forwardRules,
      resyncSeconds: options.resyncSeconds,
      clock: systemClock,
      log,
      signal: ended.signal,
    });
    await new Promise<void>((resolve) => {
      if (ended.signal.aborted) resolve();
      else ended.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    log("info", "flannel ends; the kernel keeps what it has");
    await daemon.stop();
    return 0;
  } catch (error) {
    if (ended.signal.aborted) return 0;
    throw error;
  } finally {
    server?.close();
    close();
  }
}

function print(text: string): number {
  process.stdout.write(text);
  return 0;
}

interface OpenManager {
  readonly manager: SubnetManager;
  readonly external: FlannelOptions["external"];
  readonly close: () => void;
}

async function openManager(options: FlannelOptions, run: RunOptions, log: Log): Promise<OpenManager> {
  const { kubernetes, external } = options;
  if (kubernetes === undefined) {
    const store = openEtcd(options.etcd);
    const manager = etcdManager({
      store,
      prefix: options.etcd.prefix,
      renewMarginMinutes: options.renewMarginMinutes,
      clock: systemClock,
      onWaiting: (reason) => log("warn", `waiting for the network configuration: ${reason}`),
    });
    return { manager, external, close: () => store.close() };
  }
  const { close, ...node } = await run.openKubernetes(kubernetes);
  return { ...(await openKubeManager(options, kubernetes, node)), close };
}

/** flanneld's answer while it runs; and for people what it does, at /status. */
function serveHealth(
  { address, port }: FlannelOptions["healthz"],
  daemon: () => FlannelDaemon | undefined,
  log: Log,
): Server | undefined {
  if (port === 0) return undefined;
  const server = http.createServer((request, response) => {
    const path = request.url ?? "";
    const status = daemon()?.status();
    if (path === "/healthz") response.end("flanneld is running");
    else if (path === "/status" && status !== undefined) response.end(`${JSON.stringify(status)}\n`);
    else response.writeHead(path === "/status" ? 503 : 404).end();
  });
  server.on("error", (error) => log("warn", `Cannot serve health on ${address}:${port}: ${error.message}`));
  server.listen(port, address);
  return server;
}

import { hostname } from "node:os";
import { pino } from "pino";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { startAgent, type Log } from "./agent.io.ts";
import { apiServerAddress } from "./apiServer.io.ts";
import { readConfig } from "./config.ts";

/** Felix's names of severities, as pino's. */
const LEVELS: Readonly<Record<string, string>> = {
  debug: "debug",
  info: "info",
  warning: "warn",
  error: "error",
  fatal: "fatal",
};

/** `caracal agent`: runs until SIGTERM or SIGINT. Throws `ConfigError` for an environment that makes no sense. */
export async function runAgent(environment: NodeJS.ProcessEnv): Promise<number> {
  const config = readConfig(environment, hostname());
  const logger = pino({
    level: LEVELS[(environment["FELIX_LOGSEVERITYSCREEN"] ?? "info").toLowerCase()] ?? "info",
    base: { node: config.nodeName },
  });
  const log: Log = (level, message, fields) => logger[level](fields, message);
  const datastore = kubernetesDatastore(await apiServerAddress(config.datastore, environment), {
    onInvalid: (kind, key, reason) =>
      log("warn", "an object is not valid: only what can be read of it counts", { kind, key, reason }),
  });
  const agent = await startAgent(config, datastore, log);
  const signal = await new Promise<string>((resolve) => {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve(name));
  });
  log("info", "the agent ends; kernel and peers keep what they have", { signal });
  await agent.stop();
  datastore.close();
  return Number(process.exitCode ?? 0);
}

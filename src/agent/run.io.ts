import { hostname } from "node:os";
import { pino } from "pino";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import type { ApiServerAddress } from "../datastore/http.io.ts";
import { fromKubeconfig, fromServiceAccount } from "../datastore/kubeconfig.io.ts";
import { startAgent, type Log } from "./agent.io.ts";
import { ConfigError, readConfig, type DatastoreConfig } from "./config.ts";

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
  const datastore = kubernetesDatastore(addressOf(config.datastore, environment), {
    onInvalid: (kind, key, reason) =>
      log("warn", "an object is passed over, since it is not valid", { kind, key, reason }),
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

export function addressOf(config: DatastoreConfig, environment: NodeJS.ProcessEnv): ApiServerAddress {
  if (config.kind === "socket") return { socketPath: config.path };
  if (config.kind === "kubeconfig") return fromKubeconfig(config.path).address;
  const address = fromServiceAccount(environment);
  if (address !== undefined) return address;
  throw new ConfigError(
    "KUBECONFIG",
    "no API server is named (nor CARACAL_API_SOCKET), and this is no pod that would know one",
  );
}

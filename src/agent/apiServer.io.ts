import type { ApiServerAddress } from "../datastore/http.io.ts";
import { fromServiceAccount } from "../datastore/serviceAccount.io.ts";
import { ConfigError, type DatastoreConfig } from "./config.ts";

/** Where the API server is. Throws `ConfigError` where nothing says it. */
export async function apiServerAddress(
  config: DatastoreConfig,
  environment: NodeJS.ProcessEnv,
): Promise<ApiServerAddress> {
  if (config.kind === "socket") return { socketPath: config.path };
  if (config.kind === "kubeconfig") {
    // With a parser of YAML, which nothing else here needs.
    const { fromKubeconfig } = await import("../datastore/kubeconfig.io.ts");
    return fromKubeconfig(config.path).address;
  }
  const address = fromServiceAccount(environment);
  if (address !== undefined) return address;
  throw new ConfigError(
    "KUBECONFIG",
    "no API server is named (nor CARACAL_API_SOCKET), and this is no pod that would know one",
  );
}

import { createBlockStore } from "../agent/blockStore.ts";
import { ConfigError, type DatastoreConfig } from "../agent/config.ts";
import { apiServerAddress } from "../agent/apiServer.io.ts";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { runController } from "./gc.io.ts";

/** `caracal controller`: runs until SIGTERM or SIGINT. */
export async function runControllerProcess(
  {
    socket,
    kubeconfig = process.env["KUBECONFIG"],
  }: { readonly socket: string | undefined; readonly kubeconfig: string | undefined },
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  if (socket !== undefined && kubeconfig !== undefined)
    throw new ConfigError("KUBECONFIG", "--socket and a kubeconfig exclude each other");
  const where: DatastoreConfig =
    socket !== undefined
      ? { kind: "socket", path: socket }
      : kubeconfig !== undefined
        ? { kind: "kubeconfig", path: kubeconfig }
        : { kind: "in-cluster" };
  const datastore = kubernetesDatastore(await apiServerAddress(where, environment));
  const ended = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => ended.abort());
  const log = (level: string, message: string, fields: Readonly<Record<string, unknown>>): void =>
    void process.stdout.write(`${JSON.stringify({ level, time: new Date().toISOString(), message, ...fields })}\n`);
  await runController(datastore, { store: createBlockStore(datastore), log }, ended.signal);
  datastore.close();
  return 0;
}

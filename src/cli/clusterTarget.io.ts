import { hostname } from "node:os";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { fromKubeconfig } from "../datastore/kubeconfig.io.ts";
import { askAgent, streamAgent } from "./agentClient.io.ts";
import type { AgentAccess, Target } from "./target.ts";

/** A cluster by its kubeconfig. Of agents only this machine's own can be asked: their sockets are local. */
export function clusterTarget(kubeconfig: string): Target {
  const runDirectory = process.env["CARACAL_RUN_DIR"] ?? "/var/run/calico";
  const agent: AgentAccess = {
    node: process.env["NODENAME"] ?? hostname(),
    ask: (path, timeoutMs) => askAgent(`${runDirectory}/agent.sock`, path, timeoutMs),
    stream: (path, output, signal) => streamAgent(`${runDirectory}/agent.sock`, path, output, signal),
  };
  return {
    description: `the cluster of ${kubeconfig}`,
    openDatastore: () => kubernetesDatastore(fromKubeconfig(kubeconfig).address),
    agents: () => [agent],
  };
}

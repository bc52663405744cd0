import { askAgent, streamAgent } from "../cli/agentClient.io.ts";
import type { AgentAccess, Target } from "../cli/target.ts";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { membersOf } from "./definition.ts";
import { labFiles, nodeFiles } from "./files.ts";
import { readLab } from "./state.io.ts";

/** A lab as what commands speak to. */
export function labTarget(name: string): Target {
  const { definition } = readLab(name);
  return {
    description: `lab "${name}"`,
    openDatastore: () => kubernetesDatastore({ socketPath: labFiles(name).apiSocket }),
    agents: () =>
      membersOf(definition, "node").map(({ name: node }): AgentAccess => {
        const socket = `${nodeFiles(name, node).runDirectory}/agent.sock`;
        return {
          node,
          ask: (path, timeoutMs) => askAgent(socket, path, timeoutMs),
          stream: (path, output, signal) => streamAgent(socket, path, output, signal),
        };
      }),
  };
}

import { askAgent } from "../cli/agentClient.io.ts";
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
      membersOf(definition, "node").map(({ name: node }): AgentAccess => ({
        node,
        ask: (path, timeoutMs) => askAgent(`${nodeFiles(name, node).runDirectory}/agent.sock`, path, timeoutMs),
      })),
  };
}

import { messageOf } from "../lib/errors.ts";
import {
  formatNodeStatus,
  formatPeerDetails,
  formatRoutes,
  isSilent,
  type AgentStatus,
  type NodeAnswer,
  type PeerStatus,
  type RouteRow,
} from "./status.ts";
import type { AgentAccess } from "./target.ts";

interface Output {
  write(text: string): unknown;
}

const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

async function askAll(agents: readonly AgentAccess[]): Promise<NodeAnswer[]> {
  return Promise.all(
    agents.map(async (agent): Promise<NodeAnswer> => {
      try {
        return (await agent.ask("/status")) as AgentStatus;
      } catch (error) {
        return { node: agent.node, error: `its agent does not answer: ${messageOf(error)}` };
      }
    }),
  );
}

/** Exit code 1 where an agent is silent. */
export async function showNodeStatus(agents: readonly AgentAccess[], asJson: boolean, output: Output): Promise<number> {
  const answers = await askAll(agents);
  output.write(asJson ? json(answers) : formatNodeStatus(answers));
  return answers.some(isSilent) ? 1 : 0;
}

export async function showPeers(agents: readonly AgentAccess[], asJson: boolean, output: Output): Promise<number> {
  const answers = await askAll(agents);
  const rows = answers.flatMap((answer) =>
    isSilent(answer) ? [] : answer.bgp.peers.map((peer: PeerStatus) => ({ node: answer.node, peer })),
  );
  output.write(asJson ? json(rows.map(({ node, peer }) => ({ node, ...peer }))) : formatPeerDetails(rows));
  return answers.some(isSilent) ? 1 : 0;
}

export async function showRoutes(
  agents: readonly AgentAccess[],
  query: { readonly view: string; readonly [field: string]: string | undefined },
  asJson: boolean,
  output: Output,
): Promise<number> {
  const words = Object.entries(query).flatMap(([field, value]) =>
    value === undefined ? [] : [`${field}=${encodeURIComponent(value)}`],
  );
  const rows = await Promise.all(
    agents.map(async (agent) =>
      ((await agent.ask(`/bgp/routes?${words.join("&")}`, 10_000)) as RouteRow[]).map((route) => ({
        node: agent.node,
        route,
      })),
    ),
  );
  const flat = rows.flat();
  output.write(asJson ? json(flat.map(({ node, route }) => ({ node, ...route }))) : formatRoutes(flat));
  return 0;
}

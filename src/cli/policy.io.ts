import { messageOf } from "../lib/errors.ts";
import type { Resource } from "../resources/kind.ts";
import type { KindId } from "../resources/registry.ts";
import {
  formatCounts,
  inForceCell,
  inParts,
  sumCounts,
  type KindInForce,
  type NodeCounts,
  type PolicyCount,
} from "./policy.ts";
import type { AgentAccess } from "./target.ts";

type Asked = Pick<AgentAccess, "node" | "ask">;

/** `caracal policy counters`: packets and bytes by policy and rule, over all the nodes. */
export async function showCounters(
  agents: readonly Asked[],
  asJson: boolean,
  output: { write(text: string): unknown },
): Promise<number> {
  const nodes = await Promise.all(
    agents.map(async (agent): Promise<NodeCounts> => ({
      node: agent.node,
      counts: (await agent.ask("/policy/counters", 30_000)) as PolicyCount[],
    })),
  );
  if (asJson) output.write(`${JSON.stringify({ total: sumCounts(nodes), nodes }, undefined, 2)}\n`);
  else output.write(formatCounts(sumCounts(nodes)));
  return 0;
}

/** For each object, on how many nodes it is in force. */
export async function inForceCells(
  agents: readonly Asked[],
  kind: KindId,
  items: readonly Resource[],
): Promise<string[]> {
  const names = items.map(({ metadata: { name, namespace } }) =>
    namespace === undefined ? name : `${namespace}/${name}`,
  );
  const answers = await Promise.all(agents.map((agent) => askAgent(agent, kind, names)));
  return items.map(({ metadata }, at) => inForceCell(names[at] ?? "", metadata.resourceVersion, answers));
}

async function askAgent(agent: Asked, kind: KindId, names: readonly string[]): Promise<KindInForce> {
  let whole: KindInForce = { node: agent.node, problems: {} };
  try {
    for (const part of inParts(names)) {
      const query = new URLSearchParams({ kind });
      for (const object of part) query.append("object", object);
      // oxlint-disable-next-line no-await-in-loop -- the first answer is the one that takes time
      const answer = (await agent.ask(`/policy/in-force?${query.toString()}`, 5000)) as KindInForce;
      whole = { ...whole, ...answer, problems: { ...whole.problems, ...answer.problems } };
    }
    return whole;
  } catch (error) {
    return { node: agent.node, reason: messageOf(error), problems: {} };
  }
}

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { inForceCells } from "./policy.io.ts";
import { formatCounts, inForceCell, inParts, policyInfo, sumCounts, type KindInForce } from "./policy.ts";
import type { AgentAccess } from "./target.ts";

type Asked = Pick<AgentAccess, "node" | "ask">;

describe("how many nodes have a policy in force", () => {
  const agent = (node: string, fields: Partial<KindInForce> = {}): KindInForce => ({
    node,
    resourceVersion: "100",
    problems: {},
    ...fields,
  });
  const rows: { name: string; agents: KindInForce[]; expected: string }[] = [
    { name: "all of them", agents: [agent("n1"), agent("n2")], expected: "2/2 nodes" },
    {
      name: "one has not come so far",
      agents: [agent("n1"), agent("n2", { resourceVersion: "98" })],
      expected: "1/2 nodes (n2: it has not seen it yet)",
    },
    {
      name: "one says why it is behind",
      agents: [agent("n1"), { node: "n2", reason: "no answer in 5000 ms", problems: {} }],
      expected: "1/2 nodes (n2: no answer in 5000 ms)",
    },
    {
      name: "a rule is left out",
      agents: [agent("n1", { problems: { "a/web": ["NetworkPolicy a/web: ingress[0] is left out"] } }), agent("n2")],
      expected: "1/2 nodes (n1: NetworkPolicy a/web: ingress[0] is left out)",
    },
    {
      name: "none of three has it: the first says why",
      agents: [
        agent("n1", { resourceVersion: "9" }),
        agent("n2", { resourceVersion: "9" }),
        agent("n3", { resourceVersion: "9" }),
      ],
      expected: "0/3 nodes (n1: it has not seen it yet; 2 more)",
    },
    {
      name: "a rule of another policy is left out",
      agents: [agent("n1", { problems: { "a/b": ["?"] } })],
      expected: "1/1 nodes",
    },
  ];
  for (const { name, agents, expected } of rows) {
    test(name, () => assert.equal(inForceCell("a/web", "99", agents), expected));
  }

  test("is asked of each agent, in questions that are not too long", async () => {
    const asked: string[] = [];
    const access: Asked = {
      node: "n1",
      ask(path) {
        asked.push(path);
        return Promise.resolve({ resourceVersion: "7", problems: {} });
      },
    };
    const silent: Asked = { node: "n2", ask: () => Promise.reject(new Error("no answer")) };
    const items = Array.from({ length: 65 }, (_, at) => ({
      apiVersion: "v1",
      kind: "NetworkPolicy",
      metadata: { name: `p${at}`, namespace: "a", resourceVersion: "5" },
    }));
    const cells = await inForceCells([access, silent], "NetworkPolicy", items);
    assert.equal(asked.length, 3);
    assert.match(asked[0] ?? "", /^\/policy\/in-force\?kind=NetworkPolicy&object=a%2Fp0&object=a%2Fp1&/);
    assert.deepEqual(new Set(cells), new Set(["1/2 nodes (n2: no answer)"]));
    assert.equal(cells.length, 65);
  });
});

test("names go in parts, at least one", () => {
  assert.deepEqual(inParts([]), [[]]);
  assert.deepEqual(
    inParts(Array.from({ length: 31 }, (_, at) => at)).map(({ length }) => length),
    [30, 1],
  );
});

test("counters are summed over nodes, policies first and the ends of tiers last", () => {
  const total = sumCounts([
    {
      node: "n1",
      counts: [
        { of: "profiles", direction: "ingress", packets: 1, bytes: 10 },
        { of: "tier/default", direction: "ingress", packets: 2, bytes: 20 },
        { of: "knp/a/web", direction: "ingress", rule: 1, packets: 3, bytes: 30 },
        { of: "knp/a/web", direction: "ingress", rule: 0, packets: 4, bytes: 40 },
      ],
    },
    { node: "n2", counts: [{ of: "knp/a/web", direction: "ingress", rule: 0, packets: 5, bytes: 50 }] },
  ]);
  assert.equal(
    formatCounts(total),
    `POLICY              DIRECTION   RULE   PACKETS   BYTES
networkpolicy a/web   ingress     0      9         90
networkpolicy a/web   ingress     1      3         30
tier default          ingress     end    2         20
profiles              ingress     end    1         10
`.replace("POLICY              ", "POLICY                "),
  );
});

test("a node's status says what is wrong with policy, and nothing where nothing is", () => {
  const report = { renderer: "nft", generation: 7, inForce: 7, failure: null, problems: [] };
  assert.deepEqual(policyInfo(report), []);
  assert.deepEqual(policyInfo(undefined), []);
  assert.deepEqual(policyInfo({ ...report, inForce: 5 }), ["policy is 2 changes behind"]);
  assert.deepEqual(
    policyInfo({
      ...report,
      inForce: 5,
      failure: "ENOBUFS",
      problems: [{ id: "gnp/x", reason: "a rule is left out" }],
    }),
    ["policy is not in force: ENOBUFS", "gnp/x: a rule is left out"],
  );
  assert.deepEqual(policyInfo({ ...report, fault: "natPortRange: no range" }), [
    "settings are not carried out, those before are in force: natPortRange: no range",
  ]);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAddress } from "../ip/address.ts";
import { openConntrack, type Conntrack } from "../netlink/conntrack.io.ts";
import { temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openNftables } from "../netlink/nftables.io.ts";
import { stateIs } from "../netlink/nftMatch.ts";
import { accept } from "../netlink/nftStatement.ts";
import { compiler } from "../policy/compile.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { podFlows } from "./policyFlows.io.ts";

const WEB = "10.1.0.1";
const WORLD = `
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}, spec: {nodeName: node1, containers: [{name: c}]},
  status: {podIPs: [{ip: ${WEB}}]}}`;
const DENY = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {
  podSelector: {}, ingress: [{ports: [{port: 80}]}]}}`;

/** A namespace in which connections are followed, and the flows of a pod in it. */
function start(cutForbidden: boolean) {
  const made = temporaryNamespace();
  const table = { family: "ip", name: "t" } as const;
  const nftables = openNftables(made.path);
  nftables.apply([
    { kind: "addTable", table },
    { kind: "addChain", chain: { table, name: "in", base: { type: "filter", hook: "input", priority: 0 } } },
    { kind: "addRule", rule: { table, chain: "in", expressions: [...stateIs("new"), ...accept()] } },
  ]);
  nftables.close();
  const conntrack = openConntrack(made.path);
  const compiled = compiler("node1");
  const tell = (manifest: string): void => {
    for (const update of updatesOf(manifest)) compiled.update(update);
    compiled.take();
  };
  tell(WORLD);
  const flows = podFlows({
    cutForbidden,
    tables: () => compiled.tables(),
    isOwnAddress: () => false,
    namespace: made.path,
    log: (_, message, fields) => assert.ok(!("reason" in fields), `${message}: ${JSON.stringify(fields)}`),
  });
  return {
    flows,
    conntrack,
    tell,
    [Symbol.dispose]() {
      flows.close();
      conntrack.close();
      made[Symbol.dispose]();
    },
  };
}

function connect(conntrack: Conntrack, from: string, to: string, port: number): void {
  const [source, destination] = [parseAddress(from), parseAddress(to)];
  conntrack.add({
    original: { source, destination, protocol: 6, sourcePort: 40_000, destinationPort: port },
    reply: { source: destination, destination: source, protocol: 6, sourcePort: port, destinationPort: 40_000 },
    status: ["seenReply", "assured", "confirmed"],
    mark: 0,
    timeout: 600,
    tcpState: "established",
  });
}

const ports = (conntrack: Conntrack): number[] =>
  conntrack
    .connections({ family: 4 })
    .map(({ original }) => original.destinationPort ?? 0)
    .sort((a, b) => a - b);

async function until(check: () => void): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    try {
      return check();
    } catch (error) {
      if (tries > 200) throw error;
    }
    await sleep(10);
  }
}

test("connections that a change forbids are cut where that is asked for", async () => {
  using made = start(true);
  const { conntrack, flows, tell } = made;
  for (const port of [80, 81]) connect(conntrack, "10.2.0.1", WEB, port);
  connect(conntrack, "10.2.0.1", "10.2.0.2", 82);
  flows.policyChanged();
  await sleep(100);
  assert.deepEqual(ports(conntrack), [80, 81, 82]);
  tell(DENY);
  flows.policyChanged();
  await until(() => assert.deepEqual(ports(conntrack), [80, 82]));
});

test("they stay where it is not, as Kubernetes says", async () => {
  using made = start(false);
  connect(made.conntrack, "10.2.0.1", WEB, 81);
  made.tell(DENY);
  made.flows.policyChanged();
  await sleep(150);
  assert.deepEqual(ports(made.conntrack), [81]);
});

test("connections of a released address are gone before anybody has it again", async () => {
  using made = start(false);
  const { conntrack, flows } = made;
  connect(conntrack, "10.2.0.1", WEB, 80);
  connect(conntrack, WEB, "10.2.0.1", 81);
  connect(conntrack, "10.2.0.1", "10.2.0.2", 82);
  flows.released([parseAddress(WEB)]);
  flows.assigned([parseAddress("10.1.0.2")]);
  assert.deepEqual(ports(conntrack), [80, 81, 82]);
  flows.assigned([parseAddress(WEB)]);
  assert.deepEqual(ports(conntrack), [82]);
  connect(conntrack, "10.2.0.1", WEB, 80);
  flows.released([parseAddress(WEB)]);
  await until(() => assert.deepEqual(ports(conntrack), [82]));
});

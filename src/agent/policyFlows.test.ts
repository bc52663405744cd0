import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import type { Connection } from "../netlink/conntrack.ts";
import { compiler } from "../policy/compile.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { forbidden } from "./policyFlows.ts";

const pod = (name: string, app: string, ip: string, node: string): string =>
  `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, labels: {app: ${app}}}, spec: {nodeName: ${node},
    containers: [{name: c}]}, status: {podIPs: [{ip: ${ip}}]}}`;
const WORLD = [
  "{apiVersion: v1, kind: Namespace, metadata: {name: a}}",
  pod("web", "web", "10.1.0.1", "node1"),
  pod("other", "other", "10.1.0.2", "node1"),
  pod("client", "client", "10.1.0.3", "node2"),
  pod("thief", "thief", "10.1.0.4", "node2"),
  `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {
    podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress],
    ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}],
    egress: [{to: [{podSelector: {matchLabels: {app: other}}}]}]}}`,
];

function connection(
  from: string,
  to: string,
  fields: { port?: number; sentTo?: string; protocol?: number } = {},
): Connection {
  const { port = 80, sentTo = to, protocol = 6 } = fields;
  const [source, destination] = [parseAddress(from), parseAddress(to)];
  return {
    original: { source, destination: parseAddress(sentTo), protocol, sourcePort: 40000, destinationPort: port },
    reply: { source: destination, destination: source, protocol, sourcePort: port, destinationPort: 40000 },
    status: [],
    mark: 0,
    id: 1,
  };
}

describe("connections that policy forbids now", () => {
  const made = compiler("node1");
  for (const update of WORLD.flatMap(updatesOf)) made.update(update);
  made.take();
  const isForbidden = forbidden(made.tables(), (address) => address === "192.0.2.11");
  const rows: { name: string; of: Connection; expected: boolean }[] = [
    { name: "a client at the port that is open", of: connection("10.1.0.3", "10.1.0.1"), expected: false },
    { name: "the client at another port", of: connection("10.1.0.3", "10.1.0.1", { port: 81 }), expected: true },
    {
      name: "the client with another protocol",
      of: connection("10.1.0.3", "10.1.0.1", { protocol: 17 }),
      expected: true,
    },
    { name: "somebody else", of: connection("10.1.0.4", "10.1.0.1"), expected: true },
    { name: "the node itself", of: connection("192.0.2.11", "10.1.0.1", { port: 81 }), expected: false },
    { name: "to where the pod may go", of: connection("10.1.0.1", "10.1.0.2", { port: 9 }), expected: false },
    { name: "to where it may not", of: connection("10.1.0.1", "10.1.0.4"), expected: true },
    {
      name: "by a service to where it may go",
      of: connection("10.1.0.1", "10.1.0.2", { sentTo: "10.96.0.1" }),
      expected: false,
    },
    {
      name: "by a service to where it may not",
      of: connection("10.1.0.1", "10.1.0.3", { sentTo: "10.1.0.2" }),
      expected: true,
    },
    { name: "of a pod without policy", of: connection("10.1.0.2", "8.8.8.8"), expected: false },
    { name: "between strangers", of: connection("10.1.0.4", "10.1.0.3"), expected: false },
  ];
  for (const { name, of, expected } of rows) test(name, () => assert.equal(isForbidden(of), expected));
});

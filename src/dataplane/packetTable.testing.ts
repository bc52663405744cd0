/** Tables of packets: what the rules of a node with a few pods do with each. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import type { Packet } from "../policy/match.ts";
import { icmpOf, PROTOCOL } from "../policy/model.ts";
import { worldOf } from "../policy/world.testing.ts";
import { pass, travelling, type Travelling } from "./packetPath.testing.ts";
import type { Hook } from "./ruleset.ts";
import { factsOf, nodeOf, type GivenFacts } from "./ruleWorld.testing.ts";

/** Pods of node1. */
export const PODS = [
  "namespace a",
  "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: a}}",
  "pod a/x 10.1.0.1 2001:db8:1::1 app=x",
  "pod a/y 10.1.0.2 2001:db8:1::2 app=y",
];
/** The interfaces of `a/x` and `a/y`. */
export const [X = "", Y = ""] = [...worldOf(PODS).endpoints.values()].map(({ interfaceName }) => interfaceName);

export const object = (kind: string, name: string, spec: string): string =>
  `{apiVersion: projectcalico.org/v3, kind: ${kind}, metadata: {name: ${name}, labels: {hep: ${name}}}, spec: ${spec}}`;
export const policy = (spec: string, name = "p"): string => object("GlobalNetworkPolicy", name, spec);
export const annotated = (name: string, ip: string, key: string, values: string): string =>
  `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, annotations: {cni.projectcalico.org/${key}: '${values}'}},
    spec: {nodeName: node1, serviceAccountName: default, containers: [{name: c}]}, status: {podIPs: [{ip: ${ip}}]}}`;

/** Host addresses of these tests. */
const LOCAL = ["192.0.2.1", "10.1.0.0", "2001:db8:f::1", "fe80::1"];

export interface Row {
  readonly name: string;
  readonly objects?: readonly string[];
  readonly facts?: GivenFacts;
  /** Where the packet is: `by eth0 to here`, `by eth0 out cali1`, `from here out eth0`. */
  readonly way: string;
  /** `10.0.0.1#40000 > 10.0.0.2#80 TCP`, `… ICMP 8/0`, `… 4`. */
  readonly packet: string;
  readonly given?: Partial<Travelling> & { readonly wrongWay?: true };
  /** Its fate, and what was made of it: `accept`, `accept from masquerade`, `accept to 10.0.0.1`, `accept untracked`. */
  readonly fate: string;
}

export function packetOf(text: string): Packet {
  const parts = /^(\S+?)(?:#(\d+))? > (\S+?)(?:#(\d+))? (\w+)(?: (\d+)\/(\d+))?$/.exec(text);
  assert.ok(parts !== null, text);
  const [, from = "", sourcePort, to = "", destinationPort, name = "", type, code] = parts;
  const [source, destination] = [parseAddress(from), parseAddress(to)];
  const { family } = source;
  const known = name === "ICMP" ? icmpOf(family) : PROTOCOL[name as keyof typeof PROTOCOL];
  return {
    family,
    source,
    destination,
    protocol: known ?? Number(name),
    ...(sourcePort === undefined ? {} : { sourcePort: Number(sourcePort) }),
    ...(destinationPort === undefined ? {} : { destinationPort: Number(destinationPort) }),
    ...(type === undefined ? {} : { icmp: { type: Number(type), code: Number(code) } }),
  };
}

function wayOf(text: string): { hooks: Hook[]; given: Partial<Travelling> } {
  const parts = /^(?:by (\S+)|from here) (?:out (\S+)|to here)$/.exec(text);
  assert.ok(parts !== null, text);
  const [, by, out] = parts;
  if (by === undefined) return { hooks: ["OUTPUT", "POSTROUTING"], given: { out: out ?? "lo" } };
  if (out === undefined) return { hooks: ["PREROUTING", "INPUT"], given: { in: by } };
  return { hooks: ["PREROUTING", "FORWARD", "POSTROUTING"], given: { in: by, out } };
}

export function send({ objects = [], facts = {}, way, packet, given = {} }: Row): {
  fate: string;
  noted: readonly string[];
} {
  const world = worldOf([...PODS, ...objects], {
    interfaces: { node1: [{ name: "eth0", addresses: ["192.0.2.1", "2001:db8:f::1"] }] },
  });
  const sent = packetOf(packet);
  const ruleset = nodeOf(world, "node1", factsOf(facts)).rulesets[sent.family];
  const { hooks, given: interfaces } = wayOf(way);
  const { wrongWay, ...rest } = given;
  const one = travelling(sent, { ...interfaces, ...rest });
  const fate = pass(ruleset, hooks, one, { local: LOCAL, isReversePath: wrongWay !== true });
  const made = [
    ...(one.isDnat && !given.isDnat ? [`to ${formatAddress(one.packet.destination)}`] : []),
    ...(one.translated === undefined ? [] : [`from ${one.translated}`]),
    ...(one.state === "untracked" ? ["untracked"] : []),
  ];
  return { fate: [fate, ...made].join(" "), noted: one.noted };
}

export function rows(
  name: string,
  shared: { objects?: readonly string[]; facts?: GivenFacts },
  list: readonly Row[],
): void {
  describe(name, () => {
    for (const row of list) test(row.name, () => assert.equal(send({ ...shared, ...row }).fate, row.fate));
  });
}

/** An address beyond all that the nodes know, and a packet to it from `a/x`. */
export const OUT = "192.0.2.9";
export const TO_OUTSIDE = { way: `by ${X} out eth0`, packet: `10.1.0.1#1 > ${OUT}#80 TCP` };

/** A host endpoint of one interface. */
export const HOST = object("HostEndpoint", "h", "{node: node1, interfaceName: eth0}");

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Family } from "../ip/address.ts";
import { assertGolden } from "../lib/golden.testing.ts";
import { setTransmitChecksumOffload } from "../netlink/ethtool.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { startCapture } from "./capture.testing.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { describeFrame, innermost, type Names } from "./headers.testing.ts";
import { caracal, eventually, inPod, onMember } from "./lab.testing.ts";
import { probeResults } from "./matrix.io.ts";
import { passes, transfer } from "./paths.testing.ts";
import { openTalk } from "./talk.testing.ts";

/**
 * Every way that packets take between nodes, with policy in force: who reaches whom, how large packets may be, whether what
 * arrives is what was sent, and every header on the wire. The lab has node1 and node2 on one segment, and node3 behind a
 * router that knows nothing of pods.
 */

export const SEGMENTS = [
  { subnet: "192.0.2.0/26", nodes: ["node1", "node2"] },
  { subnet: "192.0.2.64/26", nodes: ["node3"] },
];
export const SEGMENTS_OF_BOTH_FAMILIES = SEGMENTS.map((segment, index) => ({
  ...segment,
  subnet6: `2001:db8:0:${index + 1}::/64`,
}));

const pod = (name: string, app: string, node: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${app} } }
spec: { nodeName: ${node}, containers: [{ name: main, image: server }] }
---`;
/** Servers are open to clients alone, and at port 80 alone. */
export const WAY_OBJECTS = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: { name: servers }
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
    - { action: Allow, protocol: TCP, source: { selector: "app == 'client'" }, destination: { ports: [80] } }
    - { action: Allow, protocol: ICMP, source: { selector: "app == 'client'" } }
    - { action: Allow, protocol: ICMPv6, source: { selector: "app == 'client'" } }
---${pod("client", "client", "node1")}${pod("stranger", "stranger", "node1")}${pod("near", "server", "node2")}${pod("far", "server", "node3")}`;

const PODS = { client: "node1", stranger: "node1", near: "node2", far: "node3" } as const;
const PLACES = ["near", "far"] as const;
const FAMILIES = [4, 6] as const;
const CLIENT = "default/client";

export interface Way {
  readonly name: string;
  /** The largest packet of each family to the other node of the segment, and to the one behind the router; 0 for none. */
  readonly near: Readonly<Record<Family, number>>;
  readonly far: Readonly<Record<Family, number>>;
}

/** Addresses of the pods by their names. */
export type PodAddresses = ReadonlyMap<string, readonly string[]>;

export async function podAddresses(lab: string): Promise<PodAddresses> {
  const { output } = await caracal(lab, ["get", "pod", "-o", "json"]);
  const { items } = JSON.parse(output) as {
    items: { metadata: { name: string }; status: { podIPs: { ip: string }[] } }[];
  };
  return new Map(items.map(({ metadata, status }) => [metadata.name, status.podIPs.map(({ ip }) => ip)]));
}

const familyOf = (address: string): Family => (address.includes(":") ? 6 : 4);

export function addressOf(pods: PodAddresses, name: string, family: Family): string {
  const found = pods.get(name)?.find((address) => familyOf(address) === family);
  assert.ok(found !== undefined, `the pod ${name} has no address of IPv${family}`);
  return found;
}

/** All that is asked of a way. */
export async function assertWay(lab: string, pods: PodAddresses, way: Way): Promise<void> {
  await eventually(async () => assert.deepEqual(await surprises(lab, pods, way), []));
  const reached = PLACES.flatMap((place) =>
    FAMILIES.flatMap((family) =>
      way[place][family] === 0
        ? []
        : [{ place, family, address: addressOf(pods, place, family), largest: way[place][family] }],
    ),
  );
  await Promise.all(
    reached.map(async ({ place, address, largest }) => {
      assert.ok(await passes(lab, CLIENT, address, largest), `${largest} bytes to ${place}, ${address}`);
      assert.ok(!(await passes(lab, CLIENT, address, largest + 1)), `${largest + 1} bytes to ${place}`);
      await transfer(lab, CLIENT, address);
    }),
  );
  setOffloads(lab, false);
  try {
    await Promise.all(reached.map(({ address }) => transfer(lab, CLIENT, address)));
    const text = await headersOnTheWire(lab, pods, reached);
    assertGolden(new URL(`golden/headers-${way.name.replaceAll(" ", "-")}.txt`, import.meta.url).pathname, text);
  } finally {
    setOffloads(lab, true);
  }
}

/** Connections that are otherwise than they should be, of all pods to all others, at all of their addresses. */
async function surprises(lab: string, pods: PodAddresses, way: Way): Promise<string[]> {
  const request = { protocol: "TCP", port: undefined, from: undefined, to: undefined } as const;
  const results = await probeResults(lab, request, 300);
  const count = [...pods].reduce((sum, [, addresses]) => sum + addresses.length * (pods.size - 1) * 2, 0);
  assert.equal(results.length, count, "each pod to all others' addresses, at two ports");
  return results.flatMap(({ from, to, address, port, connected }) => {
    const [source, target] = [from, to].map((name) => name.replace("default/", "")) as [keyof typeof PODS, "near"];
    const isServer = target in way;
    const allowed = !isServer || (from === CLIENT && port === 80);
    const size = wayBetween(way, PODS[source], PODS[target])[familyOf(address)];
    return connected === (allowed && size > 0) ? [] : [`${from} ${to} ${address} ${port} ${connected}`];
  });
}

function wayBetween(way: Way, a: string, b: string): Way["near"] {
  if (a === b) return { 4: 1, 6: 1 };
  return [a, b].includes("node3") ? way.far : way.near;
}

/**
 * With the offload off, the kernel makes packets of the wire's size with whole checksums, as a network card would send
 * them; with it on, packets of 64 KB cross a veth, whose checksums nobody has made.
 */
function setOffloads(lab: string, on: boolean): void {
  const nodes = new Set(Object.values(PODS));
  const namespaces = [
    ...[...nodes].map((node) => memberNamespace(lab, node)),
    ...Object.keys(PODS).map((name) => podNamespace(lab, "default", name)),
  ];
  for (const path of namespaces) inNamespace(path, () => setTransmitChecksumOffload("eth0", on));
}

interface Reached {
  readonly place: (typeof PLACES)[number];
  readonly family: Family;
  readonly address: string;
}

/** An echo and the beginning of a connection to each pod, as its node sees them on its own wire. */
async function headersOnTheWire(lab: string, pods: PodAddresses, reached: readonly Reached[]): Promise<string> {
  const names = await namesIn(lab, pods);
  const captures = await Promise.all(PLACES.map((place) => startCapture(memberNamespace(lab, PODS[place]), "eth0")));
  for (const { address } of reached) {
    const { code } = await inPod(lab, CLIENT, ["ping", "-c1", "-W1", "-M", "do", "-s", "100", address]);
    assert.equal(code, 0, `an echo to ${address}`);
    using talk = openTalk(podNamespace(lab, "default", "client"), address, 80);
    assert.ok(await talk.says("hello", 2000));
  }
  await sleep(100);
  const frames = await Promise.all(captures.map((capture) => capture.stop()));
  return reached
    .flatMap(({ place, family, address }) => {
      const client = addressOf(pods, "client", family);
      const between = frames[PLACES.indexOf(place)]!.flatMap((frame) => {
        const ends = innermost(frame);
        const isThere = ends?.source === client && ends.destination === address;
        const isBack = ends?.source === address && ends.destination === client;
        return isThere || isBack ? [{ isThere, lines: describeFrame(frame, names) }] : [];
      });
      return WANTED.flatMap(({ title, isThere, last }) => {
        const found = between.find((each) => each.isThere === isThere && last.test(each.lines.at(-1) ?? ""));
        assert.ok(found !== undefined, `${title}, ${address}: not among ${between.length} packets`);
        return [`# ${title}: ${place}, IPv${family}`, ...found.lines, ""];
      });
    })
    .join("\n");
}

const WANTED = [
  { title: "an echo request comes", isThere: true, last: /^icmp(v6)? .*data=100/ },
  { title: "an echo reply goes", isThere: false, last: /^icmp(v6)? .*data=100/ },
  { title: "a connection is asked for", isThere: true, last: /^tcp .* flags=SYN / },
  { title: "it is granted", isThere: false, last: /^tcp .* flags=SYN\+ACK / },
  { title: "the first data go", isThere: false, last: /^tcp .* data=[1-9]/ },
] as const;

/** Pods by their names, and what else there is by its place: `node1 eth0`. */
async function namesIn(lab: string, pods: PodAddresses): Promise<Names> {
  const known = new Map<string, string>();
  for (const member of [...new Set(Object.values(PODS)), "router"]) {
    const { output } = await onMember(lab, member, ["ip", "-j", "address"]);
    for (const link of JSON.parse(output) as IpLink[]) {
      // The ports of a bridge send nothing of their own; pods' interfaces have one MAC address all.
      if (link.master !== undefined || link.ifname.startsWith("cali") || link.ifname === "lo") continue;
      const name = `${member}:${link.ifname}`;
      known.set(link.address ?? "", name);
      for (const { local } of link.addr_info) known.set(local, name);
    }
  }
  for (const [name, addresses] of pods) for (const address of addresses) known.set(address, name);
  return (text) => known.get(text) ?? text;
}

interface IpLink {
  readonly ifname: string;
  readonly address?: string;
  readonly master?: string;
  readonly addr_info: readonly { readonly local: string }[];
}

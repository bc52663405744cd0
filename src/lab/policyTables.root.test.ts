import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { CLUSTER_POLICIES } from "../policy/clusterPolicy.testing.ts";
import { EVALUATION, PLACES } from "../policy/evaluation.testing.ts";
import { HOST_EVALUATION } from "../policy/hostEvaluation.testing.ts";
import { KUBERNETES_PLACES, SENTENCES } from "../policy/kubernetesPolicy.testing.ts";
import { flowOf, line, SETTINGS, worldOf } from "../policy/world.testing.ts";
import { parseManifest } from "../resources/yaml.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { onMember } from "./lab.testing.ts";
import { policyLab, type PolicyLab } from "./policyLab.testing.ts";
import type { Manifest } from "./policyObjects.testing.ts";
import { shoot, type Shot } from "./rawPackets.testing.ts";

/**
 * The tables that say what policy means, as packets: what they hold the evaluator against holds for the kernels of a lab.
 * By both renderers, or those of `CARACAL_POLICY_RENDERERS` (`nft,iptables`).
 */

const LAB = "test-policy-tables";
const NODES = ["node1", "node2", "node3"];
const DEFINITION = {
  kind: "Lab",
  podSubnet: "10.0.0.0/8",
  podSubnet6: "2001:db8::/64",
  segments: [{ subnet: "192.0.2.0/24", subnet6: "2001:db8:0:1::/64", nodes: NODES, hosts: ["outside"] }],
};
const MODES: Readonly<Record<string, string>> = { nft: "Enabled", iptables: "Disabled" };
const RENDERERS = (process.env["CARACAL_POLICY_RENDERERS"] ?? "nft,iptables").split(",");

interface Row {
  readonly name: string;
  readonly objects: readonly string[];
  readonly settings?: object;
  readonly flows: string;
}

const TABLES: readonly {
  readonly title: string;
  readonly places: readonly string[];
  readonly table: readonly Row[];
}[] = [
  ...[...EVALUATION, ...HOST_EVALUATION].map(({ title, table }) => ({
    title,
    places: PLACES,
    table: table.map(({ settings, ...row }) => ({ ...row, settings: settings?.settings ?? {} })),
  })),
  ...[
    { title: "Kubernetes' documentation", table: SENTENCES },
    { title: "ClusterNetworkPolicy", table: CLUSTER_POLICIES },
  ].map(({ title, table }) => ({
    title,
    places: KUBERNETES_PLACES,
    table: table.map(({ objects = [], ...row }) => ({ ...row, objects })),
  })),
];

/** What no datastore takes, or no lab has: an endpoint without a pod, a pod without a namespace. */
const isInLab = ({ objects }: Row): boolean =>
  !objects.some((object) => /kind: WorkloadEndpoint|^pod lost\//.test(object));

function manifestsOf(parts: readonly string[]): Manifest[] {
  return parts
    .flatMap((part) => parseManifest(part.includes("apiVersion") ? part : line(part), "table"))
    .map(({ object }) => podWithAddresses(object as unknown as Manifest));
}

/** The addresses that the table gives it. */
function podWithAddresses(object: Manifest): Manifest {
  if (object.kind !== "Pod") return object;
  const { status, ...pod } = object as Manifest & { status: { podIPs: { ip: string }[] } };
  const annotations = { "cni.projectcalico.org/ipAddrs": JSON.stringify(status.podIPs.map(({ ip }) => ip)) };
  return { ...pod, metadata: { ...pod.metadata, annotations } };
}

const settingsOf = (nftablesMode: string | undefined, settings: object = {}): Manifest => ({
  apiVersion: "projectcalico.org/v3",
  kind: "FelixConfiguration",
  metadata: { name: "default" },
  spec: { ...SETTINGS, ...settings, nftablesMode },
});

interface Line {
  readonly text: string;
  readonly shot: Shot;
  readonly expected: boolean;
}

const NODE_ADDRESSES = { 4: "192.0.2.1", 6: "2001:db8:0:1::1" } as const;

function linesOf({ flows, objects }: Row, places: readonly string[]): Line[] {
  const world = worldOf([...places, ...objects]);
  return flows
    .split("\n")
    .map((text) => text.trim())
    .flatMap((text) => {
      const parts = /^(\S+) -> (\S+) (\S+) (yes|no)$/.exec(text);
      assert.ok(parts !== null, `cannot read "${text}"`);
      const [, from = "", to = "", what = "", expected] = parts;
      const { source, destination, ...flow } = flowOf(world, from, to, what);
      const isV6 = what.startsWith("ICMPv6") || `${from}${to}`.includes(":");
      const side = (name: string, party: typeof source) => {
        if (name.startsWith("@")) {
          const at = NODES.indexOf(name.slice(1)) + 1;
          return {
            netns: memberNamespace(LAB, name.slice(1)),
            address: parseAddress(`${NODE_ADDRESSES[isV6 ? 6 : 4]}${at}`),
          };
        }
        if (!("endpoint" in party)) return { netns: memberNamespace(LAB, "outside"), address: parseAddress(name) };
        const nets = world.endpoints.get(party.endpoint)?.nets ?? [];
        const [namespace = "", pod = ""] = name.split("/");
        return {
          netns: podNamespace(LAB, namespace, pod),
          address: parseAddress(nets.find((net) => net.includes(":") === isV6) ?? ""),
        };
      };
      // Only what can begin a connection, or is none, is new to the kernel: it drops an answer to nothing before policy.
      if (flow.icmp !== undefined && ![8, 128, 135, 136].includes(flow.icmp.type)) return [];
      const [begin, end] = [side(from, source), side(to, destination)];
      const shot: Shot = { ...flow, from: begin.netns, to: end.netns, source: begin.address, destination: end.address };
      return [{ text, shot, expected: expected === "yes" }];
    });
}

/** Addresses that nobody in the tables has are the outside's. */
async function giveOutsideItsAddresses(): Promise<void> {
  const shots = TABLES.flatMap(({ places, table }) => table.filter(isInLab).flatMap((row) => linesOf(row, places)));
  const outside = memberNamespace(LAB, "outside");
  const texts = new Set(
    shots.flatMap(({ text, shot }) => {
      const [from = "", , to = ""] = text.split(" ");
      return [...(shot.from === outside ? [from] : []), ...(shot.to === outside ? [to] : [])];
    }),
  );
  const own = { 4: "192.0.2.14", 6: "2001:db8:0:1::14" } as const;
  const addresses = [...texts].map((text) => ({ text, family: text.includes(":") ? 6 : 4 }) as const);
  const batch = (lines: readonly string[]): string => `ip -batch - <<'END'\n${lines.join("\n")}\nEND`;
  const nearby = (text: string): boolean => text.startsWith("192.0.2.");
  const has = addresses.map(
    ({ text, family }) => `address add ${text}/${family === 4 ? 32 : 128} dev ${nearby(text) ? "eth0" : "lo"}`,
  );
  const leads = addresses
    .filter(({ text }) => !nearby(text))
    .map(({ text, family }) => `route add ${text} via ${own[family]}`);
  for (const [member, lines] of [
    ["outside", has],
    ["router", leads],
  ] as const) {
    // oxlint-disable-next-line no-await-in-loop
    const { code, errors } = await onMember(LAB, member, ["sh", "-c", batch(lines)]);
    assert.equal(code, 0, errors);
  }
}

describe("packets meet what the tables say", () => {
  let lab: PolicyLab;
  before(async () => {
    lab = await policyLab(LAB, DEFINITION);
    await giveOutsideItsAddresses();
  });
  after(async () => {
    await lab?.close();
  });

  for (const renderer of RENDERERS) {
    for (const { title, places, table } of TABLES) {
      describe(`${title}, by ${renderer}`, () => {
        for (const row of table.filter(isInLab)) {
          test(row.name, async () => {
            const lines = linesOf(row, places);
            await lab.hold([...manifestsOf([...places, ...row.objects]), settingsOf(MODES[renderer], row.settings)]);
            lab.forgetConnections();
            const arrived = await shoot(
              lines.map(({ shot }) => shot),
              lines.map(({ expected }) => expected),
            );
            const outcomes = lines.map(({ text }, at) => text.replace(/ (yes|no)$/, arrived[at] ? " yes" : " no"));
            assert.deepEqual(
              outcomes,
              lines.map(({ text }) => text),
            );
          });
        }
      });
    }
  }
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { parseDefinition } from "./definition.ts";
import { nodeFiles } from "./files.ts";
import { agentReport, caracal, eventually, inPod, onMember, startLab, startPing } from "./lab.testing.ts";
import { setLinkFault } from "./links.io.ts";
import { foundPaths } from "./paths.testing.ts";
import { labDown } from "./up.io.ts";
import {
  addressOf,
  assertWay,
  podAddresses,
  SEGMENTS,
  SEGMENTS_OF_BOTH_FAMILIES,
  WAY_OBJECTS,
  type PodAddresses,
  type Way,
} from "./ways.testing.ts";

/**
 * Canal: flannel between the nodes by each of its backends, addresses of the nodes' podCIDRs, and Calico's policy at the
 * pods' doors; and what happens to it. A lab for each backend.
 */

const LAB = "test-canal";

interface Backend extends Way {
  readonly type: string;
  readonly segments: typeof SEGMENTS;
  /** What node1 says of the ways to node2 and to node3. */
  readonly found: { readonly node2: readonly RegExp[]; readonly node3: readonly RegExp[] };
  /** What `ip route get` says on node1 of a pod behind the router, or on the same segment where that is all. */
  readonly route: RegExp;
  /** What somebody does to node1, and it is right again within a second. */
  readonly harms: readonly (readonly string[])[];
  /** The relay is a part of the agent, and its device ends with it. */
  readonly endsWithAgent?: true;
}

const FLUSH_ROUTES = ["ip", "route", "flush", "proto", "81"];
const backends: Backend[] = [
  {
    type: "udp",
    name: "flannel udp",
    segments: SEGMENTS,
    near: { 4: 1472, 6: 0 },
    far: { 4: 1472, 6: 0 },
    found: { node2: [/^flannel udp reachable 1472\/1472$/], node3: [/^flannel udp reachable 1472\/1472$/] },
    route: / dev flannel0 /,
    harms: [["ip", "link", "delete", "flannel0"], FLUSH_ROUTES],
    endsWithAgent: true,
  },
  {
    type: "vxlan",
    name: "flannel vxlan",
    segments: SEGMENTS_OF_BOTH_FAMILIES,
    near: { 4: 1430, 6: 1430 },
    far: { 4: 1430, 6: 1430 },
    found: {
      node2: [/^vxlan reachable 1430\/1430$/, /^vxlan reachable 1430\/1430$/],
      node3: [/^vxlan reachable 1430\/1430$/, /^vxlan reachable 1430\/1430$/],
    },
    route: / via 10\.244\.2\.0 dev flannel\.1 /,
    harms: [["ip", "link", "delete", "flannel.1"], FLUSH_ROUTES],
  },
  {
    type: "host-gw",
    name: "flannel host-gw",
    segments: SEGMENTS_OF_BOTH_FAMILIES,
    near: { 4: 1500, 6: 1500 },
    far: { 4: 0, 6: 0 },
    found: { node2: [/^none reachable 1500\/1500$/, /^none reachable 1500\/1500$/], node3: [] },
    route: / via 192\.0\.2\.12 dev eth0 /,
    harms: [FLUSH_ROUTES],
  },
  {
    type: "ipip",
    name: "flannel ipip",
    segments: SEGMENTS,
    near: { 4: 1480, 6: 0 },
    far: { 4: 1480, 6: 0 },
    found: { node2: [/^ipip reachable 1480\/1480$/], node3: [/^ipip reachable 1480\/1480$/] },
    route: / via 192\.0\.2\.75 dev flannel\.ipip /,
    harms: [["ip", "link", "delete", "flannel.ipip"], FLUSH_ROUTES],
  },
];

for (const backend of backends) {
  const { name, segments, far, endsWithAgent } = backend;
  const definition = {
    kind: "Lab",
    backend: "canal",
    flannel: { Type: backend.type },
    segments,
    environment: { CARACAL_PATH_CHECK_INTERVAL: "1s" },
  };
  describe(`${name} with Calico's policy`, () => {
    let pods: PodAddresses;
    /** A pod that the client reaches by this backend, on a node of this name. */
    const [target, node] = far[4] > 0 ? ["far", "node3"] : ["near", "node2"];
    const address = (): string => addressOf(pods, target!, 4);
    const reaches = async (): Promise<void> =>
      assert.equal((await inPod(LAB, "default/client", ["ping", "-c1", "-W0.2", address()])).code, 0);

    before(async () => {
      await startLab(LAB, definition);
      const seconds = far[4] > 0 ? "60" : "3";
      const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait", "--timeout", seconds], WAY_OBJECTS);
      if (far[4] > 0) assert.equal(code, 0, errors);
      else assert.match(errors, /not in force in time: node\d has no route to 10\.244\./);
      pods = await podAddresses(LAB);
    });
    after(() => labDown(LAB, () => undefined));

    test("pods have addresses of their nodes' podCIDRs, and routes lead where flannel's do", async () => {
      assert.deepEqual(
        ["client", "near", "far"].map((pod) => addressOf(pods, pod, 4).replace(/\.\d+$/, "")),
        ["10.244.0", "10.244.1", "10.244.2"],
      );
      const { output } = await onMember(LAB, "node1", ["ip", "route", "get", address()]);
      assert.match(output, backend.route);
      const env = readFileSync(`${nodeFiles(LAB, "node1").runDirectory}/subnet.env`, "utf8");
      assert.match(env, /^FLANNEL_SUBNET=10\.244\.0\.1\/24$/m);
    });

    test("who may reaches whom, whole, in packets as large as they may be, with every header in its place", () =>
      assertWay(LAB, pods, backend));

    test("the nodes try the ways out, and say what they cannot reach", async () => {
      await foundPaths(LAB, "node1", "node2", backend.found.node2);
      await foundPaths(LAB, "node1", "node3", backend.found.node3);
      const { output } = await caracal(LAB, ["node", "status"]);
      const refused =
        /the node of 10\.244\.2\.0\/24 at 192\.0\.2\.75 is not on the segment of eth0, which host-gw needs/;
      assert.equal(refused.test(output), far[4] === 0, output);
    });

    for (const harm of backend.harms) {
      test(`put right within a second: ${harm.join(" ")}`, async () => {
        await eventually(reaches);
        const ping = startPing(LAB, "default/client", address());
        await sleep(100);
        assert.equal((await onMember(LAB, "node1", harm)).code, 0);
        await sleep(300);
        await eventually(reaches, 1000);
        const { lost } = await ping.stop();
        assert.ok(lost * 20 < 1000, `${lost} echoes, one every 20 ms, were lost`);
      });
    }

    test("the wire is cut and mended: what waits for a lost neighbour is sent within a second and a half", async () => {
      const cut = (isCut: boolean): void => setLinkFault(LAB, parseDefinition(definition), node!, { cut: isCut });
      await eventually(reaches);
      cut(true);
      await assert.rejects(reaches());
      await sleep(500);
      cut(false);
      // The kernel asks for a neighbour once a second.
      await eventually(reaches, 1500);
    });

    const outcome = endsWithAgent === true ? "traffic stops until the next one is there" : "no packet is lost";
    test(`an agent is killed, and ${outcome}`, async () => {
      await eventually(reaches);
      const ping = startPing(LAB, "default/client", address());
      await sleep(100);
      const { pid } = await agentReport(LAB, "node1");
      process.kill(pid, "SIGKILL");
      await eventually(async () => assert.notEqual((await agentReport(LAB, "node1")).pid, pid));
      await eventually(async () => assert.ok((await agentReport(LAB, "node1")).ready));
      await eventually(reaches, 1000);
      const { sent, lost } = await ping.stop();
      assert.ok(sent > 10);
      if (endsWithAgent === true) assert.ok(lost > 0, "its relay ends with it");
      else assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
    });
  });
}

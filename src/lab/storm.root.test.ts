import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { createNamespace, deleteNamespace } from "../netlink/namespace.io.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import { labFiles, memberNamespace, nodeFiles, podNamespace } from "./files.ts";
import { agentReport, eventually, startLab } from "./lab.testing.ts";
import { addNetwork, deleteNetwork, type CniRuntime, type ConfigList, type Sandbox } from "./runtime.io.ts";
import { labDown } from "./up.io.ts";

/** 200 containers and more are added and deleted on two nodes whose agents are killed again and again. */

const LAB = "test-storm";
const NODES = ["node1", "node2"];
const CONTAINERS = 200;
const AT_ONCE = 6;
const KILL_EVERY_MS = 400;
const KILLS = 4;
/** Of them so many must have succeeded, or the test has shown nothing. */
const ADDED = 20;
/** However quick the machine is: it ends. */
const MOST_CONTAINERS = 2000;

describe("a storm of ADD and DEL with agents killed", () => {
  before(() => startLab(LAB, { kind: "Lab", segments: [{ subnet: "192.0.2.0/24", nodes: NODES }] }));
  after(async () => {
    await labDown(LAB, () => undefined);
  });

  function runtimeOf(node: string): CniRuntime {
    const files = labFiles(LAB);
    return {
      nodeNetns: memberNamespace(LAB, node),
      pluginDirectories: [files.pluginDirectory],
      conflist: JSON.parse(readFileSync(files.conflist, "utf8")) as ConfigList,
      environment: { CARACAL_RUN_DIR: nodeFiles(LAB, node).runDirectory },
      timeoutMs: 60_000,
    };
  }

  /** As a runtime does: a failed ADD is followed by DEL, and a DEL that fails is called again. */
  async function liveAndDie(
    index: number,
    outcomes: { added: number; failed: number; deletes: number },
  ): Promise<void> {
    const runtime = runtimeOf(NODES[index % NODES.length]!);
    const netns = podNamespace(LAB, "storm", `container-${index}`);
    createNamespace(netns, { loopback: true });
    const sandbox: Sandbox = { containerId: `container-${index}`, netns, interfaceName: "eth0" };
    try {
      const { ips = [] } = await addNetwork(runtime, sandbox);
      assert.equal(ips.length, 1);
      outcomes.added += 1;
    } catch {
      outcomes.failed += 1;
    }
    for (let attempt = 1; ; attempt += 1) {
      try {
        outcomes.deletes += 1;
        await deleteNetwork(runtime, sandbox);
        break;
      } catch (error) {
        if (attempt === 20) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
    deleteNamespace(netns);
  }

  test("no address, veth or route is left behind", async () => {
    const outcomes = { added: 0, failed: 0, deletes: 0 };
    let kills = 0;
    let victim = 0;
    let lives = 0;
    const killer = setInterval(() => {
      victim += 1;
      agentReport(LAB, NODES[victim % NODES.length]!)
        .then(({ pid }) => {
          process.kill(pid, "SIGKILL");
          kills += 1;
        })
        .catch(() => undefined); // it is dead already
    }, KILL_EVERY_MS);
    /** At least so many, and for as long as it takes to kill, and to succeed, often enough. */
    const isWanted = (index: number): boolean =>
      index < CONTAINERS || ((kills < KILLS || outcomes.added < ADDED) && index < MOST_CONTAINERS);
    try {
      let next = 0;
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          for (let index = next++; isWanted(index); index = next++) {
            lives += 1;
            await liveAndDie(index, outcomes);
          }
        }),
      );
    } finally {
      clearInterval(killer);
    }
    assert.ok(kills >= KILLS, `agents were killed ${kills} times`);
    assert.ok(outcomes.added >= ADDED, `${outcomes.added} containers were added`);
    assert.ok(lives >= CONTAINERS, `${lives} containers lived`);
    assert.equal(outcomes.added + outcomes.failed, lives);

    for (const node of NODES) {
      await eventually(async () => assert.ok((await agentReport(LAB, node)).ready));
      await eventually(async () =>
        assert.equal((await agentReport(LAB, node)).endpoints, 0, `${node} has no endpoint`),
      );
      const rtnetlink = openRtnetlink(memberNamespace(LAB, node));
      try {
        await eventually(() => {
          const links = rtnetlink
            .links()
            .map(({ name }) => name)
            .filter((name) => name.startsWith("cali"));
          assert.deepEqual(links, [], `${node} has no pod interface`);
        });
        const routes = rtnetlink
          .routes({ family: 4, table: TABLE_MAIN })
          .filter(({ destination }) => destination.length === 32);
        assert.deepEqual(routes, [], `${node} has no pod route`);
      } finally {
        rtnetlink.close();
      }
    }
    const datastore = kubernetesDatastore({ socketPath: labFiles(LAB).apiSocket });
    try {
      await eventually(async () => {
        const { items } = await datastore.list("IPAMBlock");
        const taken = items.flatMap(({ spec }) => spec.allocations.filter((attribute) => attribute !== null));
        assert.deepEqual(taken, [], "no address is taken");
      });
    } finally {
      datastore.close();
    }
  });
});

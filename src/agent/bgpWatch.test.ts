import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Datastore } from "../datastore/datastore.ts";
import { memoryDatastore } from "../datastore/memory.ts";
import type { CalicoNodeStatus } from "../resources/bgp.ts";
import type { Secret } from "../resources/secret.ts";
import { createBgpSecrets } from "./bgpSecrets.io.ts";
import { reportNodeStatus } from "./nodeStatus.io.ts";

/** What a node's BGP follows in the datastore besides its configuration: Secrets, and requests for its status. */

function openDatastore(): Datastore {
  let uids = 0;
  return memoryDatastore({ now: () => 1_800_000_000_000, uid: () => String((uids += 1)).padStart(36, "0") });
}

async function until(check: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 3000;
  while (!(await check())) {
    assert.ok(performance.now() < deadline, "it takes too long");
    await sleep(2);
  }
}

describe("Secrets with passwords", () => {
  const secret = (name: string, stringData: Record<string, string>): Secret => ({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name, namespace: "kube-system" },
    stringData,
  });

  test("are followed by their names, and others are not read", async () => {
    const datastore = openDatastore();
    await datastore.create("Secret", secret("bgp", { tor: "one" }));
    await datastore.create("Secret", secret("others", { key: "none of our business" }));
    const seen: string[] = [];
    const spied: Datastore = {
      ...datastore,
      list(kind, selection) {
        seen.push(`${kind} ${selection?.namespace} ${selection?.fieldSelector}`);
        return datastore.list(kind, selection);
      },
    };
    let changes = 0;
    const secrets = createBgpSecrets({
      datastore: spied,
      namespace: "kube-system",
      onChange: () => (changes += 1),
      log: () => undefined,
    });
    try {
      assert.equal(secrets.known(), true, "nothing is asked for");
      secrets.follow(["bgp"]);
      assert.equal(secrets.known(), false);
      assert.equal(secrets.value("bgp", "tor"), undefined);
      await until(() => secrets.known());
      assert.equal(secrets.value("bgp", "tor"), "one");
      assert.equal(secrets.value("bgp", "mesh"), undefined);
      assert.equal(secrets.value("others", "key"), undefined);
      const before = changes;
      await datastore.patch("Secret", "bgp", "kube-system", { stringData: { tor: "two" } });
      await until(() => secrets.value("bgp", "tor") === "two");
      assert.ok(changes > before);
      await datastore.delete("Secret", "bgp", "kube-system");
      await until(() => secrets.value("bgp", "tor") === undefined);
      await datastore.create("Secret", secret("bgp", { tor: "three" }));
      await until(() => secrets.value("bgp", "tor") === "three");
      secrets.follow([]);
      assert.equal(secrets.value("bgp", "tor"), undefined, "it is let go of");
      assert.deepEqual(seen, ["Secret kube-system metadata.name=bgp"]);
    } finally {
      secrets.stop();
    }
  });

  test("that are not there are known not to be there", async () => {
    const secrets = createBgpSecrets({
      datastore: openDatastore(),
      namespace: "kube-system",
      onChange: () => undefined,
      log: () => undefined,
    });
    try {
      secrets.follow(["gone"]);
      await until(() => secrets.known());
      assert.equal(secrets.value("gone", "key"), undefined);
    } finally {
      secrets.stop();
    }
  });
});

describe("a CalicoNodeStatus", () => {
  const wish = (name: string, spec: CalicoNodeStatus["spec"]): CalicoNodeStatus => ({
    apiVersion: "projectcalico.org/v3",
    kind: "CalicoNodeStatus",
    metadata: { name },
    spec,
  });

  test("of this node is answered once, or as often as it wants; and another's is left alone", async () => {
    const datastore = openDatastore();
    await datastore.create(
      "CalicoNodeStatus",
      wish("once", { node: "node1", classes: ["BGP"], updatePeriodSeconds: 0 }),
    );
    await datastore.create(
      "CalicoNodeStatus",
      wish("other", { node: "node2", classes: ["BGP"], updatePeriodSeconds: 1 }),
    );
    const asked: string[] = [];
    const end = reportNodeStatus(
      datastore,
      "node1",
      (classes) => {
        asked.push(classes.join());
        return { lastUpdated: `2026-03-01T12:00:${String(asked.length).padStart(2, "0")}Z` };
      },
      (_level, message, fields) => assert.fail(`${message} ${JSON.stringify(fields)}`),
      20,
    );
    const updated = async (name: string): Promise<string | undefined> =>
      (await datastore.get("CalicoNodeStatus", name))?.status?.lastUpdated;
    try {
      await until(async () => (await updated("once")) !== undefined);
      assert.deepEqual(asked, ["BGP"]);
      await datastore.create(
        "CalicoNodeStatus",
        wish("often", { node: "node1", classes: ["Agent"], updatePeriodSeconds: 1 }),
      );
      await until(() => asked.length >= 3);
      assert.deepEqual(asked.slice(0, 3), ["BGP", "Agent", "Agent"], "our own answers are no new requests");
      await datastore.patch("CalicoNodeStatus", "once", undefined, { spec: { classes: ["Routes"] } });
      await until(() => asked.includes("Routes"));
      assert.equal(await updated("other"), undefined);
      await datastore.delete("CalicoNodeStatus", "often");
      await until(async () => (await updated("once"))?.endsWith("Z") === true);
      const count = asked.length;
      await sleep(60);
      assert.equal(asked.length, count, "nobody asks any more");
    } finally {
      end();
    }
  });
});

/** What every datastore must do: one suite for all of them. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { KIND, type KindId, type Kinds } from "../resources/registry.ts";
import { compareVersions, DatastoreError, type Datastore, type DatastoreCode, type WatchEvent } from "./datastore.ts";

export interface Subject {
  readonly datastore: Datastore;
  close(): Promise<void>;
}

export interface ConformanceOptions {
  /** Forgets old changes when it holds more than a few, so that the test of `gone` need not write thousands. */
  readonly shortHistory: () => Promise<Subject>;
}

export function aPool(name: string, cidr = "10.244.0.0/16"): Kinds["IPPool"] {
  return KIND.IPPool.parse({ apiVersion: "projectcalico.org/v3", kind: "IPPool", metadata: { name }, spec: { cidr } });
}

export function aPod(
  name: string,
  more: { namespace?: string; labels?: Record<string, string>; node?: string } = {},
): Kinds["Pod"] {
  return KIND.Pod.parse({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: more.namespace ?? "default", labels: more.labels ?? {} },
    spec: {
      containers: [{ name: "main", image: "echo" }],
      ...(more.node === undefined ? {} : { nodeName: more.node }),
    },
  });
}

export function aNamespace(name: string): Kinds["Namespace"] {
  return KIND.Namespace.parse({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
}

const refusedWith =
  (code: DatastoreCode) =>
  (thrown: unknown): boolean => {
    assert.ok(thrown instanceof DatastoreError, String(thrown));
    assert.equal(thrown.code, code, thrown.message);
    return true;
  };

/** What matters of an event, as text: `added web`. */
const summary = (event: WatchEvent<{ metadata: { name: string } }>): string =>
  event.type === "bookmark" ? "bookmark" : `${event.type} ${event.object.metadata.name}`;

/** Follows a watch in the background, leaving bookmarks out. */
export function follow<K extends KindId>(
  datastore: Datastore,
  kind: K,
  options: { resourceVersion: string; labelSelector?: string; fieldSelector?: string; namespace?: string },
) {
  const controller = new AbortController();
  const seen: string[] = [];
  const versions: string[] = [];
  let wake = Promise.withResolvers<void>();
  const ended = (async () => {
    for await (const event of datastore.watch(kind, { ...options, signal: controller.signal })) {
      if (event.type === "bookmark") continue;
      seen.push(summary(event));
      versions.push(event.resourceVersion);
      wake.resolve();
      wake = Promise.withResolvers<void>();
    }
  })();
  return {
    seen,
    versions,
    async until(count: number): Promise<string[]> {
      while (seen.length < count) await Promise.race([wake.promise, ended]);
      return seen;
    },
    async stop(): Promise<void> {
      controller.abort();
      await ended;
    },
  };
}

export function datastoreConformance(name: string, open: () => Promise<Subject>, options: ConformanceOptions): void {
  describe(`${name} as a datastore`, () => {
    const check = (title: string, body: (datastore: Datastore) => Promise<void>, make = open): void => {
      test(title, async () => {
        const subject = await make();
        try {
          await body(subject.datastore);
        } finally {
          await subject.close();
        }
      });
    };

    check("what is created can be read, with what the datastore adds", async (datastore) => {
      const created = await datastore.create("IPPool", aPool("pool-a"));
      assert.match(created.metadata.uid ?? "", /^[0-9a-f]{8}-/);
      assert.match(created.metadata.creationTimestamp ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
      assert.equal(created.metadata.generation, 1);
      assert.equal(created.spec.cidr, "10.244.0.0/16");
      assert.deepEqual(await datastore.get("IPPool", "pool-a"), created);
      assert.equal(await datastore.get("IPPool", "pool-b"), undefined);
      assert.equal(await datastore.get("Pod", "pool-a", "default"), undefined);
    });

    check("a name is taken once in its kind and namespace", async (datastore) => {
      await datastore.create("Pod", aPod("web"));
      await assert.rejects(datastore.create("Pod", aPod("web")), refusedWith("already-exists"));
      await datastore.create("Pod", aPod("web", { namespace: "kube-system" }));
      assert.equal((await datastore.list("Pod")).items.length, 2);
      assert.equal((await datastore.list("Pod", { namespace: "kube-system" })).items.length, 1);
    });

    check("generateName makes up a name", async (datastore) => {
      const pod = aPod("unnamed");
      const [one, two] = await Promise.all(
        ["a", "b"].map(() =>
          datastore.create("Pod", { ...pod, metadata: { namespace: "default", name: "", generateName: "web-" } }),
        ),
      );
      assert.match(one!.metadata.name, /^web-[a-z0-9]{5}$/);
      assert.notEqual(one!.metadata.name, two!.metadata.name);
    });

    check("an update needs the version that the object is at", async (datastore) => {
      const first = await datastore.create("IPPool", aPool("pool-a"));
      const second = await datastore.update("IPPool", { ...first, spec: { ...first.spec, disabled: true } });
      assert.ok(compareVersions(second.metadata.resourceVersion!, first.metadata.resourceVersion!) > 0);
      assert.equal(second.metadata.generation, 2);
      assert.equal(second.metadata.uid, first.metadata.uid);
      await assert.rejects(datastore.update("IPPool", first), refusedWith("conflict"));
      const { resourceVersion: _, ...metadata } = second.metadata;
      await assert.rejects(datastore.update("IPPool", { ...second, metadata }), refusedWith("invalid"));
      await assert.rejects(
        datastore.update("IPPool", { ...second, metadata: { ...second.metadata, name: "pool-z" } }),
        refusedWith("not-found"),
      );
      assert.deepEqual(await datastore.get("IPPool", "pool-a"), second);
    });

    check("an update that changes nothing is no new version", async (datastore) => {
      const first = await datastore.create("IPPool", aPool("pool-a"));
      assert.deepEqual(await datastore.update("IPPool", first), first);
      const labelled = { ...first, metadata: { ...first.metadata, labels: { a: "b" } } };
      const second = await datastore.update("IPPool", labelled);
      assert.notEqual(second.metadata.resourceVersion, first.metadata.resourceVersion);
      assert.equal(second.metadata.generation, 1, "labels are not part of what a generation counts");
    });

    check("status is apart from the rest", async (datastore) => {
      const born = { ...aPod("web"), status: { phase: "Running" } } as Kinds["Pod"];
      const created = await datastore.create("Pod", born);
      assert.equal(created.status?.phase, "Pending");
      const running = await datastore.updateStatus("Pod", {
        ...created,
        metadata: { ...created.metadata, labels: { ignored: "yes" } },
        spec: { ...created.spec, nodeName: "ignored" },
        status: { phase: "Running", podIP: "10.244.0.5" },
      });
      assert.equal(running.status?.phase, "Running");
      assert.equal(running.spec.nodeName, undefined);
      assert.equal(running.metadata.labels?.["ignored"], undefined);
      assert.equal(running.metadata.generation, 1);
      const bound = await datastore.update("Pod", {
        ...running,
        spec: { ...running.spec, nodeName: "node1" },
        status: { phase: "Failed" },
      });
      assert.equal(bound.spec.nodeName, "node1");
      assert.equal(bound.status?.podIP, "10.244.0.5");
      await assert.rejects(datastore.updateStatus("Pod", created), refusedWith("conflict"));
    });

    check("a patch changes what it names, without a version to compare", async (datastore) => {
      const created = await datastore.create("Pod", aPod("web", { labels: { app: "web", old: "1" } }));
      const patched = await datastore.patch("Pod", "web", "default", {
        metadata: { labels: { old: null }, annotations: { "cni.projectcalico.org/podIP": "10.244.0.5/32" } },
      });
      assert.deepEqual(patched.metadata.labels, { app: "web" });
      assert.equal(patched.metadata.annotations?.["cni.projectcalico.org/podIP"], "10.244.0.5/32");
      assert.deepEqual(patched.spec, created.spec);
      const status = await datastore.patch("Pod", "web", "default", { status: { phase: "Running" } }, { status: true });
      assert.equal(status.status?.phase, "Running");
      const { resourceVersion } = created.metadata;
      await assert.rejects(datastore.patch("Pod", "web", "default", {}, { resourceVersion }), refusedWith("conflict"));
      await assert.rejects(datastore.patch("Pod", "web", "default", {}, { uid: "another" }), refusedWith("conflict"));
      await assert.rejects(datastore.patch("Pod", "api", "default", {}), refusedWith("not-found"));
      await assert.rejects(datastore.patch("IPPool", "web", undefined, {}), refusedWith("not-found"));
    });

    check("what breaks the rules of its kind is refused with the path of the field", async (datastore) => {
      const bad = { ...aPool("pool-a"), spec: { ...aPool("pool-a").spec, cidr: "10.244.0.0/40" } };
      await assert.rejects(datastore.create("IPPool", bad), (thrown) => {
        refusedWith("invalid")(thrown);
        assert.ok(thrown instanceof DatastoreError);
        assert.deepEqual(
          thrown.causes.map((cause) => cause.field),
          ["spec.cidr"],
        );
        return true;
      });
      await datastore.create("IPPool", aPool("pool-a"));
      const moved = datastore.patch("IPPool", "pool-a", undefined, { spec: { cidr: "10.200.0.0/16" } });
      await assert.rejects(moved, refusedWith("invalid"), "a pool's cidr is fixed");
      assert.equal((await datastore.get("IPPool", "pool-a"))?.spec.cidr, "10.244.0.0/16");
    });

    check("a deletion can be held to a version and to a uid", async (datastore) => {
      const first = await datastore.create("IPPool", aPool("pool-a"));
      const { uid, resourceVersion } = first.metadata;
      await datastore.patch("IPPool", "pool-a", undefined, { spec: { disabled: true } });
      await assert.rejects(
        datastore.delete("IPPool", "pool-a", undefined, { resourceVersion }),
        refusedWith("conflict"),
      );
      await assert.rejects(
        datastore.delete("IPPool", "pool-a", undefined, { uid: "another" }),
        refusedWith("conflict"),
      );
      const last = await datastore.delete("IPPool", "pool-a", undefined, { uid });
      assert.equal(last?.spec.disabled, true);
      assert.equal(await datastore.get("IPPool", "pool-a"), undefined);
      await assert.rejects(datastore.delete("IPPool", "pool-a"), refusedWith("not-found"));
      const again = await datastore.create("IPPool", aPool("pool-a"));
      assert.notEqual(again.metadata.uid, uid);
    });

    check("finalizers hold an object that is being deleted", async (datastore) => {
      const pool = aPool("pool-a");
      await datastore.create("IPPool", {
        ...pool,
        metadata: { ...pool.metadata, finalizers: ["caracal.dev/addresses"] },
      });
      const leaving = await datastore.delete("IPPool", "pool-a");
      assert.match(leaving?.metadata.deletionTimestamp ?? "", /^\d{4}-/);
      const held = await datastore.get("IPPool", "pool-a");
      assert.equal(held?.metadata.deletionTimestamp, leaving?.metadata.deletionTimestamp);
      const more = { metadata: { finalizers: ["caracal.dev/addresses", "caracal.dev/more"] } };
      await assert.rejects(datastore.patch("IPPool", "pool-a", undefined, more), refusedWith("invalid"));
      const { resourceVersion } = await datastore.list("IPPool");
      const watch = follow(datastore, "IPPool", { resourceVersion });
      await datastore.patch("IPPool", "pool-a", undefined, { metadata: { finalizers: null } });
      assert.deepEqual(await watch.until(1), ["deleted pool-a"]);
      await watch.stop();
      assert.equal(await datastore.get("IPPool", "pool-a"), undefined);
    });

    check("a namespace must exist, and takes its contents with it", async (datastore) => {
      await assert.rejects(datastore.create("Pod", aPod("web", { namespace: "shop" })), refusedWith("not-found"));
      await datastore.create("Namespace", aNamespace("shop"));
      await datastore.create("Pod", aPod("web", { namespace: "shop" }));
      await datastore.create("Pod", aPod("web"));
      await datastore.delete("Namespace", "shop");
      assert.deepEqual(
        (await datastore.list("Pod")).items.map((pod) => pod.metadata.namespace),
        ["default"],
      );
      assert.equal(await datastore.get("Namespace", "shop"), undefined);
      await assert.rejects(datastore.delete("Namespace", "default"), refusedWith("forbidden"));
    });

    check("a namespace waits for contents that finalizers hold", async (datastore) => {
      await datastore.create("Namespace", aNamespace("shop"));
      const pod = aPod("web", { namespace: "shop" });
      await datastore.create("Pod", { ...pod, metadata: { ...pod.metadata, finalizers: ["caracal.dev/hold"] } });
      await datastore.delete("Namespace", "shop");
      assert.equal((await datastore.get("Namespace", "shop"))?.status?.phase, "Terminating");
      await assert.rejects(datastore.create("Pod", aPod("api", { namespace: "shop" })), refusedWith("forbidden"));
      await datastore.patch("Pod", "web", "shop", { metadata: { finalizers: [] } });
      assert.equal(await datastore.get("Namespace", "shop"), undefined);
    });

    check("lists select by label and by field", async (datastore) => {
      await datastore.create("Pod", aPod("a", { labels: { app: "web", tier: "front" }, node: "node1" }));
      await datastore.create("Pod", aPod("b", { labels: { app: "web" }, node: "node2" }));
      await datastore.create("Pod", aPod("c", { labels: { app: "db" } }));
      const names = async (selection: { labelSelector?: string; fieldSelector?: string }): Promise<string[]> =>
        (await datastore.list("Pod", selection)).items.map((pod) => pod.metadata.name).toSorted();
      assert.deepEqual(await names({ labelSelector: "app=web" }), ["a", "b"]);
      assert.deepEqual(await names({ labelSelector: "app in (web, db),!tier" }), ["b", "c"]);
      assert.deepEqual(await names({ fieldSelector: "spec.nodeName=node1" }), ["a"]);
      assert.deepEqual(await names({ fieldSelector: "spec.nodeName!=node1,metadata.name!=c" }), ["b"]);
      assert.deepEqual(await names({ fieldSelector: "status.phase=Pending", labelSelector: "app=db" }), ["c"]);
      await assert.rejects(names({ fieldSelector: "spec.nodename=x" }), refusedWith("invalid"));
      await assert.rejects(names({ labelSelector: "app in web" }), refusedWith("invalid"));
    });

    check("a watch sees every change after its version, once, in order", async (datastore) => {
      await datastore.create("IPPool", aPool("before", "10.1.0.0/16"));
      const { resourceVersion } = await datastore.list("IPPool");
      await datastore.create("IPPool", aPool("a", "10.2.0.0/16"));
      const watch = follow(datastore, "IPPool", { resourceVersion });
      await watch.until(1);
      await datastore.patch("IPPool", "a", undefined, { spec: { disabled: true } });
      await datastore.create("Pod", aPod("unrelated"));
      await datastore.delete("IPPool", "before");
      assert.deepEqual(await watch.until(3), ["added a", "modified a", "deleted before"]);
      await watch.stop();
      assert.deepEqual(watch.versions, watch.versions.toSorted(compareVersions));

      const resumed = follow(datastore, "IPPool", { resourceVersion: watch.versions[0]! });
      assert.deepEqual(await resumed.until(2), ["modified a", "deleted before"]);
      await resumed.stop();
    });

    check("in a watch with a selection, objects enter and leave it", async (datastore) => {
      const { resourceVersion } = await datastore.list("Pod");
      const byLabel = follow(datastore, "Pod", { resourceVersion, labelSelector: "app=web" });
      const byNode = follow(datastore, "Pod", { resourceVersion, fieldSelector: "spec.nodeName=node1" });
      await datastore.create("Pod", aPod("a", { labels: { app: "web" } }));
      await datastore.patch("Pod", "a", "default", { spec: { nodeName: "node1" } });
      await datastore.patch("Pod", "a", "default", { metadata: { labels: { app: "db" } } });
      await datastore.create("Pod", aPod("b", { labels: { app: "db" } }));
      await datastore.patch("Pod", "b", "default", { metadata: { labels: { app: "web" } } });
      await datastore.delete("Pod", "a", "default");
      assert.deepEqual(await byLabel.until(4), ["added a", "modified a", "deleted a", "added b"]);
      assert.deepEqual(await byNode.until(3), ["added a", "modified a", "deleted a"]);
      await byLabel.stop();
      await byNode.stop();
    });

    check(
      "a watch from an unknown version is refused as gone, or as malformed",
      async (datastore) => {
        const first = await datastore.create("IPPool", aPool("a"));
        const follower = (resourceVersion: string): Promise<string[]> =>
          follow(datastore, "IPPool", { resourceVersion }).until(1);
        for (let round = 0; round < 350; round += 1) {
          await datastore.patch("IPPool", "a", undefined, { metadata: { labels: { round: String(round) } } });
        }
        await assert.rejects(follower(first.metadata.resourceVersion!), refusedWith("gone"));
        await assert.rejects(follower("999999999"), refusedWith("gone"));
        await assert.rejects(follower("yesterday"), refusedWith("invalid"));
      },
      options.shortHistory,
    );

    check("of many who compare and swap at once, one wins each round", async (datastore) => {
      await datastore.create("IPPool", aPool("a"));
      const increment = async (): Promise<void> => {
        for (;;) {
          const pool = (await datastore.get("IPPool", "a"))!;
          const labels = { count: String(Number(pool.metadata.labels?.["count"] ?? 0) + 1) };
          try {
            await datastore.update("IPPool", { ...pool, metadata: { ...pool.metadata, labels } });
            return;
          } catch (thrown) {
            refusedWith("conflict")(thrown);
          }
        }
      };
      await Promise.all(Array.from({ length: 20 }, increment));
      assert.equal((await datastore.get("IPPool", "a"))?.metadata.labels?.["count"], "20");
    });
  });
}

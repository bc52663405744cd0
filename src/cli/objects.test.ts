import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, test } from "node:test";
import type { Datastore } from "../datastore/datastore.ts";
import { memoryDatastore } from "../datastore/memory.ts";
import { apply } from "./apply.io.ts";
import { deleteObjects } from "./delete.io.ts";
import { get, type GetArguments } from "./get.io.ts";
import { formatTable } from "./table.ts";

const NOW = Date.now();

function shell() {
  let uids = 0;
  const datastore: Datastore = memoryDatastore({
    now: () => NOW,
    uid: () => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`,
  });
  const said = { output: "", errors: "" };
  const console = (input = "") => {
    said.output = "";
    said.errors = "";
    return {
      input: Readable.from([input]),
      output: { write: (text: string) => (said.output += text) },
      errors: { write: (text: string) => (said.errors += text) },
    };
  };
  return {
    datastore,
    said,
    apply: (input: string, namespace?: string) => apply(datastore, { files: ["-"], namespace }, console(input)),
    deleteAll: (input: string) => deleteObjects(datastore, { files: ["-"], names: [] }, console(input)),
    deleteNamed: (kind: string, ...names: string[]) => deleteObjects(datastore, { files: [], kind, names }, console()),
    get: (args: GetArguments) => get(datastore, args, console()),
    console,
  };
}

const POD = `
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  containers: [{ name: main, image: echo, ports: [{ containerPort: 80 }] }]
`;
const POOL = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: pool-a }
spec: { cidr: 10.244.0.0/16, natOutgoing: true }
`;
const SHOP = "apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n";

describe("apply", () => {
  test("creates, then leaves what the system set, and changes what the manifest says", async () => {
    const { datastore, said, apply: run } = shell();
    const first = await run(`${POD}---${POOL}`);
    assert.equal(said.output, "ippool.projectcalico.org/pool-a created\npod/web created\n");
    assert.deepEqual(
      first.applied.map(({ kindId, name, namespace, action }) => ({ kindId, name, namespace, action })),
      [
        { kindId: "IPPool", name: "pool-a", namespace: undefined, action: "created" },
        { kindId: "Pod", name: "web", namespace: "default", action: "created" },
      ],
    );
    await datastore.patch("Pod", "web", "default", {
      spec: { nodeName: "node1" },
      metadata: { annotations: { "cni.projectcalico.org/podIP": "10.244.0.5/32" } },
    });
    await datastore.patch("Pod", "web", "default", { status: { phase: "Running" } }, { status: true });

    const again = await run(`${POD}---${POOL}`);
    assert.equal(said.output, "ippool.projectcalico.org/pool-a unchanged\npod/web unchanged\n");
    assert.equal(
      again.applied[1]?.resourceVersion,
      (await datastore.get("Pod", "web", "default"))?.metadata.resourceVersion,
    );

    await run(`${POD.replace("app: web", "app: shop")}---${POOL.replace("natOutgoing: true", "disabled: true")}`);
    assert.equal(said.output, "ippool.projectcalico.org/pool-a configured\npod/web configured\n");
    const pod = await datastore.get("Pod", "web", "default");
    assert.partialDeepStrictEqual(pod, {
      metadata: { labels: { app: "shop" }, annotations: { "cni.projectcalico.org/podIP": "10.244.0.5/32" } },
      spec: { nodeName: "node1" },
      status: { phase: "Running" },
    });
    assert.partialDeepStrictEqual(await datastore.get("IPPool", "pool-a"), {
      spec: { natOutgoing: false, disabled: true },
    });
  });

  test("takes a namespace and what is in it in one go", async () => {
    const { said, apply: run } = shell();
    const { failures } = await run(`${POD.replace("name: web,", "name: web, namespace: shop,")}---\n${SHOP}`);
    assert.equal(failures, 0, said.errors);
    assert.equal(said.output, "namespace/shop created\npod/web created\n");
  });

  test("does nothing when anything is wrong", async () => {
    const { datastore, said, apply: run } = shell();
    await assert.rejects(
      run(`${POOL}---${POD.replace("image", "imgae")}`),
      /standard input, document 2, line \d+: Pod "web": spec\.containers\[0\]\.imgae/,
    );
    assert.equal(said.output, "");
    assert.deepEqual((await datastore.list("IPPool")).items, []);
  });

  test("reports what the datastore refuses, and goes on with the rest", async () => {
    const { said, apply: run } = shell();
    const outcome = await run(`${POD}---${POOL}`, "shop");
    assert.equal(outcome.failures, 1);
    assert.match(
      said.errors,
      /^standard input, document 1, line 2: cannot apply pod\/web: namespaces "shop" not found\n$/,
    );
    assert.equal(said.output, "ippool.projectcalico.org/pool-a created\n");
  });

  test("reads files and directories", async () => {
    const directory = mkdtempSync(join(tmpdir(), "caracal-apply-"));
    try {
      writeFileSync(join(directory, "b.yaml"), POD);
      writeFileSync(join(directory, "a.yml"), POOL);
      writeFileSync(join(directory, "notes.txt"), "not a manifest");
      const { datastore, said, console } = shell();
      await apply(datastore, { files: [directory] }, console());
      assert.equal(said.output, "ippool.projectcalico.org/pool-a created\npod/web created\n");
      await assert.rejects(
        apply(datastore, { files: [join(directory, "none.yaml")] }, console()),
        /Cannot read .*none\.yaml: .*ENOENT/,
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("delete", () => {
  test("goes backwards through a manifest", async () => {
    const { datastore, said, apply: run, deleteAll } = shell();
    await run(`${POD}---${POOL}`);
    const { deleted } = await deleteAll(`${POOL}---${POD}`);
    assert.equal(said.output, 'pod "web" deleted\nippool.projectcalico.org "pool-a" deleted\n');
    assert.deepEqual(
      deleted.map(({ kindId, name }) => `${kindId} ${name}`),
      ["Pod web", "IPPool pool-a"],
    );
    assert.deepEqual((await datastore.list("Pod")).items, []);
  });

  test("takes kinds as people write them, and says what is not there", async () => {
    const { said, apply: run, deleteNamed } = shell();
    await run(POD);
    const { failures } = await deleteNamed("po", "web", "api");
    assert.equal(failures, 1);
    assert.equal(said.output, 'pod "web" deleted\n');
    assert.equal(said.errors, 'cannot delete pod "api": pods "api" not found\n');
    await assert.rejects(
      deleteNamed("ipools", "a"),
      /there is no kind of object called "ipools", did you mean "ippools"/,
    );
    await assert.rejects(deleteNamed("pods"), /names of what to delete/);
  });
});

describe("get", () => {
  test("shows tables as kubectl does", async () => {
    const { said, apply: run, get: show } = shell();
    await run(`${POD}---${POOL}`);
    await show({ kind: "pods" });
    assert.match(said.output, /^NAME {3}STATUS .*AGE\nweb {4}Pending .*\d+s\n$/);
    await show({ kind: "pods", allNamespaces: true });
    assert.match(said.output, /^NAMESPACE {3}NAME .*\ndefault {5}web /);
    await show({ kind: "po,pools" });
    assert.match(said.output, /^NAME .*\npod\/web .*\n\nNAME .*\nippool\.projectcalico\.org\/pool-a /);
    await show({ kind: "pods", namespace: "kube-system" });
    assert.deepEqual(said, { output: "", errors: "No resources found in kube-system namespace.\n" });
    await show({ kind: "pods", selector: "app!=web" });
    assert.equal(said.errors, "No resources found in default namespace.\n");
  });

  test("gives names, YAML and JSON", async () => {
    const { said, apply: run, get: show } = shell();
    await run(`${POD}---${POOL}`);
    await show({ kind: "ippool", output: "name" });
    assert.equal(said.output, "ippool.projectcalico.org/pool-a\n");
    await show({ kind: "pod", name: "web", output: "json" });
    assert.partialDeepStrictEqual(JSON.parse(said.output), { kind: "Pod", metadata: { name: "web" } });
    await show({ kind: "pods", output: "json" });
    assert.partialDeepStrictEqual(JSON.parse(said.output), { kind: "List", items: [{ kind: "Pod" }] });
    await show({ kind: "pod", name: "web", output: "yaml" });
    assert.match(said.output, /^apiVersion: v1\nkind: Pod\n/);
    await assert.rejects(show({ kind: "pod", name: "api" }), /^DatastoreError: pods "api" not found$/);
  });
});

test("columns are as wide as what is in them", () => {
  assert.equal(
    formatTable(
      ["A", "LONG", "C"],
      [
        ["aaaa", "", "x"],
        ["b", "c", ""],
      ],
    ),
    "A      LONG     C\naaaa   <none>   x\nb      c        <none>\n",
  );
});

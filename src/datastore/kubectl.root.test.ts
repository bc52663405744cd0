/** The real `kubectl` against the embedded API server. */
import assert from "node:assert/strict";
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startServer, type ServerProcess } from "./apiserver.testing.ts";

const KUBECTL = "kubectl";
const missing = spawnSync(KUBECTL, ["version", "--client"]).error !== undefined;

const MANIFEST = `
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: web } }
spec:
  containers:
    - { name: main, image: echo, ports: [{ containerPort: 80 }] }
    - { name: side, image: echo }
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: pool-a }
spec: { cidr: 10.244.0.0/16, natOutgoing: true }
`;

describe("kubectl", { skip: missing ? "kubectl is not on the PATH" : false }, () => {
  const directory = join(tmpdir(), `caracal-kubectl-${process.pid}`);
  const manifest = join(directory, "manifest.yaml");
  const environment = { ...process.env, KUBECONFIG: join(directory, "kubeconfig"), HOME: directory };
  let server: ServerProcess;
  before(async () => {
    mkdirSync(directory, { mode: 0o700 });
    server = await startServer(["--data", directory, "--listen", "127.0.0.1:0"]);
  });
  after(async () => {
    await server.end("SIGTERM");
    rmSync(directory, { recursive: true });
  });

  function kubectl(...argv: string[]): Promise<{ code: number; output: string }> {
    return new Promise((resolve) => {
      execFile(KUBECTL, argv, { env: environment, timeout: 20_000 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
        resolve({ code, output: `${stdout}${stderr}` });
      });
    });
  }

  const steps: { run: string[]; text?: string; shows: RegExp; fails?: true }[] = [
    { run: ["api-resources"], shows: /^ippools +ipp.* +projectcalico\.org\/v3 +false +IPPool$/m },
    {
      run: ["apply", "-f", manifest],
      text: MANIFEST,
      shows: /^pod\/web created\nippool\.projectcalico\.org\/pool-a created\n$/,
    },
    { run: ["apply", "-f", manifest], shows: /^pod\/web unchanged\nippool\.projectcalico\.org\/pool-a unchanged\n$/ },
    { run: ["get", "pods"], shows: /^NAME +.*AGE\nweb +/ },
    { run: ["get", "pods", "-A", "-o", "wide"], shows: /^NAMESPACE +NAME.*\ndefault +web/ },
    { run: ["get", "ippools", "-o", "name"], shows: /^ippool\.projectcalico\.org\/pool-a$/m },
    { run: ["get", "pod", "web", "-o", "jsonpath={.status.phase}"], shows: /^Pending$/ },
    { run: ["get", "pods", "-l", "app!=web"], shows: /No resources found/ },
    { run: ["get", "pods", "--field-selector", "spec.nodeName=node1"], shows: /No resources found/ },
    { run: ["label", "pod", "web", "tier=front"], shows: /^pod\/web labeled/ },
    { run: ["annotate", "ippool", "pool-a", "note=1"], shows: /annotated/ },
    {
      run: ["apply", "-f", manifest],
      text: MANIFEST.replace("app: web", "app: shop").replace("natOutgoing: true", "disabled: true"),
      shows: /^pod\/web configured\nippool\.projectcalico\.org\/pool-a configured\n$/,
    },
    { run: ["get", "pod", "web", "-o", "jsonpath={.metadata.labels}"], shows: /^\{"app":"shop","tier":"front"\}$/ },
    {
      run: [
        "get",
        "ippool",
        "pool-a",
        "-o",
        "jsonpath={.spec.natOutgoing} {.spec.disabled} {.metadata.annotations.note}",
      ],
      shows: /^false true 1$/,
    },
    { run: ["patch", "ippool", "pool-a", "--type=merge", "-p", '{"spec":{"disabled":false}}'], shows: /patched$/m },
    {
      run: ["patch", "ippool", "pool-a", "--type=json", "-p", '[{"op":"test","path":"/spec/disabled","value":true}]'],
      shows: /not the one tested for/,
      fails: true,
    },
    { run: ["patch", "pod", "web", "-p", '{"metadata":{"labels":{"patched":"yes"}}}'], shows: /patched$/m },
    { run: ["create", "namespace", "shop", "--dry-run=server"], shows: /namespace\/shop created \(server dry run\)/ },
    { run: ["create", "namespace", "shop"], shows: /^namespace\/shop created/ },
    { run: ["create", "serviceaccount", "bob", "-n", "shop"], shows: /^serviceaccount\/bob created/ },
    { run: ["create", "-f", manifest], shows: /pods "web" already exists/, fails: true },
    {
      run: ["apply", "-f", manifest],
      text: MANIFEST.replace("natOutgoing", "natOutging"),
      shows: /The IPPool "pool-a" is invalid: spec\.natOutging: .*did you mean "natOutgoing"/,
      fails: true,
    },
    { run: ["get", "pod", "nope"], shows: /Error from server \(NotFound\): pods "nope" not found/, fails: true },
    { run: ["delete", "namespace", "shop"], shows: /^namespace "shop" deleted/ },
    { run: ["get", "serviceaccounts", "-n", "shop"], shows: /No resources found/ },
  ];
  test("applies, gets, patches, labels and refuses as it does with Kubernetes", async () => {
    for (const { run, text, shows, fails } of steps) {
      if (text !== undefined) writeFileSync(manifest, text);
      const { code, output } = await kubectl(...run);
      assert.match(output, shows, `kubectl ${run.join(" ")}`);
      assert.equal(code !== 0, fails ?? false, `kubectl ${run.join(" ")} exits with ${code}: ${output}`);
    }
  });

  test("watches, and sees what is deleted", async () => {
    const watch = spawn(KUBECTL, ["get", "ippools", "-w", "--output-watch-events"], {
      env: environment,
      stdio: ["ignore", "pipe", "inherit"],
    });
    let shown = "";
    watch.stdout.on("data", (chunk) => (shown += String(chunk)));
    try {
      await once(watch.stdout, "data");
      writeFileSync(manifest, MANIFEST);
      assert.equal(
        (await kubectl("delete", "-f", manifest)).output,
        'pod "web" deleted\nippool.projectcalico.org "pool-a" deleted\n',
      );
      for (let tries = 0; tries < 50 && !shown.includes("DELETED"); tries += 1)
        await once(watch.stdout, "data", { signal: AbortSignal.timeout(2000) });
      assert.match(shown, /^ADDED +pool-a[^]*^DELETED +pool-a/m);
    } finally {
      watch.kill();
    }
  });
});

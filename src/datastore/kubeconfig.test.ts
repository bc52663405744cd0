import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fromKubeconfig } from "./kubeconfig.io.ts";
import { parseKubeconfig } from "./kubeconfig.ts";
import { fromServiceAccount } from "./serviceAccount.io.ts";

const CONFIG = `
apiVersion: v1
kind: Config
current-context: blue
contexts:
  - { name: blue, context: { cluster: one, user: admin, namespace: shop } }
  - { name: green, context: { cluster: two, user: robot } }
  - { name: cloud, context: { cluster: two, user: cloud } }
  - { name: lost, context: { cluster: three } }
clusters:
  - { name: one, cluster: { server: "https://192.0.2.1:6443", certificate-authority-data: Q0E=, tls-server-name: kube } }
  - { name: two, cluster: { server: "https://192.0.2.2", insecure-skip-tls-verify: true } }
users:
  - { name: admin, user: { client-certificate-data: Q0VSVA==, client-key: admin.key } }
  - { name: robot, user: { tokenFile: token } }
  - { name: cloud, user: { exec: { command: aws } } }
`;

test("the current context, or the one named, says where to go and as whom", () => {
  assert.deepEqual(parseKubeconfig(CONFIG, "config"), {
    server: "https://192.0.2.1:6443",
    ca: { text: "CA" },
    certificate: { text: "CERT" },
    key: { file: "admin.key" },
    token: undefined,
    serverName: "kube",
    insecureSkipTlsVerify: false,
    namespace: "shop",
  });
  assert.partialDeepStrictEqual(parseKubeconfig(CONFIG, "config", "green"), {
    token: { file: "token" },
    insecureSkipTlsVerify: true,
  });
});

const refused: { name: string; text: string; context?: string; reason: RegExp }[] = [
  { name: "no YAML", text: "a: [", reason: /config is not YAML/ },
  { name: "something else", text: "- a", reason: /config is not a kubeconfig/ },
  { name: "no current context", text: "kind: Config", reason: /config has no current-context/ },
  { name: "an unknown context", text: CONFIG, context: "red", reason: /config has no context "red"/ },
  { name: "an unknown cluster", text: CONFIG, context: "lost", reason: /config has no cluster "three"/ },
  { name: "a plug-in to log in", text: CONFIG, context: "cloud", reason: /user "cloud" logs in by exec/ },
  { name: "no server", text: CONFIG.replace("https://192.0.2.1:6443", "nowhere"), reason: /has no server URL/ },
];
for (const { name, text, context, reason } of refused) {
  test(`a kubeconfig with ${name} is refused`, () =>
    assert.throws(() => parseKubeconfig(text, "config", context), reason));
}

test("files that a kubeconfig names lie beside it", () => {
  const directory = mkdtempSync(join(tmpdir(), "caracal-kubeconfig-"));
  try {
    writeFileSync(join(directory, "config"), CONFIG);
    writeFileSync(join(directory, "admin.key"), "KEY");
    writeFileSync(join(directory, "token"), "secret\n");
    const { address, namespace } = fromKubeconfig(join(directory, "config"));
    assert.partialDeepStrictEqual(address, { url: "https://192.0.2.1:6443", key: "KEY", certificate: "CERT" });
    assert.equal(namespace, "shop");
    const robot = fromKubeconfig(join(directory, "config"), "green").address;
    assert.ok("url" in robot && typeof robot.token === "function");
    assert.equal(robot.token(), "secret");
    assert.throws(() => fromKubeconfig(join(directory, "none")), /Cannot read .*none/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("outside of a pod there is no service account", () => {
  assert.equal(fromServiceAccount({}), undefined);
});

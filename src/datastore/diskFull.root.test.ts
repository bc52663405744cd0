/** The disk fills up under the API server: what it cannot store it refuses, and it goes on when there is room again. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { startServer } from "./apiserver.testing.ts";
import { kubernetesDatastore } from "./client.io.ts";
import { aPool } from "./datastore.testing.ts";
import { isDatastoreError } from "./datastore.ts";

const run = (command: string, ...argv: string[]): unknown => execFileSync(command, argv);

test("a full disk loses nothing that was acknowledged, and stores nothing that was refused", async () => {
  const data = mkdtempSync(join(tmpdir(), "caracal-full-"));
  run("mount", "-t", "tmpfs", "-o", "size=1m", "caracal-test", data);
  const datastore = kubernetesDatastore({ socketPath: join(data, "api.sock") });
  const names = async (): Promise<string[]> =>
    (await datastore.list("IPPool")).items.map(({ metadata }) => metadata.name);
  const big = (name: string) => ({ ...aPool(name), metadata: { name, annotations: { ballast: "x".repeat(20_000) } } });
  let server;
  try {
    server = await startServer(["--data", data]);
    const acknowledged: string[] = [];
    let refused: unknown;
    for (let index = 0; index < 200 && refused === undefined; index += 1) {
      const name = `pool-${String(index).padStart(3, "0")}`;
      await datastore.create("IPPool", big(name)).then(
        () => acknowledged.push(name),
        (thrown: unknown) => (refused = thrown),
      );
    }
    assert.ok(isDatastoreError(refused, "unavailable"), String(refused));
    assert.match(refused.message, /the write could not be stored: .*full/);
    assert.deepEqual(await names(), acknowledged);

    run("mount", "-o", "remount,size=8m", data);
    await datastore.create("IPPool", aPool("room"));
    acknowledged.push("room");
    await server.end("SIGKILL");
    server = await startServer(["--data", data]);
    assert.deepEqual(await names(), acknowledged);
  } finally {
    datastore.close();
    await server?.end("SIGKILL");
    run("umount", data);
    rmdirSync(data);
  }
});

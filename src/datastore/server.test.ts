import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { connect, createServer as createNetServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { serverCertificate, SERVER_NAME } from "./certificate.io.ts";
import { unreadableIn } from "../resources/unreadable.ts";
import { kubernetesDatastore } from "./client.io.ts";
import { aPod, aPool, datastoreConformance, follow, type Subject } from "./datastore.testing.ts";
import { isDatastoreError, type Datastore } from "./datastore.ts";
import { serve, type ServeOptions } from "./server.io.ts";
import { openJournal } from "./sqlite.io.ts";
import { tokenFromFile } from "./token.io.ts";

async function open(overTcp: boolean, changes?: number): Promise<Subject> {
  const data = mkdtempSync(join(tmpdir(), "caracal-api-"));
  const history = changes === undefined ? {} : { history: { changes } };
  const token = "0123456789abcdef0123456789abcdef";
  const certificate = serverCertificate(data, Date.now());
  const address = overTcp
    ? { tcp: { host: "127.0.0.1", port: 0, token, certificate } }
    : { socketPath: join(data, "api.sock") };
  const server = await serve({ data, ...address, ...history });
  const datastore = kubernetesDatastore(
    server.url === undefined
      ? { socketPath: join(data, "api.sock") }
      : { url: server.url, token, ca: certificate.certificate, serverName: SERVER_NAME },
  );
  return {
    datastore,
    async close() {
      datastore.close();
      await server.close();
      rmSync(data, { recursive: true });
    },
  };
}

datastoreConformance("the embedded API server over a unix socket", () => open(false), {
  shortHistory: () => open(false, 50),
});
datastoreConformance("the embedded API server over TLS", () => open(true), { shortHistory: () => open(true, 50) });

/** A server with its data in a new directory, both gone after `body`. */
async function withServer(
  options: Partial<ServeOptions>,
  body: (at: { data: string; socketPath: string; datastore: Datastore; restart: () => Promise<void> }) => Promise<void>,
): Promise<void> {
  const data = mkdtempSync(join(tmpdir(), "caracal-api-"));
  const socketPath = join(data, "api.sock");
  let server = await serve({ data, socketPath, ...options });
  const datastore = kubernetesDatastore({ socketPath });
  const restart = async (): Promise<void> => {
    await server.close();
    server = await serve({ data, socketPath, ...options });
  };
  try {
    await body({ data, socketPath, datastore, restart });
  } finally {
    datastore.close();
    await server.close();
    rmSync(data, { recursive: true });
  }
}

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

function ask(options: object, body = "", secure = false): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = (secure ? httpsRequest : httpRequest)({ agent: false, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.on("end", () => {
        const isJson = response.headers["content-type"] === "application/json";
        resolve({
          status: response.statusCode ?? 0,
          body: isJson ? (JSON.parse(text) as Record<string, unknown>) : { text },
        });
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

describe("the API server's data", () => {
  test("are there after a restart, and watches go on where they were", async () => {
    await withServer({}, async ({ datastore, restart }) => {
      const pool = await datastore.create("IPPool", aPool("a"));
      await datastore.create("Pod", aPod("web"));
      const { resourceVersion } = await datastore.list("IPPool");
      await datastore.patch("IPPool", "a", undefined, { spec: { disabled: true } });
      await datastore.create("IPPool", aPool("b"));
      await datastore.delete("IPPool", "b");
      const before = await datastore.list("Pod");
      await restart();
      assert.deepEqual(await datastore.list("Pod"), before);
      assert.equal((await datastore.get("IPPool", "a"))?.metadata.uid, pool.metadata.uid);
      const watch = follow(datastore, "IPPool", { resourceVersion });
      await datastore.create("IPPool", aPool("c"));
      assert.deepEqual(await watch.until(4), ["modified a", "added b", "deleted b", "added c"]);
      await watch.stop();
    });
  });

  test("forget old changes on disk as well, and never an object", async () => {
    await withServer({ history: { changes: 10 } }, async ({ data, datastore, restart }) => {
      for (const name of ["kept", "deleted"]) await datastore.create("IPPool", aPool(name));
      await datastore.delete("IPPool", "deleted");
      await datastore.create("Pod", aPod("busy"));
      for (let round = 0; round < 350; round += 1) {
        await datastore.patch("Pod", "busy", "default", { metadata: { labels: { round: String(round) } } });
      }
      await restart();
      assert.deepEqual(
        (await datastore.list("IPPool")).items.map(({ metadata }) => metadata.name),
        ["kept"],
      );
      const { items, resourceVersion } = await datastore.list("Pod");
      assert.equal(items[0]?.metadata.labels?.["round"], "349");
      assert.ok(statSync(join(data, "caracal.db")).size < 300 * 1024, "the file does not grow with every change");
      const watch = follow(datastore, "Pod", { resourceVersion });
      await datastore.delete("Pod", "busy", "default");
      assert.deepEqual(await watch.until(1), ["deleted busy"]);
      await watch.stop();
      const old = follow(datastore, "Pod", { resourceVersion: "10" });
      await assert.rejects(old.until(1), (thrown) => isDatastoreError(thrown, "gone"));
    });
  });

  test("belong to one server at a time, and to their owner", async () => {
    await withServer({}, async ({ data, socketPath }) => {
      assert.throws(() => openJournal(data, "process"), /another API server is using it/);
      assert.equal(statSync(socketPath).mode & 0o777, 0o600);
      for (const name of ["caracal.db", "caracal.db-wal"])
        assert.equal(statSync(join(data, name)).mode & 0o777, 0o600, name);
    });
  });

  test("that are not ours are refused", () => {
    const data = mkdtempSync(join(tmpdir(), "caracal-api-"));
    try {
      writeFileSync(
        join(data, "caracal.db"),
        "something else entirely, which is long enough to have a header of its own".repeat(20),
      );
      assert.throws(() => openJournal(data, "process"), /Cannot open .*caracal\.db: .*not a database/);
    } finally {
      rmSync(data, { recursive: true });
    }
  });
});

describe("the API server's socket", () => {
  test("replaces one that a dead server left, and none that answers", async () => {
    await withServer({}, async ({ data, socketPath }) => {
      const other = join(data, "other");
      await assert.rejects(serve({ data: other, socketPath }), /another process is listening there/);
      const stale = join(data, "stale.sock");
      const dead = createNetServer().listen(stale);
      await new Promise((resolve) => dead.once("listening", resolve));
      // Closed without its file being removed, as when the process dies.
      chmodSync(stale, 0o777);
      const kept = `${stale}.kept`;
      renameSync(stale, kept);
      await new Promise((resolve) => dead.close(resolve));
      renameSync(kept, stale);
      const server = await serve({ data: other, socketPath: stale });
      assert.equal(statSync(stale).mode & 0o777, 0o600);
      await server.close();
      assert.equal(statSync(stale, { throwIfNoEntry: false }), undefined, "its file goes with it");
      writeFileSync(stale, "not a socket");
      await assert.rejects(serve({ data: other, socketPath: stale }), /something that is not a socket is there/);
      await assert.rejects(serve({ data: other, socketPath: join(data, "x".repeat(120)) }), /at most 107/);
    });
  });

  test("refuses bodies that are too long", async () => {
    await withServer({}, async ({ socketPath }) => {
      const path = "/api/v1/namespaces/default/pods";
      const { status, body } = await ask({ socketPath, path, method: "POST" }, "x".repeat(4 * 1024 * 1024));
      assert.partialDeepStrictEqual(
        { status, ...body },
        { status: "Failure", code: 413, reason: "RequestEntityTooLarge" },
      );
    });
  });

  test("answers writes that come together each for itself", async () => {
    await withServer({}, async ({ datastore }) => {
      const names = Array.from({ length: 50 }, (_, index) => `pod-${index % 40}`);
      const outcomes = await Promise.allSettled(names.map((name) => datastore.create("Pod", aPod(name))));
      assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 40);
      const { items } = await datastore.list("Pod");
      assert.equal(new Set(items.map(({ metadata }) => metadata.resourceVersion)).size, 40);
    });
  });

  test("carries objects of a megabyte, in watches as well", async () => {
    await withServer({}, async ({ datastore }) => {
      const { resourceVersion } = await datastore.list("GlobalNetworkSet");
      const nets = Array.from(
        { length: 60_000 },
        (_, index) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}/32`,
      );
      const watch = follow(datastore, "GlobalNetworkSet", { resourceVersion });
      const set = {
        apiVersion: "projectcalico.org/v3" as const,
        kind: "GlobalNetworkSet" as const,
        metadata: { name: "big" },
        spec: { nets },
      };
      await datastore.create("GlobalNetworkSet", set);
      await watch.until(1);
      await watch.stop();
      assert.equal((await datastore.get("GlobalNetworkSet", "big"))?.spec.nets.length, 60_000);
    });
  });

  test("ends watches when the server closes, after their time, and when the reader leaves", async () => {
    await withServer({}, async ({ datastore, socketPath, restart }) => {
      const { resourceVersion } = await datastore.list("Pod");
      const began = Promise.withResolvers<void>();
      const closing = (async () => {
        for await (const event of datastore.watch("Pod", { resourceVersion }))
          if (event.type === "added") began.resolve();
        return "ended";
      })();
      await datastore.create("Pod", aPod("web"));
      await began.promise;
      await restart();
      assert.equal(await closing, "ended");
      const path = `/api/v1/pods?watch=1&resourceVersion=${resourceVersion}&timeoutSeconds=0.05`;
      assert.equal((await ask({ socketPath, path })).status, 200);
    });
  });
});

describe("the API server's TCP port", () => {
  const token = "f".repeat(64);

  test("wants the token for everything but health and version, over TLS only", async () => {
    const directory = mkdtempSync(join(tmpdir(), "caracal-tls-"));
    const certificate = serverCertificate(directory, Date.now());
    try {
      assert.deepEqual(serverCertificate(directory, Date.now()), certificate, "a certificate is kept");
      assert.equal(statSync(join(directory, "tls.key")).mode & 0o777, 0o600);
      const elevenYears = Date.now() + 11 * 365 * 24 * 3600 * 1000;
      assert.notDeepEqual(serverCertificate(directory, elevenYears), certificate, "one that has ended is replaced");
      const server = await serve({
        data: join(directory, "data"),
        tcp: { host: "127.0.0.1", port: 0, token, certificate },
      });
      try {
        const { port } = new URL(server.url ?? "");
        const base = { host: "127.0.0.1", port, ca: certificate.certificate, servername: SERVER_NAME };
        const get = (path: string, authorization?: string): Promise<Answer> =>
          ask({ ...base, path, headers: authorization === undefined ? {} : { authorization } }, "", true);
        for (const path of ["/healthz", "/readyz", "/version"]) assert.equal((await get(path)).status, 200, path);
        for (const path of ["/api", "/api/v1/pods", "/openapi/v3", "/nothing"]) {
          assert.partialDeepStrictEqual((await get(path)).body, { reason: "Unauthorized", code: 401 }, path);
        }
        for (const wrong of [`Bearer ${token}f`, "Bearer ", `Basic ${token}`, token]) {
          assert.equal((await get("/api/v1/pods", wrong)).status, 401, wrong);
        }
        assert.equal((await get("/api/v1/pods", `Bearer ${token}`)).status, 200);
        assert.equal((await get("/nothing", `Bearer ${token}`)).status, 404);
        await assert.rejects(ask({ host: "127.0.0.1", port, path: "/healthz" }), "plain HTTP gets no answer");
        const stranger = kubernetesDatastore({ url: server.url ?? "", token });
        await assert.rejects(
          stranger.list("Pod"),
          (thrown) => isDatastoreError(thrown, "unavailable"),
          "its certificate is not trusted",
        );
        stranger.close();
      } finally {
        await server.close();
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test("takes its token from a file that only its owner can read", () => {
    const directory = mkdtempSync(join(tmpdir(), "caracal-token-"));
    const path = join(directory, "token");
    try {
      const made = tokenFromFile(path);
      assert.match(made, /^[0-9a-f]{64}$/);
      assert.equal(statSync(path).mode & 0o777, 0o600);
      assert.equal(tokenFromFile(path), made);
      assert.equal(readFileSync(path, "utf8"), `${made}\n`);
      chmodSync(path, 0o640);
      assert.throws(() => tokenFromFile(path), /others than its owner can read it/);
      writeFileSync(join(directory, "short"), "secret", { mode: 0o600 });
      assert.throws(
        () => tokenFromFile(join(directory, "short")),
        (thrown) => thrown instanceof Error && !thrown.message.includes("secret"),
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("the client", () => {
  test("says where it tried, on what, and why it failed", async () => {
    const missing = kubernetesDatastore({ socketPath: join(tmpdir(), "caracal-nobody.sock") });
    await assert.rejects(missing.get("Pod", "web", "default"), (thrown) => {
      assert.ok(isDatastoreError(thrown, "unavailable"));
      assert.match(thrown.message, /^Cannot get pods "default\/web" at unix:.*caracal-nobody\.sock: .*ENOENT/);
      return true;
    });
    missing.close();
  });

  /** What a server answers, by path; nothing at all for what is not there. */
  async function withAnswers(
    answers: Record<string, string>,
    body: (datastore: Datastore, invalid: string[]) => Promise<void>,
  ): Promise<void> {
    const server = createServer(({ url = "" }, response) => {
      const answer = answers[url.split("?")[0] ?? ""];
      if (answer !== undefined) response.end(answer);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    const invalid: string[] = [];
    const datastore = kubernetesDatastore(
      { url: `http://127.0.0.1:${port}` },
      { deadline: 50, onInvalid: (kind, key, reason) => invalid.push(`${kind} ${key}: ${reason}`) },
    );
    try {
      await body(datastore, invalid);
    } finally {
      datastore.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  test("does not wait for ever", async () => {
    await withAnswers({}, async (datastore) => {
      await assert.rejects(datastore.get("IPPool", "a"), (thrown) => isDatastoreError(thrown, "timeout"));
    });
  });

  test("leaves out what another server holds against the rules, and keeps fields that it does not know", async () => {
    const pool = (name: string, spec: object): object => ({ metadata: { name, resourceVersion: "5" }, spec });
    const list = {
      metadata: { resourceVersion: "7" },
      items: [pool("good", { cidr: "10.0.0.0/16", newField: 1 }), pool("bad", { cidr: "?" })],
    };
    await withAnswers({ "/apis/projectcalico.org/v3/ippools": JSON.stringify(list) }, async (datastore, invalid) => {
      const { items, resourceVersion } = await datastore.list("IPPool");
      assert.equal(resourceVersion, "7");
      assert.deepEqual(
        items.map(({ metadata }) => metadata.name),
        ["good"],
      );
      assert.partialDeepStrictEqual(items[0], { kind: "IPPool", spec: { blockSize: 26, newField: 1 } });
      assert.match(invalid.join("\n"), /^IPPool bad: .*spec\.cidr/s);
    });
  });

  test("of a policy that another server holds against the rules, lets nothing through that cannot be read", async () => {
    const policy = {
      metadata: { name: "p", namespace: "a", resourceVersion: "5" },
      spec: { ingress: [{ ports: [{ port: -1 }] }] },
    };
    const event = { type: "MODIFIED", object: { ...policy, spec: { podSelector: 7, ingress: [{}] } } };
    const path = "/apis/networking.k8s.io/v1/networkpolicies";
    const list = { [path]: JSON.stringify({ metadata: { resourceVersion: "7" }, items: [policy] }) };
    await withAnswers(list, async (datastore, invalid) => {
      const [item] = (await datastore.list("NetworkPolicy")).items;
      assert.equal(item?.spec.ingress?.length, 1);
      assert.match(unreadableIn(item?.spec.ingress?.[0] ?? {}) ?? "", /^spec\.ingress\[0\]\.ports\[0\]\.port: /);
      assert.match(invalid.join("\n"), /^NetworkPolicy a\/p: .*spec\.ingress/s);
    });
    await withAnswers({ [path]: `${JSON.stringify(event)}\n` }, async (datastore) => {
      for await (const heard of datastore.watch("NetworkPolicy", { resourceVersion: "7" })) {
        assert.ok(heard.type === "modified");
        assert.deepEqual(heard.object.spec.podSelector, {});
        assert.match(unreadableIn(heard.object.spec.ingress?.[0] ?? {}) ?? "", /^spec\.podSelector: /);
      }
    });
  });

  test("takes an answer that is no JSON for what it is", async () => {
    await withAnswers({ "/apis/projectcalico.org/v3/ippools/a": "<html>" }, async (datastore) => {
      await assert.rejects(datastore.get("IPPool", "a"), (thrown) => isDatastoreError(thrown, "unavailable"));
    });
  });
});

test("a client that says nothing does not keep the server from closing", async () => {
  await withServer({}, async ({ socketPath, restart }) => {
    const idle = connect(socketPath).on("error", () => undefined);
    await new Promise((resolve) => idle.once("connect", resolve));
    const began = performance.now();
    await restart();
    assert.ok(performance.now() - began < 2000);
  });
});

import assert from "node:assert/strict";
import { spawn, execFileSync, type ChildProcess } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, before, describe, test } from "node:test";
import { serverCertificate } from "../datastore/certificate.io.ts";
import { CLONE_NEWNET, setns } from "../netlink/ffi.io.ts";
import { temporaryNamespace } from "../netlink/namespace.testing.ts";
import { until } from "./cluster.testing.ts";
import { openEtcd, type EtcdOptions } from "./etcd.io.ts";
import { checkStore } from "./store.testing.ts";
import { StoreError } from "./store.ts";

/** The driver of etcd against Debian's etcd, on the loopback of a namespace that this process moves to. */

const PLAIN = "http://127.0.0.1:2379";

describe("etcd", () => {
  const namespace = temporaryNamespace();
  const directory = mkdtempSync(`${tmpdir()}/caracal-etcd-${process.pid}-`);
  let running: ChildProcess | undefined;

  before(() => {
    const fd = openSync(namespace.path, "r");
    setns(fd, CLONE_NEWNET);
    closeSync(fd);
  });
  after(async () => {
    await stop();
    namespace[Symbol.dispose]();
    rmSync(directory, { recursive: true, force: true });
  });

  function start(name: string, url: string, ...flags: string[]): void {
    const args = [
      `--data-dir=${directory}/${name}`,
      `--listen-client-urls=${url}`,
      `--advertise-client-urls=${url}`,
      "--listen-peer-urls=http://127.0.0.1:2380",
      "--heartbeat-interval=50",
      "--election-timeout=250",
      ...flags,
    ];
    running = spawn("etcd", args, { stdio: "ignore" });
  }
  async function stop(): Promise<void> {
    const child = running;
    running = undefined;
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
  }
  const etcdctl = (...args: string[]): string =>
    execFileSync("etcdctl", args, { encoding: "utf8", env: { ...process.env, ETCDCTL_API: "3" }, stdio: "pipe" });
  async function withStore<Result>(
    options: EtcdOptions,
    work: (store: ReturnType<typeof openEtcd>) => Promise<Result>,
  ): Promise<Result> {
    const store = openEtcd(options);
    try {
      return await work(store);
    } finally {
      store.close();
    }
  }
  const rejectsWith = (promise: Promise<unknown>, code: string): Promise<void> =>
    assert.rejects(promise, (error) => error instanceof StoreError && error.code === code);

  test("does what a store does; a dead endpoint is passed over; what is compacted is said to be", async () => {
    start("plain", PLAIN);
    await until("etcd answers", () => etcdctl("endpoint", "health").length >= 0);
    await withStore({ endpoints: ["http://127.0.0.1:4001", PLAIN] }, async (store) => {
      await checkStore(store);
      const { revision } = await store.list("/");
      assert.equal(etcdctl("lease", "list").trim().split("\n")[0], "found 1 leases", "a race that is lost leaves none");
      for (const value of ["1", "2", "3"]) etcdctl("put", "/x", value);
      const { revision: now } = await store.list("/");
      etcdctl("compact", now);
      const old = store.watch("/", revision, new AbortController().signal)[Symbol.asyncIterator]();
      await rejectsWith(old.next(), "compacted");
    });
  });

  test("that ends breaks the watch, and may come back", async () => {
    await withStore({ endpoints: [PLAIN] }, async (store) => {
      const { revision } = await store.list("/");
      const watch = store.watch("/y", revision, new AbortController().signal)[Symbol.asyncIterator]();
      const next = watch.next();
      etcdctl("put", "/y", "1");
      const first = (await next).value;
      assert.equal(first?.[0]?.type, "put");
      const broken = watch.next();
      const checked = rejectsWith(broken, "unavailable");
      await stop();
      await checked;
      await rejectsWith(store.get("/y"), "unavailable");
      start("plain", PLAIN);
      await until("the store answers again", async () => (await store.get("/y"))?.value === "1");
    });
  });

  test("with users: a name and a password, anew when the token is forgotten", async () => {
    for (const args of [
      ["user", "add", "root", "--new-user-password=secret"],
      ["user", "grant-role", "root", "root"],
      ["auth", "enable"],
    ]) {
      etcdctl(...args);
    }
    const account = { endpoints: [PLAIN], username: "root", password: "secret" };
    await withStore(account, async (store) => {
      assert.equal((await store.get("/y"))?.value, "1");
      await stop();
      start("plain", PLAIN);
      await until("the store answers again", async () => (await store.get("/y"))?.value === "1");
    });
    await withStore({ ...account, password: "wrong" }, (store) => rejectsWith(store.get("/y"), "forbidden"));
    await withStore({ endpoints: [PLAIN] }, (store) => assert.rejects(store.get("/y"), StoreError));
    await stop();
  });

  test("over TLS, with certificates of both", async () => {
    serverCertificate(directory, Date.now());
    const [certFile, keyFile] = [`${directory}/tls.crt`, `${directory}/tls.key`];
    const pem = { caFile: certFile, certFile, keyFile };
    const url = "https://localhost:2379";
    start("tls", url, `--cert-file=${pem.certFile}`, `--key-file=${pem.keyFile}`);
    await withStore({ endpoints: [url], ...pem }, (store) =>
      until("the store answers", async () => (await store.get("/nothing")) === undefined),
    );
    await withStore({ endpoints: [url] }, (store) => rejectsWith(store.get("/nothing"), "unavailable"));
    assert.throws(() => openEtcd({ endpoints: [url], caFile: "/nowhere" }), StoreError);
  });
});

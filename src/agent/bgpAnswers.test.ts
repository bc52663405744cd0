import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { PeerStatus, RouteQuery, RouteView } from "../bgp/config.ts";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { bgpAnswers } from "./bgpAnswers.io.ts";
import type { Routing } from "./routing.io.ts";
import { startStatusServer } from "./statusServer.io.ts";

const PEER = { name: "Mesh_192_0_2_12", address: "192.0.2.12" } as PeerStatus;
const ROUTE: RouteView = {
  prefix: "10.96.0.0/16",
  from: "Mesh_192_0_2_12",
  chosen: true,
  reason: "best",
  stale: false,
  attributes: {
    origin: "igp",
    asPath: [{ type: "sequence", asns: [65001] }],
    nextHop: parseAddress("2001:db8::1"),
    extendedCommunities: [1n],
    unknown: [{ code: 99, flags: 0xc0, value: Uint8Array.of(1, 255) }],
  },
  nextHops: [{ nextHop: parseAddress("192.0.2.12"), interface: "eth0" }],
};

/** A node's BGP of one peer and one route. */
function routing(own: Partial<Routing> = {}): Routing {
  return {
    apply: () => undefined,
    kernelChanged: () => undefined,
    otherRoutes: () => [],
    settled: () => true,
    peers: () => [PEER],
    routes: () => [ROUTE],
    refusedByKernel: ({ prefix }) =>
      formatPrefix(prefix) === "10.96.0.0/16" ? "it is a range of services" : undefined,
    refresh: () => true,
    dump: () => [],
    trace: () => () => undefined,
    abandon: () => Promise.resolve(),
    ...own,
  };
}

/** Asks over the socket, and reads until the answer is whole or `enough` says so. */
async function ask(
  parts: Routing,
  path: string,
  enough: (length: number) => boolean = () => false,
): Promise<{ status: number; body: Buffer }> {
  const directory = mkdtempSync(join(tmpdir(), "caracal-answers-"));
  const server = await startStatusServer(join(directory, "agent.sock"), bgpAnswers(parts));
  try {
    return await new Promise((resolve, reject) => {
      const call = request({ socketPath: join(directory, "agent.sock"), path }, (response) => {
        const chunks: Buffer[] = [];
        const done = (): void => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) });
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          if (!enough(chunks.reduce((sum, { length }) => sum + length, 0))) return;
          done();
          call.destroy();
        });
        response.on("end", done);
        response.on("error", () => undefined);
      });
      call.on("error", reject);
      call.end();
    });
  } finally {
    await server.close();
    rmSync(directory, { recursive: true, force: true });
  }
}
const json = ({ body }: { body: Buffer }): unknown => JSON.parse(body.toString());

describe("what the command line asks of BGP", () => {
  test("routes, with everything as text, and why the kernel has not got one", async () => {
    const queries: RouteQuery[] = [];
    const parts = routing({
      routes(query) {
        queries.push(query);
        return [ROUTE];
      },
    });
    assert.deepEqual(json(await ask(parts, "/bgp/routes")), [
      {
        ...ROUTE,
        attributes: {
          origin: "igp",
          asPath: [{ type: "sequence", asns: [65001] }],
          nextHop: "2001:db8::1",
          extendedCommunities: ["1"],
          unknown: [{ code: 99, flags: 192, value: "01ff" }],
        },
        nextHops: [{ nextHop: "192.0.2.12", interface: "eth0" }],
        kernel: "it is a range of services",
      },
    ]);
    await ask(parts, "/bgp/routes?view=out&peer=Mesh_192_0_2_12&prefix=10.96.0.0%2F16&family=4");
    const [first, { prefix, ...second }] = queries as [RouteQuery, RouteQuery];
    assert.deepEqual(first, { view: "best" });
    assert.deepEqual(second, { view: "out", peer: "Mesh_192_0_2_12", family: 4 });
    assert.equal(prefix && formatPrefix(prefix), "10.96.0.0/16");
  });

  test("what makes no sense is refused", async () => {
    for (const query of ["view=all", "family=5", "prefix=10.0.0.1", "prefix=10.0.0.1%2F8"]) {
      assert.equal((await ask(routing(), `/bgp/routes?${query}`)).status, 400, query);
    }
  });

  test("a peer is asked for all again, by its name or its address", async () => {
    const asked: string[] = [];
    const parts = routing({
      refresh(name) {
        asked.push(name);
        return asked.length === 1;
      },
    });
    assert.deepEqual(json(await ask(parts, "/bgp/refresh?peer=192.0.2.12")), { peer: PEER.name, asked: true });
    assert.deepEqual(json(await ask(parts, `/bgp/refresh?peer=${PEER.name}`)), { peer: PEER.name, asked: false });
    const nobody = await ask(parts, "/bgp/refresh?peer=192.0.2.99");
    assert.deepEqual(
      [nobody.status, json(nobody)],
      [404, { error: 'there is no BGP peer "192.0.2.99"; there are Mesh_192_0_2_12' }],
    );
    assert.deepEqual(asked, [PEER.name, PEER.name]);
  });

  test("tables come whole, in turns that leave others theirs", async () => {
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 0);
    const parts = routing({
      *dump() {
        for (let index = 0; index < 20_000; index += 1) yield Uint8Array.of(index & 255, index >> 8, 0, 0);
      },
    });
    const { status, body } = await ask(parts, "/bgp/dump");
    clearInterval(timer);
    assert.deepEqual([status, body.length], [200, 80_000]);
    assert.deepEqual([...body.subarray(-4)], [19_999 & 255, 19_999 >> 8, 0, 0]);
    assert.ok(turns > 0);
  });

  test("a session is told of until nobody listens", async () => {
    let write: ((record: Uint8Array) => void) | undefined;
    let stopped = 0;
    const parts = routing({
      trace(name, given) {
        assert.equal(name, PEER.name);
        write = given;
        return () => (stopped += 1);
      },
    });
    const timer = setInterval(() => write?.(Uint8Array.of(7, 7, 7, 7)), 1);
    const { body } = await ask(parts, `/bgp/trace?peer=${PEER.name}`, (length) => length >= 40);
    assert.ok(body.length >= 40 && body.every((byte) => byte === 7));
    for (let tries = 0; stopped === 0 && tries < 200; tries += 1) await sleep(5);
    clearInterval(timer);
    assert.equal(stopped, 1);
    assert.equal((await ask(parts, "/bgp/trace?peer=nobody")).status, 404);
  });
});

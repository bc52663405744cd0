import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { answer, isDryRun, isWrite, targetOf, watchRequestOf, type ApiRequest } from "./api.ts";
import { ageOf } from "./apiTable.ts";
import { aPod, aPool } from "./datastore.testing.ts";
import { asDatastoreError } from "./refusal.ts";
import { routeOf } from "./route.ts";
import { HttpRefusal, statusOf } from "./status.ts";
import { Store } from "./store.ts";
import { VersionedLog } from "./versionedLog.ts";
import { startWatch } from "./watchFeed.ts";

type Json = Record<string, unknown>;

const NOW = Date.parse("2026-08-22T10:00:00Z");

interface Call {
  readonly type?: string;
  readonly accept?: string;
}

/** An API without a server: what the server does with requests, in the order in which it does it. */
function api() {
  let uids = 0;
  const log = new VersionedLog();
  const store = new Store(log, {
    now: () => NOW,
    uid: () => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`,
  });
  store.createLastingNamespaces();
  log.publish();

  function request(method: string, url: string, body?: unknown, { type, accept }: Call = {}): ApiRequest {
    const [path = "", query = ""] = url.split("?");
    const route = routeOf(path);
    assert.ok(route, `${path} is not a path`);
    const text = body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body);
    return { method, route, query: new URLSearchParams(query), accept, contentType: type, body: Buffer.from(text) };
  }
  function call(method: string, url: string, body?: unknown, options?: Call): { status: number; body: Json } {
    const asked = request(method, url, body, options);
    const before = log.revision;
    try {
      const { status, body: text } = answer(store, asked, NOW);
      if (isWrite(asked) && isDryRun(asked)) log.rollBack(before);
      log.publish();
      return { status, body: JSON.parse(text) as Json };
    } catch (thrown) {
      log.rollBack(before);
      const failure = thrown instanceof HttpRefusal ? thrown : asDatastoreError(thrown);
      const status = statusOf(failure, targetOf(asked.route, asked.body));
      return { status: status.code, body: { ...status } };
    }
  }
  function watch(url: string, accept?: string) {
    const asked = watchRequestOf(request("GET", url, undefined, accept === undefined ? {} : { accept }));
    assert.ok(asked, `${url} is not a watch`);
    const lines: Json[] = [];
    const feed = startWatch(
      log,
      asked,
      (line) => lines.push(JSON.parse(line) as Json),
      () => NOW,
    );
    return { lines, feed, summary: () => lines.map(summaryOf) };
  }
  return { log, call, watch };
}

/** `ADDED web`, `ERROR 410`, `BOOKMARK`. */
function summaryOf({ type, object }: Json): string {
  const { metadata, code } = object as { metadata?: { name?: string }; code?: number };
  return `${String(type)} ${metadata?.name ?? code ?? ""}`.trim();
}

const PODS = "/api/v1/namespaces/default/pods";
const POOLS = "/apis/projectcalico.org/v3/ippools";
const MERGE = { type: "application/merge-patch+json" };
const TABLE = { accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json" };

describe("requests that are refused", () => {
  const refusals: {
    name: string;
    request: [string, string, unknown?, Call?];
    code: number;
    reason: string;
    message: RegExp;
  }[] = [
    {
      name: "what is not there",
      request: ["GET", `${PODS}/nope`],
      code: 404,
      reason: "NotFound",
      message: /^pods "nope" not found$/,
    },
    {
      name: "a name that is taken",
      request: ["POST", PODS, aPod("web")],
      code: 409,
      reason: "AlreadyExists",
      message: /^pods "web" already exists$/,
    },
    {
      name: "bad JSON",
      request: ["POST", PODS, "{"],
      code: 400,
      reason: "BadRequest",
      message: /the body is not JSON/,
    },
    {
      name: "JSON that is no object",
      request: ["POST", PODS, "[]"],
      code: 400,
      reason: "BadRequest",
      message: /not an object/,
    },
    {
      name: "another kind",
      request: ["POST", PODS, aPool("a")],
      code: 422,
      reason: "Invalid",
      message: /expected Pod/,
    },
    {
      name: "another namespace",
      request: ["POST", PODS, aPod("x", { namespace: "kube-system" })],
      code: 400,
      reason: "BadRequest",
      message: /does not match the namespace/,
    },
    {
      name: "no namespace",
      request: ["POST", "/api/v1/pods", aPod("x")],
      code: 405,
      reason: "MethodNotAllowed",
      message: /belongs in the path/,
    },
    {
      name: "a namespace that is not there",
      request: ["POST", "/api/v1/namespaces/shop/pods", aPod("x", { namespace: "shop" })],
      code: 404,
      reason: "NotFound",
      message: /^namespaces "shop" not found$/,
    },
    {
      name: "another name",
      request: ["PUT", `${PODS}/web`, aPod("x")],
      code: 400,
      reason: "BadRequest",
      message: /does not match the name on the URL/,
    },
    {
      name: "an update without a version",
      request: ["PUT", `${PODS}/web`, aPod("web")],
      code: 422,
      reason: "Invalid",
      message: /must be specified for an update/,
    },
    {
      name: "a new object with a version",
      request: ["POST", PODS, { ...aPod("x"), metadata: { name: "x", resourceVersion: "1" } }],
      code: 422,
      reason: "Invalid",
      message: /must be absent/,
    },
    {
      name: "YAML",
      request: ["POST", PODS, "kind: Pod", { type: "application/yaml" }],
      code: 415,
      reason: "UnsupportedMediaType",
      message: /accepted media types/,
    },
    {
      name: "server-side apply",
      request: ["PATCH", `${PODS}/web`, {}, { type: "application/apply-patch+yaml" }],
      code: 415,
      reason: "UnsupportedMediaType",
      message: /accepted media types/,
    },
    {
      name: "a strategic patch of Calico's kinds",
      request: ["PATCH", `${POOLS}/a`, {}, { type: "application/strategic-merge-patch+json" }],
      code: 415,
      reason: "UnsupportedMediaType",
      message: /accepted media types/,
    },
    {
      name: "a patch that renames",
      request: ["PATCH", `${PODS}/web`, { metadata: { name: "x" } }, MERGE],
      code: 400,
      reason: "BadRequest",
      message: /cannot change the name/,
    },
    {
      name: "a patch for an old version",
      request: ["PATCH", `${PODS}/web`, { metadata: { resourceVersion: "1" } }, MERGE],
      code: 409,
      reason: "Conflict",
      message: /please apply your changes to the latest version/,
    },
    {
      name: "a method of no use",
      request: ["PUT", PODS, {}],
      code: 405,
      reason: "MethodNotAllowed",
      message: /does not allow the method PUT/,
    },
    {
      name: "a write to discovery",
      request: ["POST", "/api/v1", {}],
      code: 405,
      reason: "MethodNotAllowed",
      message: /does not allow the method POST/,
    },
    {
      name: "a dry run of another sort",
      request: ["POST", `${PODS}?dryRun=Some`, aPod("x")],
      code: 400,
      reason: "BadRequest",
      message: /invalid dryRun/,
    },
    {
      name: "a field that cannot be selected by",
      request: ["GET", `${PODS}?fieldSelector=spec.x%3D1`],
      code: 400,
      reason: "BadRequest",
      message: /field label not supported: spec.x/,
    },
    {
      name: "a list of the past",
      request: ["GET", `${PODS}?resourceVersion=2&resourceVersionMatch=Exact`],
      code: 410,
      reason: "Expired",
      message: /too old resource version/,
    },
    {
      name: "a list of the future",
      request: ["GET", `${PODS}?resourceVersion=999`],
      code: 504,
      reason: "Timeout",
      message: /Too large resource version/,
    },
    {
      name: "a part of a list of no size",
      request: ["GET", `${PODS}?limit=many`],
      code: 400,
      reason: "BadRequest",
      message: /invalid limit/,
    },
    {
      name: "the rest of a list",
      request: ["GET", `${PODS}?limit=1&continue=abc`],
      code: 410,
      reason: "Expired",
      message: /continue token/,
    },
  ];
  for (const { name, request, code, reason, message } of refusals) {
    test(`${name}: ${code} ${reason}`, () => {
      const { call, log } = api();
      call("POST", PODS, aPod("web"));
      call("POST", POOLS, aPool("a"));
      const before = log.revision;
      const { status, body } = call(...request);
      assert.partialDeepStrictEqual(
        { status, ...body },
        { status: "Failure", kind: "Status", apiVersion: "v1", code, reason },
      );
      assert.equal(status, code);
      assert.match(String(body["message"]), message);
      assert.equal(log.revision, before, "nothing has changed");
    });
  }

  test("an invalid object is refused with each of its faults", () => {
    const { call } = api();
    const bad = {
      apiVersion: "projectcalico.org/v3",
      kind: "IPPool",
      metadata: { name: "a" },
      spec: { cidr: "10.0.0.0/99", blokSize: 26 },
    };
    const { body } = call("POST", POOLS, bad);
    const { details } = body as { details: { name: string; kind: string; group: string; causes: { field: string }[] } };
    assert.deepEqual(
      { ...details, causes: details.causes.map(({ field }) => field).toSorted() },
      {
        name: "a",
        kind: "IPPool",
        group: "projectcalico.org",
        causes: ["spec.blokSize", "spec.cidr"],
      },
    );
  });
});

describe("writes", () => {
  test("a created object answers 201 and is in the list", () => {
    const { call } = api();
    assert.equal(call("POST", PODS, aPod("web")).status, 201);
    assert.partialDeepStrictEqual(call("GET", PODS).body, {
      kind: "PodList",
      apiVersion: "v1",
      metadata: { resourceVersion: "4" },
      items: [{ metadata: { name: "web", resourceVersion: "4" } }],
    });
  });

  test("a dry run answers as if, and leaves nothing", () => {
    const { call, log } = api();
    call("POST", PODS, aPod("web"));
    const before = log.revision;
    assert.equal(call("POST", `${PODS}?dryRun=All`, aPod("new")).status, 201);
    assert.equal(call("POST", `${PODS}?dryRun=All`, aPod("web")).status, 409);
    assert.equal(call("DELETE", `${PODS}/web`, { kind: "DeleteOptions", dryRun: ["All"] }).status, 200);
    assert.equal(call("GET", `${PODS}/new`).status, 404);
    assert.equal(call("GET", `${PODS}/web`).status, 200);
    assert.equal(log.revision, before);
  });

  test("each kind of patch does its own", () => {
    const { call } = api();
    call("POST", PODS, aPod("web", { labels: { app: "web" } }));
    const container = { name: "main", image: "other" };
    const strategic = call(
      "PATCH",
      `${PODS}/web`,
      { spec: { containers: [{ name: "side", image: "x" }] } },
      { type: "application/strategic-merge-patch+json" },
    );
    assert.equal((strategic.body["spec"] as { containers: unknown[] }).containers.length, 2);
    const merged = call("PATCH", `${PODS}/web`, { spec: { containers: [container] } }, MERGE);
    assert.partialDeepStrictEqual(merged.body, { spec: { containers: [container] } });
    const operations = [{ op: "replace", path: "/metadata/labels/app", value: "db" }];
    const patched = call("PATCH", `${PODS}/web`, operations, { type: "application/json-patch+json" });
    assert.partialDeepStrictEqual(patched.body, { metadata: { labels: { app: "db" } } });
  });

  test("a list comes in parts where that is asked for, as of the first one's version", () => {
    const { call } = api();
    for (const name of ["d", "a", "c", "b", "e"])
      call("POST", PODS, { ...aPod(name), metadata: { name, labels: { of: name === "c" ? "no" : "list" } } });
    const parts: { names: string[]; version: unknown }[] = [];
    let next = "";
    do {
      const { body } = call("GET", `${PODS}?limit=2&labelSelector=of%3Dlist&continue=${next}`);
      const { continue: more = "", resourceVersion } = body["metadata"] as {
        continue?: string;
        resourceVersion: string;
      };
      parts.push({
        names: (body["items"] as { metadata: { name: string } }[]).map(({ metadata }) => metadata.name),
        version: resourceVersion,
      });
      next = more;
      if (parts.length === 1) call("DELETE", `${PODS}/d`);
      if (parts.length === 1) call("POST", PODS, { ...aPod("f"), metadata: { name: "f", labels: { of: "list" } } });
    } while (next !== "");
    assert.deepEqual(
      parts.map(({ names }) => names),
      [
        ["a", "b"],
        ["e", "f"],
      ],
    );
    assert.equal(new Set(parts.map(({ version }) => version)).size, 1);
    const table = call("GET", `${PODS}?limit=1`, undefined, { accept: "application/json;as=Table;v=v1;g=meta.k8s.io" });
    assert.match(String((table.body["metadata"] as { continue?: string }).continue), /^[A-Za-z0-9_-]+$/);
    assert.equal((table.body["rows"] as unknown[]).length, 1);
  });

  test("a collection is deleted by selection", () => {
    const { call } = api();
    for (const name of ["a", "b", "c"])
      call("POST", PODS, aPod(name, { labels: { app: name === "c" ? "db" : "web" } }));
    assert.equal(call("DELETE", `${PODS}?labelSelector=app%3Dweb`).status, 200);
    const { items } = call("GET", PODS).body as { items: { metadata: { name: string } }[] };
    assert.deepEqual(
      items.map(({ metadata }) => metadata.name),
      ["c"],
    );
  });
});

describe("watches", () => {
  test("without a version, begin with what there is", () => {
    const { call, watch } = api();
    call("POST", PODS, aPod("a"));
    const { summary } = watch(`${PODS}?watch=1`);
    call("POST", PODS, aPod("b"));
    call("DELETE", `${PODS}/a`);
    assert.deepEqual(summary(), ["ADDED a", "ADDED b", "DELETED a"]);
  });

  test("mark the end of what there is, when asked to", () => {
    const { call, watch } = api();
    call("POST", PODS, aPod("a"));
    const { lines } = watch(
      `${PODS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan`,
    );
    assert.deepEqual(
      lines.map(({ type }) => type),
      ["ADDED", "BOOKMARK"],
    );
    assert.partialDeepStrictEqual(lines[1], {
      object: { metadata: { resourceVersion: "4", annotations: { "k8s.io/initial-events-end": "true" } } },
    });
  });

  test("send a bookmark only when they have fallen behind", () => {
    const { call, watch } = api();
    const { lines, feed } = watch(`${POOLS}?watch=1&resourceVersion=3&allowWatchBookmarks=true`);
    feed?.bookmark();
    assert.deepEqual(lines, []);
    call("POST", PODS, aPod("a"));
    feed?.bookmark();
    feed?.bookmark();
    assert.deepEqual(
      lines.map(({ type, object }) => [type, (object as { metadata: Json }).metadata["resourceVersion"]]),
      [["BOOKMARK", "4"]],
    );
  });

  test("end with an error when their version is forgotten", () => {
    const { call, watch, log } = api();
    for (const name of ["a", "b", "c"]) call("POST", PODS, aPod(name));
    log.compact(2, 0);
    const old = watch(`${PODS}?watch=1&resourceVersion=2`);
    assert.deepEqual(old.summary(), ["ERROR 410"]);
    assert.partialDeepStrictEqual(old.lines[0], {
      object: { kind: "Status", reason: "Expired", message: "too old resource version: 2 (4)" },
    });
    assert.equal(old.feed, undefined);
    assert.deepEqual(watch(`${PODS}?watch=1&resourceVersion=4`).summary(), ["ADDED b", "ADDED c"]);
  });

  test("of one object see nothing else", () => {
    const { call, watch } = api();
    const { summary, feed } = watch(`${PODS}/a?watch=true&resourceVersion=3`);
    call("POST", PODS, aPod("a"));
    call("POST", PODS, aPod("b"));
    feed?.close();
    call("DELETE", `${PODS}/a`);
    assert.deepEqual(summary(), ["ADDED a"]);
  });

  test("in tables name the columns once", () => {
    const { call, watch } = api();
    const { lines } = watch(`${PODS}?watch=1`, TABLE.accept);
    call("POST", PODS, aPod("a"));
    call("POST", PODS, aPod("b"));
    const tables = lines.map(
      ({ object }) => object as { columnDefinitions: unknown[] | null; rows: { cells: string[] }[] },
    );
    assert.deepEqual(
      tables.map(({ columnDefinitions }) => columnDefinitions === null),
      [false, true],
    );
    assert.deepEqual(
      tables.map(({ rows }) => rows[0]?.cells[0]),
      ["a", "b"],
    );
  });
});

describe("tables", () => {
  test("have the columns of the kind, wide ones marked, and the age", () => {
    const { call } = api();
    call("POST", PODS, aPod("web"));
    const { columnDefinitions, rows, metadata } = call("GET", PODS, undefined, TABLE).body as {
      columnDefinitions: { name: string; priority: number }[];
      rows: { cells: string[]; object: Json }[];
      metadata: Json;
    };
    const names = columnDefinitions.map(({ name }) => name);
    assert.equal(names[0], "Name");
    assert.equal(names.at(-1), "Age");
    assert.ok(columnDefinitions.some(({ priority }) => priority === 1));
    assert.equal(rows[0]?.cells.length, names.length);
    assert.partialDeepStrictEqual(rows[0]?.object, { kind: "PartialObjectMetadata", metadata: { name: "web" } });
    assert.deepEqual(metadata, { resourceVersion: "4" });
  });

  const ages: [number, string][] = [
    [0, "0s"],
    [119, "119s"],
    [120, "2m"],
    [200, "3m20s"],
    [599, "9m59s"],
    [1500, "25m"],
    [10799, "179m"],
    [10800, "3h"],
    [11100, "3h5m"],
    [28800, "8h"],
    [172799, "47h"],
    [187200, "2d4h"],
    [691200, "8d"],
    [7776000, "90d"],
    [65664000, "2y30d"],
  ];
  for (const [seconds, text] of ages) {
    test(`${seconds} seconds are ${text}`, () => {
      assert.equal(ageOf(new Date(NOW - seconds * 1000).toISOString(), NOW), text);
    });
  }
});

test("discovery names every kind, and its status where it has one", () => {
  const { call } = api();
  const { groups } = call("GET", "/apis").body as { groups: { name: string }[] };
  assert.ok(groups.some(({ name }) => name === "projectcalico.org"));
  const { resources } = call("GET", "/api/v1").body as {
    resources: { name: string; kind: string; namespaced: boolean }[];
  };
  assert.partialDeepStrictEqual(
    resources.find(({ name }) => name === "pods"),
    { kind: "Pod", namespaced: true, singularName: "pod", shortNames: ["po"] },
  );
  assert.ok(resources.some(({ name }) => name === "pods/status"));
  const { paths } = call("GET", "/openapi/v3").body as { paths: Record<string, { serverRelativeURL: string }> };
  for (const { serverRelativeURL } of Object.values(paths)) {
    const found = call("GET", serverRelativeURL);
    assert.equal(found.status, 200);
    assert.match(JSON.stringify(found.body), /fieldValidation/);
  }
});

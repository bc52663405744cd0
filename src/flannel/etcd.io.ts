import { readFileSync } from "node:fs";
import type { ClientRequest, IncomingMessage } from "node:http";
import type { AgentOptions } from "node:https";
import { messageOf } from "../lib/errors.ts";
import { http, https } from "../lib/http.io.ts";
import {
  base64,
  createRequest,
  rangeOf,
  readGrant,
  readRange,
  readToken,
  readTransaction,
  readWatch,
  reasonIn,
  removeRequest,
  replaceRequest,
  watchRequest,
} from "./etcdJson.ts";
import { type KeyStore, StoreError } from "./store.ts";

/** etcd v3, through the JSON gateway that every etcd serves beside gRPC: HTTP is all it takes. */

export interface EtcdOptions {
  /** `http://192.0.2.7:2379`; the next is tried where one does not answer. */
  readonly endpoints: readonly string[];
  /** Files in PEM, for https endpoints. */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly username?: string;
  readonly password?: string;
}

export interface EtcdStore extends KeyStore {
  close(): void;
}

const REQUEST_MS = 5000;
/** A connection whose other end has vanished is found out: the first probe, then one each second (libuv). */
const KEEPALIVE_MS = 10_000;
/** Codes of gRPC: google.golang.org/grpc/codes. */
const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;
const UNAVAILABLE = 14;

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

export function openEtcd(options: EtcdOptions): EtcdStore {
  const { endpoints, username, password } = options;
  if (endpoints.length === 0) throw new StoreError("refused", "Cannot open etcd: no endpoint is given");
  const settings = { keepAlive: true, keepAliveMsecs: KEEPALIVE_MS, maxSockets: 4 };
  const plain = new http.Agent(settings);
  const secure = new (https().Agent)({ ...settings, ...certificates(options) });
  let current = 0;
  let token: string | undefined;

  function start(endpoint: string, path: string, body: object, signal: AbortSignal | undefined): ClientRequest {
    const url = new URL(path, endpoint);
    const { request, agent } =
      url.protocol === "https:" ? { request: https().request, agent: secure } : { request: http.request, agent: plain };
    const outgoing = request(url, {
      method: "POST",
      agent,
      headers: {
        "content-type": "application/json",
        // What the gateway hands on to gRPC: no stale answers from a member that has lost its leader.
        "grpc-metadata-hasleader": "true",
        ...(token !== undefined && { authorization: token }),
      },
      ...(signal !== undefined && { signal }),
    });
    outgoing.end(JSON.stringify(body));
    return outgoing;
  }

  /** One answer of one endpoint; rejects where there is none. */
  function ask(endpoint: string, path: string, body: object): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const outgoing = start(endpoint, path, body, AbortSignal.timeout(REQUEST_MS));
      outgoing.on("error", reject);
      outgoing.on("response", (response) => {
        collect(response).then(
          (text) => resolve({ status: response.statusCode ?? 0, body: parseJson(text) }),
          (error: unknown) => reject(error as Error),
        );
      });
    });
  }

  /** Each endpoint in turn, from the last that answered. */
  async function anyEndpoint(path: string, body: object): Promise<Answer> {
    let last: unknown;
    for (let attempt = 0; attempt < endpoints.length; attempt += 1) {
      const endpoint = endpoints[current % endpoints.length]!;
      try {
        const answer = await ask(endpoint, path, body);
        if (codeIn(answer) !== UNAVAILABLE && answer.status < 502) return answer;
        last = new Error(`${endpoint}: ${reasonIn(answer.body)}`);
      } catch (error) {
        last = new Error(`${endpoint}: ${messageOf(error)}`);
      }
      current += 1;
    }
    throw new StoreError("unavailable", `Cannot reach etcd: ${messageOf(last)}`, last);
  }

  async function authenticate(): Promise<void> {
    if (username === undefined || token !== undefined) return;
    const answer = await anyEndpoint("/v3/auth/authenticate", { name: username, password: password ?? "" });
    if (answer.status !== 200) {
      throw new StoreError("forbidden", `Cannot log in to etcd as ${username}: ${reasonIn(answer.body)}`);
    }
    token = readToken(answer.body);
  }

  async function call(path: string, body: object): Promise<unknown> {
    for (let attempt = 0; ; attempt += 1) {
      await authenticate();
      const answer = await anyEndpoint(path, body);
      if (answer.status === 200) return answer.body;
      const code = codeIn(answer);
      // Tokens end with the member that gave them, or by their age.
      const stale = code === UNAUTHENTICATED || /invalid auth token/.test(reasonIn(answer.body));
      if (stale && username !== undefined && attempt === 0) {
        token = undefined;
        continue;
      }
      const forbidden = stale || code === PERMISSION_DENIED || answer.status === 401 || answer.status === 403;
      throw new StoreError(
        forbidden ? "forbidden" : "refused",
        `etcd refused ${path.slice("/v3/".length)}: ${reasonIn(answer.body)}`,
      );
    }
  }

  /** A transaction that puts a key with a lease of its own; the lease goes again where the comparison fails. */
  async function leased(ttl: number | undefined, build: (lease: string) => object): Promise<string | undefined> {
    const lease = ttl === undefined ? "0" : readGrant(await call("/v3/lease/grant", { TTL: String(ttl) }));
    const revision = readTransaction(await call("/v3/kv/txn", build(lease)));
    if (revision === undefined && lease !== "0") {
      await call("/v3/lease/revoke", { ID: lease }).catch(() => undefined); // it would go by itself
    }
    return revision;
  }

  return {
    get: async (key) => readRange(await call("/v3/kv/range", { key: base64(key) })).items[0],
    list: async (prefix) => readRange(await call("/v3/kv/range", rangeOf(prefix))),
    create: (key, value, ttl) => leased(ttl, (lease) => createRequest(key, value, lease)),
    replace: (key, value, revision, ttl) => leased(ttl, (lease) => replaceRequest(key, value, revision, lease)),
    remove: async (key, revision) =>
      readTransaction(await call("/v3/kv/txn", removeRequest(key, revision))) !== undefined,
    async *watch(prefix, revision, signal) {
      await authenticate();
      const endpoint = endpoints[current % endpoints.length]!;
      try {
        const response = await responseOf(start(endpoint, "/v3/watch", watchRequest(prefix, revision), signal));
        if (response.statusCode !== 200) {
          const reason = reasonIn(parseJson(await collect(response)));
          token = undefined;
          throw new StoreError("unavailable", `etcd refused to be watched: ${reason}`);
        }
        response.socket.setKeepAlive(true, KEEPALIVE_MS);
        for await (const line of linesOf(response)) {
          const changes = readWatch(parseJson(line));
          // Without any: the watch has begun, or is well.
          if (changes.length > 0) yield changes;
        }
        throw new StoreError("unavailable", "etcd closed the watch");
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof StoreError) throw error;
        current += 1;
        throw new StoreError("unavailable", `Cannot watch etcd at ${endpoint}: ${messageOf(error)}`, error);
      }
    },
    close() {
      plain.destroy();
      secure.destroy();
    },
  };
}

function certificates({ caFile, certFile, keyFile }: EtcdOptions): AgentOptions {
  const read = (file: string): Buffer => {
    try {
      return readFileSync(file);
    } catch (error) {
      throw new StoreError("refused", `Cannot open etcd: ${messageOf(error)}`, error);
    }
  };
  return {
    ...(caFile !== undefined && { ca: read(caFile) }),
    ...(certFile !== undefined && { cert: read(certFile) }),
    ...(keyFile !== undefined && { key: read(keyFile) }),
  };
}

function responseOf(outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.on("error", reject);
    outgoing.on("response", resolve);
  });
}

async function collect(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

async function* linesOf(response: IncomingMessage): AsyncIterable<string> {
  let rest = "";
  response.setEncoding("utf8");
  for await (const chunk of response as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines.filter((line) => line !== "");
  }
}

/** Undefined for what is no JSON, such as the page of a proxy in between. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function codeIn({ body }: Answer): number | undefined {
  if (typeof body !== "object" || body === null || !("code" in body)) return undefined;
  return typeof body.code === "number" ? body.code : undefined;
}

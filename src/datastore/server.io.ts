/**
 * The embedded API server: the REST conventions of Kubernetes over SQLite, on a unix socket (whoever may open it, may do
 * everything) and on TCP with TLS (with a bearer token).
 *
 * Writes that arrive together are carried out in turn and stored in one transaction; they are answered, and watches are
 * told, once it is committed. Reads are answered from memory, which never holds more than what is committed, since all
 * of a batch happens without anything else running in between.
 */
import { randomUUID } from "node:crypto";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { messageOf } from "../lib/errors.ts";
import { http, https } from "../lib/http.io.ts";
import { answer, isDryRun, isWrite, targetOf, watchRequestOf, type ApiAnswer, type ApiRequest } from "./api.ts";
import { DatastoreError } from "./datastore.ts";
import type { ServerCertificate } from "./certificate.io.ts";
import { asDatastoreError } from "./refusal.ts";
import { routeOf } from "./route.ts";
import { listenOnSocket, type SocketListener } from "./socket.io.ts";
import { openJournal, type Durability } from "./sqlite.io.ts";
import { HttpRefusal, statusOf, type Status } from "./status.ts";
import { Store } from "./store.ts";
import { tokenCheck } from "./token.io.ts";
import { startWatch, type WatchFeed, type WatchRequest } from "./watchFeed.ts";

export interface ServeOptions {
  /** The directory of the data. Only one server at a time can use it. */
  readonly data: string;
  /** Default `process`. */
  readonly durability?: Durability;
  /** A unix socket, made with rights for its owner alone. */
  readonly socketPath?: string;
  /** TLS. `port` 0 takes any free one; `token` is the bearer token that requests must carry. */
  readonly tcp?: {
    readonly host: string;
    readonly port: number;
    readonly token: string;
    readonly certificate: ServerCertificate;
  };
  /** How many changes a watch can go back, and for how long; default 10,000 and an hour. */
  readonly history?: { readonly changes?: number; readonly seconds?: number };
  /** Milliseconds between bookmarks; default 10,000. */
  readonly bookmarkInterval?: number;
  /** Told of what goes wrong on the server's side; never of a token. */
  readonly onError?: (message: string) => void;
}

export interface RunningServer {
  readonly socketPath: string | undefined;
  /** `https://127.0.0.1:6443` */
  readonly url: string | undefined;
  /** Ends the watches, finishes what is under way, and closes the data. */
  close(): Promise<void>;
}

/** As much as Kubernetes takes (apiserver `MaxRequestBodyBytes`). */
const BODY_LIMIT = 3 * 1024 * 1024;
/** A watcher that is this far behind is cut off; it resumes from the last version that it read. */
const WATCH_BACKLOG_LIMIT = 32 * 1024 * 1024;
/** Forgetting is done in batches, after the answers: it is a transaction of its own. */
const FORGET_BATCH = 256;

/** Serves until closed. Throws `JournalError` for the data, `Failure` for addresses that cannot be had. */
export async function serve(options: ServeOptions): Promise<RunningServer> {
  const journal = openJournal(options.data, options.durability ?? "process");
  const { log } = journal;
  const store = new Store(log, { now: Date.now, uid: randomUUID });
  const keep = options.history?.changes ?? 10_000;
  const keepMilliseconds = (options.history?.seconds ?? 3600) * 1000;
  const onError = options.onError ?? ((): void => undefined);
  const waiting: { request: ApiRequest; respond: (outcome: ApiAnswer | Error) => void }[] = [];
  const feeds = new Map<ServerResponse, WatchFeed>();

  store.createLastingNamespaces();
  if (log.revision > log.published) journal.append(log.unpublished());
  log.publish();

  /** One write as a whole: what throws half-way leaves nothing behind. */
  function attempt(request: ApiRequest): ApiAnswer | Error {
    const before = log.revision;
    try {
      const outcome = answer(store, request, Date.now());
      if (isDryRun(request)) log.rollBack(before);
      return outcome;
    } catch (thrown) {
      log.rollBack(before);
      return thrown instanceof HttpRefusal ? thrown : asDatastoreError(thrown);
    }
  }

  function flush(): void {
    const batch = waiting.splice(0);
    const outcomes = batch.map(({ request }) => attempt(request));
    try {
      if (log.revision > log.published) journal.append(log.unpublished());
    } catch (thrown) {
      log.rollBack(log.published);
      const refusal = new DatastoreError("unavailable", `the write could not be stored: ${messageOf(thrown)}`, {
        cause: thrown,
      });
      outcomes.fill(refusal);
    }
    // Whoever waits for its own write comes before those who watch others'. All in one turn: nothing is read in between.
    batch.forEach(({ respond }, position) => respond(outcomes[position]!));
    log.publish();
    if (log.revision - log.compacted > keep + FORGET_BATCH) setImmediate(forget);
  }

  function forget(): void {
    const forgotten = log.compact(keep, Date.now() - keepMilliseconds);
    try {
      if (forgotten.length > 0) journal.forget(forgotten);
    } catch (thrown) {
      onError(`Cannot remove old changes: ${messageOf(thrown)}`);
    }
  }

  function enqueue(request: ApiRequest, respond: (outcome: ApiAnswer | Error) => void): void {
    waiting.push({ request, respond });
    // Requests that are read in one turn of the event loop are all in the queue before the check phase runs this.
    if (waiting.length === 1) setImmediate(flush);
  }

  function openWatch(response: ServerResponse, request: WatchRequest): void {
    let lines: string[] | undefined = [];
    const send = (line: string): void => {
      if (lines !== undefined) lines.push(line);
      else if (response.writableLength > WATCH_BACKLOG_LIMIT) response.destroy();
      else response.write(line);
    };
    const feed = startWatch(log, request, send, Date.now);
    response.writeHead(200, { "Content-Type": "application/json" });
    response.flushHeaders();
    if (lines.length > 0) response.write(lines.join(""));
    lines = undefined;
    if (feed === undefined) return void response.end();
    feeds.set(response, feed);
    const { timeoutSeconds } = request;
    const timer =
      timeoutSeconds === undefined ? undefined : setTimeout(() => endWatch(response, feed), timeoutSeconds * 1000);
    response
      .on("error", () => undefined)
      .on("close", () => {
        feed.close();
        feeds.delete(response);
        clearTimeout(timer);
      });
  }
  function endWatch(response: ServerResponse, feed: WatchFeed): void {
    feed.bookmark();
    response.end();
  }

  function handle(
    message: IncomingMessage,
    response: ServerResponse,
    authorized: (message: IncomingMessage) => boolean,
  ): void {
    const { method = "GET", url = "/" } = message;
    const mark = url.indexOf("?");
    const path = mark < 0 ? url : url.slice(0, mark);
    const route = routeOf(path);
    let sent: Buffer | undefined;
    const fail = (thrown: unknown): void => {
      const failure = thrown instanceof HttpRefusal ? thrown : asDatastoreError(thrown);
      if (failure.code === "unavailable") onError(failure.message);
      refuse(response, statusOf(failure, route === undefined ? undefined : targetOf(route, sent)));
    };
    if (route?.type !== "health" && route?.type !== "version" && !authorized(message)) {
      return fail(new DatastoreError("unauthorized", "Unauthorized"));
    }
    if (route === undefined) return fail(new HttpRefusal(404, "the server could not find the requested resource"));
    const query = new URLSearchParams(mark < 0 ? "" : url.slice(mark + 1));
    const { accept, "content-type": contentType } = message.headers;
    readBody(message, (body) => {
      if (body instanceof Error) return fail(body);
      sent = body;
      const request: ApiRequest = { method, route, query, accept, contentType, body };
      try {
        const watch = watchRequestOf(request);
        if (watch !== undefined) openWatch(response, watch);
        else if (isWrite(request))
          enqueue(request, (outcome) => (outcome instanceof Error ? fail(outcome) : reply(response, outcome)));
        else reply(response, answer(store, request, Date.now()), method === "HEAD");
      } catch (thrown) {
        fail(thrown);
      }
    });
  }

  const servers: Server[] = [];
  let socket: SocketListener | undefined;
  let url: string | undefined;
  async function closeAll(): Promise<void> {
    clearInterval(bookmarks);
    const ended = servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const [response, feed] of feeds) endWatch(response, feed);
    for (const server of servers) server.closeIdleConnections();
    const patience = setTimeout(() => servers.forEach((server) => server.closeAllConnections()), 2000);
    await Promise.all(ended);
    clearTimeout(patience);
    socket?.remove();
    journal.close();
  }
  const bookmarks = setInterval(() => {
    for (const feed of feeds.values()) feed.bookmark();
    forget();
  }, options.bookmarkInterval ?? 10_000);
  try {
    if (options.socketPath !== undefined) {
      const server = limited(http.createServer((message, response) => handle(message, response, () => true)));
      socket = await listenOnSocket(server, options.socketPath);
      servers.push(server);
    }
    if (options.tcp !== undefined) {
      const { host, port, token, certificate } = options.tcp;
      const check = tokenCheck(token);
      const authorized = ({ headers }: IncomingMessage): boolean => check(headers.authorization);
      const server = limited(
        https().createServer({ cert: certificate.certificate, key: certificate.key }, (message, response) =>
          handle(message, response, authorized),
        ),
      );
      url = `https://${await listenOnTcp(server, host, port)}`;
      servers.push(server);
    }
  } catch (thrown) {
    await closeAll();
    throw thrown;
  }
  return { socketPath: options.socketPath, url, close: closeAll };
}

/** A client that is slow to ask, or stays without asking, does not keep its connection for ever. */
function limited<Listening extends Server>(server: Listening): Listening {
  server.headersTimeout = 10_000;
  server.requestTimeout = 30_000;
  server.keepAliveTimeout = 120_000;
  return server;
}

/** Returns `host:port` as it turned out. */
function listenOnTcp(server: Server, host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new DatastoreError("unavailable", `Cannot listen on ${host}:${port}: ${messageOf(cause)}`, { cause }));
    });
    server.listen(port, host, () => {
      const { address, family, port: bound } = server.address() as AddressInfo;
      resolve(`${family === "IPv6" ? `[${address}]` : address}:${bound}`);
    });
  });
}

function readBody(message: IncomingMessage, done: (body: Buffer | Error) => void): void {
  const chunks: Buffer[] = [];
  let length = 0;
  message.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length <= BODY_LIMIT) chunks.push(chunk);
    else if (length - chunk.length <= BODY_LIMIT) {
      done(new HttpRefusal(413, `the request is larger than the limit of ${BODY_LIMIT} bytes`));
    }
  });
  message.on("end", () => {
    if (length > BODY_LIMIT) return;
    done(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
  });
  // A request that breaks off is nobody's any more.
  message.on("error", () => undefined);
}

function reply(response: ServerResponse, { status, contentType, body }: ApiAnswer, headOnly = false): void {
  response.writeHead(status, { "Content-Type": contentType, "Content-Length": Buffer.byteLength(body) });
  response.end(headOnly ? "" : body);
}

function refuse(response: ServerResponse, status: Status): void {
  const body = JSON.stringify(status);
  response.writeHead(status.code, {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
    ...(status.code === 401 ? { "WWW-Authenticate": "Bearer" } : {}),
    // What is left of an oversized body is not worth reading.
    ...(status.code === 413 ? { Connection: "close" } : {}),
  });
  response.end(body);
}

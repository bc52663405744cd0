/** Requests to an API server over node:http: kept-alive connections, and a deadline on everything. */
import type { Agent, AgentOptions, ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import type { Agent as TlsAgent } from "node:https";
import { codeOf, messageOf } from "../lib/errors.ts";
import { http, https } from "../lib/http.io.ts";
import { DatastoreError } from "./datastore.ts";
import { lineSplitter } from "./jsonLines.ts";
import { errorFromStatus } from "./status.ts";

/** Where an API server is, and who we are to it. Certificates and keys are PEM. */
export type ApiServerAddress =
  | { readonly socketPath: string }
  | {
      /** `https://10.96.0.1:443`, with a path where the API lies below one. */
      readonly url: string;
      /** Asked for before each request where it is a function: tokens of service accounts change. */
      readonly token?: string | (() => string) | undefined;
      readonly ca?: string | undefined;
      readonly certificate?: string | undefined;
      readonly key?: string | undefined;
      /** The name that the server's certificate must carry, where it is not the host of the URL. */
      readonly serverName?: string | undefined;
      readonly insecureSkipTlsVerify?: boolean | undefined;
    };

export interface ApiRequestOptions {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  /** What the request is for, for messages: `update pods "default/web"`. */
  readonly attempt: string;
  readonly body?: string | undefined;
  readonly contentType?: string | undefined;
  /** Milliseconds for the whole of it. */
  readonly deadline: number;
}

export interface Connection {
  /** The JSON body of an answer of 2xx; rejects with `DatastoreError` otherwise. */
  request(options: ApiRequestOptions): Promise<unknown>;
  /** The lines of a streamed answer. Ends when the server ends it, or the signal is aborted. */
  lines(options: ApiRequestOptions, signal: AbortSignal | undefined): AsyncGenerator<string, void>;
  close(): void;
}

const MAX_CONNECTIONS = 32;

export function connectTo(address: ApiServerAddress): Connection {
  const overSocket = "socketPath" in address;
  const url = overSocket ? undefined : new URL(address.url);
  const secure = url?.protocol === "https:";
  const tls = overSocket
    ? {}
    : {
        ca: address.ca,
        cert: address.certificate,
        key: address.key,
        servername: address.serverName,
        rejectUnauthorized: address.insecureSkipTlsVerify !== true,
      };
  const pool = { keepAlive: true, maxSockets: MAX_CONNECTIONS, scheduling: "lifo" } as const;
  const newAgent = (options: AgentOptions): Agent | TlsAgent =>
    secure ? new (https().Agent)({ ...options, ...tls }) : new http.Agent(options);
  const agent = newAgent(pool);
  // Watches hold their connections, so they are not counted.
  const watchAgent = newAgent({ keepAlive: false });
  const name = overSocket ? `unix:${address.socketPath}` : address.url;
  const prefix = url === undefined || url.pathname === "/" ? "" : url.pathname.replace(/\/$/, "");
  const base: RequestOptions = overSocket
    ? { socketPath: address.socketPath }
    : { host: (url?.hostname ?? "").replaceAll(/[[\]]/g, ""), port: url?.port || (secure ? 443 : 80) };

  function start(options: ApiRequestOptions, through: Agent | TlsAgent): ClientRequest {
    const headers: Record<string, string | number> = { Accept: "application/json" };
    const token = overSocket ? undefined : address.token;
    if (token !== undefined) headers["Authorization"] = `Bearer ${typeof token === "function" ? token() : token}`;
    if (options.body !== undefined) {
      headers["Content-Type"] = options.contentType ?? "application/json";
      headers["Content-Length"] = Buffer.byteLength(options.body);
    }
    const full = { ...base, method: options.method, path: prefix + options.path, headers, agent: through };
    const sent = secure ? https().request(full) : http.request(full);
    sent.setNoDelay(true);
    sent.end(options.body);
    return sent;
  }

  function failure(thrown: unknown, { attempt }: ApiRequestOptions): DatastoreError {
    if (thrown instanceof DatastoreError) return thrown;
    const code = codeOf(thrown);
    const reason = messageOf(thrown) || code || "the connection failed";
    return new DatastoreError("unavailable", `Cannot ${attempt} at ${name}: ${reason}`, { cause: thrown });
  }
  const late = ({ attempt, deadline }: ApiRequestOptions): DatastoreError =>
    new DatastoreError("timeout", `Cannot ${attempt} at ${name}: no answer within ${deadline} ms`);

  function once(options: ApiRequestOptions): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const sent = start(options, agent);
      const timer = setTimeout(() => sent.destroy(late(options)), options.deadline);
      const fail = (thrown: unknown): void => {
        clearTimeout(timer);
        reject(thrown instanceof Error ? thrown : new Error(String(thrown)));
      };
      sent.on("error", (thrown) => {
        // The server closed a connection that lay idle just as we used it. Reading again does no harm.
        const stale = sent.reusedSocket && (codeOf(thrown) === "ECONNRESET" || codeOf(thrown) === "EPIPE");
        if (!stale || options.method !== "GET") return fail(failure(thrown, options));
        clearTimeout(timer);
        once(options).then(resolve, reject);
      });
      sent.on("response", (response) => {
        readText(response).then(
          (text) => {
            clearTimeout(timer);
            const code = response.statusCode ?? 0;
            const body = parse(text);
            if (code >= 200 && code < 300 && body !== undefined) resolve(body);
            else reject(errorFromStatus(code, body, `${options.attempt} at ${name}`));
          },
          (thrown: unknown) => fail(failure(thrown, options)),
        );
      });
    });
  }

  async function* lines(options: ApiRequestOptions, signal: AbortSignal | undefined): AsyncGenerator<string, void> {
    if (signal?.aborted) return;
    const sent = start(options, watchAgent);
    const abort = (): unknown => sent.destroy();
    signal?.addEventListener("abort", abort);
    const timer = setTimeout(() => sent.destroy(late(options)), options.deadline);
    try {
      const response = await responseTo(sent);
      const code = response.statusCode ?? 0;
      if (code !== 200) throw errorFromStatus(code, parse(await readText(response)), `${options.attempt} at ${name}`);
      const split = lineSplitter();
      response.setEncoding("utf8");
      for await (const chunk of response) yield* split(chunk as string);
    } catch (thrown) {
      if (signal?.aborted !== true) throw failure(thrown, options);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      sent.destroy();
    }
  }

  return {
    request: once,
    lines,
    close() {
      agent.destroy();
      watchAgent.destroy();
    },
  };
}

function responseTo(sent: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    sent.on("response", resolve);
    // Stays for errors after the response, which its reader sees as well.
    sent.on("error", reject);
  });
}

function readText(response: IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => {
      text += chunk;
    });
    response.on("end", () => resolve(text));
    response.on("error", reject);
  });
}

/** Undefined for what is not JSON. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

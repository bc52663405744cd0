import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { listenOnSocket } from "../datastore/socket.io.ts";
import { messageOf } from "../lib/errors.ts";
import { http } from "../lib/http.io.ts";

/** An answer that is written as it comes. `gone` tells that nobody reads it any more. */
export interface StreamedBody {
  stream(response: ServerResponse, gone: AbortSignal): Promise<void>;
}

/** One question that the server answers: JSON for whoever asks, text, or a stream of bytes. */
export type Answer = (query: URLSearchParams) => Promise<{ readonly status: number; readonly body: unknown }>;

export interface StatusServer {
  close(): Promise<void>;
}

/** What this agent knows, for the command line: HTTP on `agent.sock`, which only root may use. */
export async function startStatusServer(
  path: string,
  answers: Readonly<Record<string, Answer>>,
): Promise<StatusServer> {
  const server = httpServer(answers);
  const listener = await listenOnSocket(server, path);
  return {
    close() {
      listener.remove();
      return closeServer(server);
    },
  };
}

/** The same on TCP, for probes and scrapers: `/liveness`, `/readiness`, `/metrics`. */
export async function startHttpServer(
  host: string,
  port: number,
  answers: Readonly<Record<string, Answer>>,
): Promise<StatusServer> {
  const server = httpServer(answers);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host, port, exclusive: true }, resolve);
  });
  return { close: () => closeServer(server) };
}

function httpServer(answers: Readonly<Record<string, Answer>>): Server {
  const server = http.createServer(
    { requestTimeout: 10_000, headersTimeout: 10_000, keepAliveTimeout: 5000 },
    (request, response) => {
      void respond(request, response, answers);
    },
  );
  return server;
}

async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  answers: Readonly<Record<string, Answer>>,
): Promise<void> {
  const url = new URL(request.url ?? "/", "http://agent");
  const answer = answers[url.pathname];
  const reply = (status: number, body: unknown): void => {
    const text = typeof body === "string" ? body : `${JSON.stringify(body)}\n`;
    response.writeHead(status, {
      "content-type": typeof body === "string" ? "text/plain; charset=utf-8" : "application/json",
    });
    response.end(text);
  };
  if (request.method !== "GET") return reply(405, { error: "only GET is answered here" });
  if (answer === undefined) return reply(404, { error: `no such path; there are ${Object.keys(answers).join(", ")}` });
  try {
    const { status, body } = await answer(url.searchParams);
    if (isStreamed(body)) await stream(response, body);
    else reply(status, body);
  } catch (error) {
    reply(500, { error: messageOf(error) });
  }
}

function isStreamed(body: unknown): body is StreamedBody {
  return typeof body === "object" && body !== null && "stream" in body && typeof body.stream === "function";
}

async function stream(response: ServerResponse, body: StreamedBody): Promise<void> {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  response.writeHead(200, { "content-type": "application/octet-stream" });
  response.flushHeaders();
  try {
    await body.stream(response, gone.signal);
    response.end();
  } catch (error) {
    // The answer has begun: that it is not whole is said by cutting it off.
    response.destroy(error instanceof Error ? error : undefined);
  }
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { CniCode } from "../cni/error.ts";
import type { CniNode } from "../cni/node.ts";
import { createCniPlugin, type CniPlugin } from "../cni/plugin.ts";
import { listenOnSocket, type SocketListener } from "../datastore/socket.io.ts";
import { messageOf } from "../lib/errors.ts";

/** Where the CNI plugin's requests arrive: `cni.sock`, which only root may use. */
export interface CniServer {
  /** Works off the DELs that came while no agent could: to be called when this one can. */
  workOff(): void;
  close(): Promise<void>;
}

export interface CniServerOptions {
  readonly runDirectory: string;
  readonly node: CniNode;
  readonly interfacePrefix: string;
  readonly onRequest: (milliseconds: number, ok: boolean) => void;
  readonly onError: (message: string) => void;
}

/** Environment and configuration together; a runtime's are a few KiB. */
const REQUEST_LIMIT = 2 << 20;
/** The shim sends all it has at once. */
const REQUEST_MS = 10_000;
/** DELs that came while no agent ran are looked for this often: a shim may have left one while we started. */
const DEFERRED_MS = 10_000;
/** What a request that says nothing sensible comes back with, now and for ever. */
const HOPELESS: ReadonlySet<CniCode> = new Set(["decode-failure", "invalid-environment", "incompatible-version"]);

export async function startCniServer(options: CniServerOptions): Promise<CniServer> {
  const { runDirectory, node, interfacePrefix, onError } = options;
  const plugin = createCniPlugin(node, interfacePrefix);
  const deferredDirectory = `${runDirectory}/cni-deferred`;
  mkdirSync(deferredDirectory, { recursive: true, mode: 0o700 });
  const open = new Set<Socket>();
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    serveOne(socket, plugin, options);
  });
  const listener: SocketListener = await listenOnSocket(server, `${runDirectory}/cni.sock`);
  let working: Promise<void> | undefined;
  const workOff = (): void => {
    if (node.notReady() !== undefined) return;
    working ??= workOffDeferred(deferredDirectory, plugin, onError)
      .catch((error: unknown) => onError(messageOf(error)))
      .finally(() => (working = undefined));
  };
  const timer = setInterval(workOff, DEFERRED_MS);
  timer.unref();
  return {
    workOff,
    async close() {
      clearInterval(timer);
      listener.remove();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await Promise.all([closed, working]);
    },
  };
}

function serveOne(socket: Socket, plugin: CniPlugin, { onRequest, onError }: CniServerOptions): void {
  const started = performance.now();
  const chunks: Buffer[] = [];
  let length = 0;
  socket.setTimeout(REQUEST_MS, () => socket.destroy());
  socket.on("error", (error) => onError(`a CNI request broke off: ${error.message}`));
  socket.on("data", (chunk: Buffer) => {
    length += chunk.length;
    if (length > REQUEST_LIMIT) socket.destroy(new Error(`it is larger than ${REQUEST_LIMIT} bytes`));
    else chunks.push(chunk);
  });
  socket.on("end", () => {
    socket.setTimeout(0);
    void plugin.answer(Buffer.concat(chunks)).then(({ ok, text }) => {
      onRequest(performance.now() - started, ok);
      // Not `end`, which closes in the next turn of the event loop: the shim waits for it, and the runtime for the shim.
      socket.write(`${ok ? "+" : "!"}${text}`, () => socket.destroy());
    });
  });
}

/** Each file is a request as the shim would have sent it. It goes when it has succeeded, and is tried again otherwise. */
async function workOffDeferred(
  directory: string,
  plugin: CniPlugin,
  onError: (message: string) => void,
): Promise<void> {
  for (const name of readdirSync(directory)) {
    if (name.startsWith(".")) continue; // still being written
    const path = `${directory}/${name}`;
    const answer = await plugin.answer(readFileSync(path));
    if (!answer.ok) onError(`the deferred CNI request ${path} failed: ${answer.text.trim()}`);
    if (answer.ok || HOPELESS.has(answer.error.code)) rmSync(path, { force: true });
  }
}

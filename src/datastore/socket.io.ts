/** A unix socket that only its owner can open, from the moment that it exists. */
import { lstatSync, unlinkSync } from "node:fs";
import { connect, type Server } from "node:net";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";

/** `in-use`: someone answers there. `bad-path`: too long, or something else is there. `refused`: the system says no. */
export class SocketError extends Failure<"in-use" | "bad-path" | "refused"> {}

export interface SocketListener {
  /** Removes the socket's file, if it is still the one that was made. */
  remove(): void;
}

/** `sun_path` of sockaddr_un, less its final zero (linux/un.h). */
const PATH_MAX = 107;

/** Listens at `path`, with rights 0600. What a dead server has left there is replaced. */
export async function listenOnSocket(server: Server, path: string): Promise<SocketListener> {
  const attempt = `Cannot listen on ${path}`;
  const length = Buffer.byteLength(path);
  if (length > PATH_MAX) {
    throw new SocketError(
      "bad-path",
      `${attempt}: it has ${length} bytes, a unix socket's path has at most ${PATH_MAX}`,
    );
  }
  await removeStale(path, attempt);
  await bind(server, path, attempt);
  const { ino } = lstatSync(path);
  return {
    remove() {
      if (inodeOf(path) === ino) unlinkSync(path);
    },
  };
}

function inodeOf(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.ino;
}

async function removeStale(path: string, attempt: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) throw new SocketError("bad-path", `${attempt}: something that is not a socket is there`);
  if (await answers(path)) throw new SocketError("in-use", `${attempt}: another process is listening there`);
  unlinkSync(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error) => resolve(codeOf(error) !== "ECONNREFUSED" && codeOf(error) !== "ENOENT"));
  });
}

function bind(server: Server, path: string, attempt: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => reject(new SocketError("refused", `${attempt}: ${messageOf(cause)}`, cause)));
    // The socket is made before `listen` returns, so nothing else is made under this mask.
    const previous = process.umask(0o177);
    try {
      server.listen(path, () => resolve());
    } finally {
      process.umask(previous);
    }
  });
}

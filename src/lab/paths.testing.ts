import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { Socket } from "node:net";
import { askAgent } from "../cli/agentClient.io.ts";
import type { PathStatus } from "../cli/statusTunnels.ts";
import { parseAddress } from "../ip/address.ts";
import { AF_INET, AF_INET6, connect, SOCK_STREAM } from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { nodeFiles, podNamespace } from "./files.ts";
import { eventually, inPod } from "./lab.testing.ts";
import { sockaddr } from "./sockaddr.ts";

/** What tests ask of the ways between pods of a lab. */

/** `CARACAL_TEST_TRANSFER_MB`: how much a transfer carries, each way. */
const TRANSFER_BYTES = Number(process.env["CARACAL_TEST_TRANSFER_MB"] ?? 4) * 1e6;
const CHUNK = 1 << 18;

/** Sends data by TCP from a pod to another's echo, and has the very same back; compared by their SHA-256. */
export async function transfer(lab: string, pod: string, address: string, port = 80): Promise<void> {
  const [namespace = "", name = ""] = pod.split("/");
  const to = parseAddress(address);
  const fd = socketIn(podNamespace(lab, namespace, name), to.family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
  connect(fd, sockaddr(to, port));
  const socket = new Socket({ fd });
  const chunk = randomBytes(CHUNK);
  const [sent, received] = [createHash("sha256"), createHash("sha256")];
  let greeting = -1;
  let length = 0;
  const done = new Promise<void>((resolve, reject) => {
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`the connection ended after ${length} bytes`)));
    socket.on("data", (data: Buffer) => {
      // One line comes before the echo.
      const start = greeting >= 0 ? 0 : data.indexOf("\n") + 1;
      if (greeting < 0 && start === 0) return;
      greeting = 1;
      received.update(data.subarray(start));
      length += data.length - start;
      if (length >= TRANSFER_BYTES) resolve();
    });
  });
  socket.setTimeout(10_000, () => socket.destroy(new Error(`nothing came for 10 s, after ${length} bytes`)));
  const send = async (): Promise<void> => {
    for (let left = TRANSFER_BYTES; left > 0; left -= CHUNK) {
      const part = chunk.subarray(0, Math.min(CHUNK, left));
      sent.update(part);
      if (!socket.write(part)) await Promise.race([once(socket, "drain"), done]);
    }
  };
  try {
    await Promise.all([send(), done]);
    assert.equal(length, TRANSFER_BYTES);
    assert.equal(received.digest("hex"), sent.digest("hex"));
  } finally {
    socket.removeAllListeners("close").destroy();
  }
}

/** A packet of exactly so many bytes, which may not be cut in pieces: whether it is answered. */
export async function passes(lab: string, pod: string, address: string, bytes: number): Promise<boolean> {
  const headers = address.includes(":") ? 48 : 28;
  const { code } = await inPod(lab, pod, ["ping", "-c1", "-W1", "-M", "do", "-s", String(bytes - headers), address]);
  return code === 0;
}

/** What a node has found of the ways to another, a line for each: `ipip reachable 1480/1480`. */
async function pathsOf(lab: string, node: string, other: string): Promise<string[]> {
  const status = await askAgent(`${nodeFiles(lab, node).runDirectory}/agent.sock`, "/status");
  return (status as { paths: { peers: readonly PathStatus[] } }).paths.peers
    .filter((path) => path.node === other)
    .map(({ kind, verdict, largest, mtu, text }) => `${kind} ${verdict} ${largest ?? 0}/${mtu} ${text}`.trim());
}

/** Waits until one node has found these of the ways to another. */
export async function foundPaths(lab: string, node: string, other: string, expected: readonly RegExp[]): Promise<void> {
  await eventually(async () => {
    const found = await pathsOf(lab, node, other);
    assert.equal(found.length, expected.length, found.join("\n"));
    for (const [index, line] of found.entries()) assert.match(line, expected[index]!);
  });
}

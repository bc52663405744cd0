import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inNamespace } from "../netlink/namespace.io.ts";

/** What tcpdump writes to a file, and the frames in it. */

export interface Capture {
  /** Ends it, and returns all frames that went by, whole. */
  stop(): Promise<Uint8Array[]>;
}

/** Captures on a link of a namespace; resolves when nothing more gets by unseen. */
export async function startCapture(namespace: string, link: string): Promise<Capture> {
  const directory = mkdtempSync(join(tmpdir(), `caracal-capture-${process.pid}-`));
  const file = join(directory, "frames.pcap");
  const words = ["-i", link, "-w", file, "-U", "--immediate-mode", "-Z", "root", "-s", "0"];
  const child = inNamespace(namespace, () => spawn("tcpdump", words, { stdio: ["ignore", "ignore", "pipe"] }));
  const ended = once(child, "close");
  let said = "";
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => reject(new Error(`tcpdump has ended: ${said}`)));
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (said.includes("listening on")) resolve();
    });
  });
  return {
    async stop() {
      child.kill("SIGINT");
      await ended;
      const frames = readPcap(readFileSync(file));
      rmSync(directory, { recursive: true });
      return frames;
    },
  };
}

const MAGIC = 0xa1b2c3d4;
const ETHERNET = 1;
const [FILE_HEADER, RECORD_HEADER] = [24, 16];

/**
 * The frames of a capture file of this machine's byte order (draft-ietf-opsawg-pcap section 4). Throws where it is none,
 * or has a frame that was cut short.
 */
export function readPcap(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < FILE_HEADER || view.getUint32(0, true) !== MAGIC || view.getUint32(20, true) !== ETHERNET)
    throw new Error("this is no pcap file of Ethernet frames");
  const frames: Uint8Array[] = [];
  for (let at = FILE_HEADER; at < bytes.length;) {
    const [captured, length] = [view.getUint32(at + 8, true), view.getUint32(at + 12, true)];
    if (captured !== length) throw new Error(`a frame was captured with ${captured} of ${length} bytes only`);
    frames.push(bytes.slice(at + RECORD_HEADER, at + RECORD_HEADER + length));
    at += RECORD_HEADER + length;
  }
  return frames;
}

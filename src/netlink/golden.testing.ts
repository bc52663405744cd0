import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ByteWriter, fromHex, toHex } from "../lib/bytes.ts";
import { ACK, decodeMessages, encodeMessage, type Message, type Request } from "./framing.ts";

/** One command of iproute2 and what it exchanged with the kernel, as `golden/capture.sh` wrote it down. */
export interface Golden {
  readonly command: string;
  readonly sent: readonly string[];
  readonly answers: readonly Uint8Array[];
  /** What the command printed. */
  readonly printed: readonly string[];
}

export function readGolden(name: string): Golden[] {
  const goldens: { command: string; sent: string[]; answers: Uint8Array[]; printed: string[] }[] = [];
  for (const line of readFileSync(join(import.meta.dirname, "golden", `${name}.hex`), "utf8").split("\n")) {
    const last = goldens.at(-1);
    const rest = line.slice(2);
    if (line.startsWith("$ ")) goldens.push({ command: rest, sent: [], answers: [], printed: [] });
    else if (line.startsWith("> ")) last?.sent.push(rest);
    else if (line.startsWith("< ")) last?.answers.push(fromHex(rest));
    else if (line.startsWith("# ")) last?.printed.push(rest);
  }
  return goldens;
}

/** Our message as the goldens write theirs: words of 4 bytes, the sequence number zero. */
export function wireOf(request: Request): string {
  const writer = new ByteWriter();
  encodeMessage(writer, request, ACK, 0);
  return toHex(writer.finish()).replaceAll(/.{8}(?!$)/g, "$& ");
}

/** Our request as a message, which a codec that is right decodes to what was encoded. */
export function messageOf(request: Request): Message {
  const writer = new ByteWriter();
  encodeMessage(writer, request, 0, 1);
  return decodeMessages(writer.finish())[0]!;
}

// A speaker in a process of its own, so that a test can kill it as a crash would: configured by its first argument, told
// what to do by lines of JSON on its standard input, and telling what happens by lines of JSON on its standard output.
import { createInterface } from "node:readline";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PeerConfig, PeerStatus, SpeakerConfig } from "./config.ts";
import { createSpeaker } from "./speaker.io.ts";

export interface ProcessConfig {
  readonly speaker: SpeakerConfig;
  readonly peers: readonly PeerConfig[];
  readonly originate: readonly string[];
  /** Tells nothing of routes. */
  readonly silent?: boolean;
}

export type Command =
  | { readonly originate: readonly string[] }
  | { readonly status: true }
  | { readonly close: string };

export type Report =
  | {
      readonly type: "routes";
      readonly changes: readonly { readonly prefix: string; readonly nextHops: readonly string[] }[];
    }
  | { readonly type: "settled" }
  | { readonly type: "status"; readonly peers: readonly PeerStatus[] };

if (import.meta.main) {
  const say = (report: Report): void => void process.stdout.write(`${JSON.stringify(report)}\n`);
  const config = JSON.parse(process.argv[2] ?? "{}") as ProcessConfig;
  const speaker = await createSpeaker(config.speaker);
  const originate = (prefixes: readonly string[]): void => {
    speaker.setOrigination(prefixes.map((prefix) => ({ prefix: parsePrefix(prefix) })));
  };
  if (config.silent !== true) {
    speaker.on("routes", (changes) => {
      const texts = changes.map(({ prefix, nextHops }) => ({
        prefix: formatPrefix(prefix),
        nextHops: nextHops.map(({ nextHop }) => formatAddress(nextHop)),
      }));
      say({ type: "routes", changes: texts });
    });
  }
  speaker.on("settled", () => say({ type: "settled" }));
  originate(config.originate);
  speaker.setPeers(config.peers);
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line) as Command;
    if ("originate" in command) originate(command.originate);
    else if ("status" in command) say({ type: "status", peers: speaker.peers() });
    else await speaker.close(command.close);
  }
  await speaker.abandon();
}

import { release } from "node:os";
import { testChecksumOffload, type ChecksumVerdict } from "../dataplane/checksumTest.io.ts";
import { checksumOffload } from "../dataplane/tunnelDevices.ts";
import type { Address } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { setTransmitChecksumOffload, transmitChecksumOffload } from "../netlink/ethtool.io.ts";

/** Sees to it that a VXLAN's checksums are right: by the setting, by the kernel's age, or by trying it out. */
export interface OffloadKeeper {
  /** The device is up, with these other ends; `index` tells it from one of the same name before. */
  attend(device: string, index: number, own: Address, peers: readonly Address[]): void;
  /** What was found, and what is in force. */
  verdict(device: string): OffloadVerdict | undefined;
}

export type OffloadVerdict = ChecksumVerdict | "not asked" | "set off";

export interface OffloadOptions {
  readonly featureDetectOverride: () => string;
  /** Asks to be called again after so many milliseconds. */
  readonly later: (milliseconds: number) => void;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** How many other nodes are asked, and how often and how soon again where none of them has answered. */
const ASKED = 3;
const ATTEMPTS = 5;
const AGAIN_MS = 30_000;

export function createOffloadKeeper({ featureDetectOverride, later, log }: OffloadOptions): OffloadKeeper {
  interface Known {
    readonly index: number;
    verdict?: OffloadVerdict;
    attempts: number;
    busy: boolean;
    notBefore: number;
  }
  const known = new Map<string, Known>();

  function ask(device: string, state: Known, own: Address, peers: readonly Address[]): void {
    const now = performance.now();
    const isDone = state.verdict === "fine" || state.verdict === "broken" || state.attempts >= ATTEMPTS;
    if (isDone || state.busy || now < state.notBefore || peers.length === 0) return;
    state.busy = true;
    state.attempts += 1;
    state.notBefore = now + AGAIN_MS;
    testChecksumOffload(device, own, chosen(peers))
      .then((verdict) => {
        state.verdict = verdict;
        if (verdict === "broken") {
          log("warn", "checksums in the VXLAN came out wrong, and are the kernel's own from now on", { device });
        } else if (verdict === "unknown") later(AGAIN_MS + 1);
      })
      .catch((error: unknown) =>
        log("warn", "checksums in the VXLAN cannot be tried", { device, reason: messageOf(error) }),
      )
      .finally(() => {
        state.busy = false;
      });
  }

  return {
    attend(device, index, own, peers) {
      let state = known.get(device);
      if (state?.index !== index) {
        state = { index, attempts: 0, busy: false, notBefore: 0 };
        known.set(device, state);
      }
      const choice = checksumOffload(featureDetectOverride(), release());
      if (choice === "test") ask(device, state, own, peers);
      else state.verdict = choice === "off" ? "set off" : "not asked";
      if (choice === "off" && transmitChecksumOffload(device)) setTransmitChecksumOffload(device, false);
    },
    verdict: (device) => known.get(device)?.verdict,
  };
}

/** A few of them, each node others. */
function chosen(peers: readonly Address[]): Address[] {
  const start = Math.floor(Math.random() * peers.length);
  return [...peers.slice(start), ...peers.slice(0, start)].slice(0, ASKED);
}

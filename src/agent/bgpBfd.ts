import type { BfdSettings } from "../bgp/config.ts";
import { messageOf } from "../lib/errors.ts";
import { parseDuration } from "../resources/fields.ts";

/**
 * Watches the peers of a BGPPeer, or of the mesh on the BGPConfiguration `default` (RFC 5880). Calico has no field for it:
 * `true`, or `interval=300ms, multiplier=3` or one of the two.
 */
export const BFD_ANNOTATION = "caracal.dev/bfd";

/** What the annotations of an object say, or what is wrong with it. */
export function bfdOf(annotations: Readonly<Record<string, string>> = {}): { bfd?: BfdSettings; problem?: string } {
  const text = annotations[BFD_ANNOTATION];
  if (text === undefined || text === "false") return {};
  try {
    return { bfd: readBfd(text) };
  } catch (thrown) {
    return { problem: `annotation ${BFD_ANNOTATION}: ${messageOf(thrown)}` };
  }
}

function readBfd(text: string): BfdSettings {
  if (text === "true") return {};
  const words = new Map(text.split(",").map((part) => part.trim().split("=") as [string, string | undefined]));
  const settings: { interval?: number; multiplier?: number } = {};
  for (const [word, value = ""] of words) {
    if (word === "interval") settings.interval = parseDuration(value);
    else if (word === "multiplier" && /^[0-9]{1,3}$/.test(value)) settings.multiplier = Number(value);
    else throw new TypeError(`"${text}" is not true, or like interval=300ms, multiplier=3`);
  }
  const { interval = 300, multiplier = 3 } = settings;
  if (interval < 10 || interval > 60_000) throw new RangeError(`an interval of ${interval} ms is not 10 ms to 60 s`);
  if (multiplier < 1 || multiplier > 255) throw new RangeError(`a multiplier of ${multiplier} is not 1 to 255`);
  return settings;
}

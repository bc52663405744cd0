/** Hashes by which labels are looked up: quick to make, and no more than a hint. */
import type { Labels } from "../resources/selector.ts";

/**
 * FNV-1a of each label's value, added up, so that the order of keys does not matter. Of a key a few letters do: the same
 * few keys are everywhere, and their letters are most of all.
 */
export function hashLabels(labels: Labels): number {
  let sum = 0;
  for (const key in labels) {
    const end = key.length - 1;
    const letters = (key.charCodeAt(0) << 16) ^ (key.charCodeAt(end) << 8) ^ key.charCodeAt(end - 1) ^ (end << 24);
    sum = (sum + fnv(labels[key]!, FNV_OFFSET ^ letters)) | 0;
  }
  return sum;
}

const FNV_OFFSET = 0x811c9dc5 | 0;
const FNV_PRIME = 0x01000193;

function fnv(text: string, start: number): number {
  let hash = Math.imul(start ^ text.length, FNV_PRIME);
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), FNV_PRIME);
  return hash;
}

export const hashText = (text: string): number => fnv(text, FNV_OFFSET);

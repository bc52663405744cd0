/** The kinds of objects as they are named on the command line. */
import { Failure } from "../lib/errors.ts";
import { KIND, kindNamed, kindWords, type KindId } from "../resources/registry.ts";
import { didYouMean } from "../resources/suggestion.ts";

export class UnknownKind extends Failure<"unknown-kind"> {}

/** The kind that a word means (`pods`, `po`, `ippool`); throws `UnknownKind` with a suggestion. */
export function kindIn(word: string): KindId {
  const kind = kindNamed(word);
  if (kind !== undefined) return kind;
  throw new UnknownKind("unknown-kind", `there is no kind of object called "${word}"${didYouMean(word, kindWords())}`);
}

/** `pod`, `ippool.projectcalico.org`. */
export function singularName(kind: KindId): string {
  const { group, singular } = KIND[kind];
  return group === "" ? singular : `${singular}.${group}`;
}

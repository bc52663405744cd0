/** Which objects a list or a watch asks for: a namespace, a label selector, a field selector. */
import type { Resource } from "../resources/kind.ts";
import { matchesLabels, parseLabelQuery } from "../resources/labelSelector.ts";
import type { KindId } from "../resources/registry.ts";
import type { Selection } from "./datastore.ts";
import { isFields } from "./patch.ts";
import { badRequest } from "./refusal.ts";
import type { Change } from "./versionedLog.ts";
import { messageOf } from "../lib/errors.ts";

/** Fields that Kubernetes lets one select by, beside those of metadata. */
const SELECTABLE: { readonly [Kind in KindId]?: readonly string[] } = {
  Pod: ["spec.nodeName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase", "status.podIP"],
  Namespace: ["status.phase"],
};

export type Matcher = (object: Resource) => boolean;

/** What the selection lets through; throws `invalid` for a selector that cannot be read. */
export function matcherOf(kind: KindId, selection: Selection): Matcher {
  const tests: Matcher[] = [];
  const { namespace, labelSelector, fieldSelector } = selection;
  if (namespace !== undefined && namespace !== "") tests.push((object) => object.metadata.namespace === namespace);
  if (labelSelector !== undefined && labelSelector.trim() !== "") tests.push(labelTest(labelSelector));
  for (const term of (fieldSelector ?? "").split(",")) if (term.trim() !== "") tests.push(fieldTest(kind, term.trim()));
  return (object) => tests.every((test) => test(object));
}

function labelTest(text: string): Matcher {
  try {
    const selector = parseLabelQuery(text);
    return (object) => matchesLabels(selector, object.metadata.labels ?? {});
  } catch (thrown) {
    throw badRequest(`unable to parse the label selector ${JSON.stringify(text)}: ${messageOf(thrown)}`);
  }
}

/** `path=value`, `path==value` or `path!=value`; an absent field is the empty text. */
function fieldTest(kind: KindId, term: string): Matcher {
  const parts = /^([^=!]+)(==|=|!=)(.*)$/.exec(term);
  if (parts === null)
    throw badRequest(`invalid field selector ${JSON.stringify(term)}: it is not path=value or path!=value`);
  const [, path = "", operator = "", value = ""] = parts;
  const known = ["metadata.name", "metadata.namespace", ...(SELECTABLE[kind] ?? [])];
  if (!known.includes(path)) throw badRequest(`field label not supported: ${path} (of ${kind}: ${known.join(", ")})`);
  const way = path.split(".");
  return (object) => {
    const found = way.reduce<unknown>((parent, field) => (isFields(parent) ? parent[field] : undefined), object);
    const text = typeof found === "string" ? found : typeof found === "boolean" ? String(found) : "";
    return (text === value) === (operator !== "!=");
  };
}

/** What a change means to someone who sees only what matches; undefined when they see nothing of it. */
export function changeSeen(change: Change, matches: Matcher): "added" | "modified" | "deleted" | undefined {
  const before = change.previous !== undefined && matches(change.previous.object);
  const after = change.type !== "deleted" && matches(change.entry.object);
  if (after) return before ? "modified" : "added";
  return before ? "deleted" : undefined;
}

import { defineKind, type ItemOf } from "./define.ts";
import { boolean, mapOf, optional, string, text } from "./schema.ts";

const base64 = text("text in base64", (value) => {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value)) {
    throw new TypeError("is not base64");
  }
  return value;
});

/** What only those may read who are meant to: of it we use the passwords of BGP sessions. */
export const secret = defineKind({
  kind: "Secret",
  group: "",
  version: "v1",
  plural: "secrets",
  namespaced: true,
  fields: {
    type: optional(string),
    /** In base64. */
    data: optional(mapOf(base64)),
    /** As it is; comes before `data`. The Kubernetes API server takes it and gives it back in `data`. */
    stringData: optional(mapOf(string)),
    immutable: optional(boolean),
  },
  columns: [
    { heading: "TYPE", text: ({ type }) => type ?? "Opaque" },
    {
      heading: "DATA",
      text: ({ data = {}, stringData = {} }) => Object.keys({ ...data, ...stringData }).length.toString(),
    },
  ],
});
export type Secret = ItemOf<typeof secret>;

/** The value of a key, undefined where the Secret has none. */
export function secretValue({ data, stringData }: Secret, key: string): string | undefined {
  if (stringData !== undefined && Object.hasOwn(stringData, key)) return stringData[key];
  const encoded = data !== undefined && Object.hasOwn(data, key) ? data[key] : undefined;
  if (encoded === undefined) return undefined;
  return new TextDecoder().decode(Uint8Array.from(atob(encoded), (letter) => letter.codePointAt(0) ?? 0));
}

import { parsePrefix, type Prefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { LabError } from "./labError.ts";

/** Values of a `lab.yaml` that was read into an object. Each throws `LabError` with the path of what is wrong. */

export function fault(path: string, reason: string): LabError {
  return new LabError("bad-definition", `the lab definition is not valid: ${path}: ${reason}`);
}

export function oneOf<const Word extends string>(value: unknown, path: string, words: readonly Word[]): Word {
  const word = words.find((each) => each === value);
  if (word === undefined) throw fault(path, `expected ${words.map((each) => `"${each}"`).join(" or ")}`);
  return word;
}

export function textsAt(value: unknown, path: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(objectAt(value, path)).map(([key, text]) => {
      if (typeof text !== "string") throw fault(`${path}.${key}`, "expected text");
      return [key, text];
    }),
  );
}

export function prefixAt(value: unknown, path: string, family: 4 | 6): Prefix {
  if (typeof value !== "string") throw fault(path, "expected a CIDR");
  let prefix: Prefix;
  try {
    prefix = parsePrefix(value);
  } catch (error) {
    throw fault(path, messageOf(error));
  }
  if (prefix.address.family !== family) throw fault(path, `expected an IPv${family} CIDR, found "${value}"`);
  return prefix;
}

export function objectAt(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw fault(path, "expected an object");
  return { ...value };
}

export function onlyFields(value: Record<string, unknown>, path: string, known: readonly string[]): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw fault(`${path}.${unknown}`, `unknown field; known are ${known.join(", ")}`);
}

export function namesAt(value: unknown, path: string): string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw fault(path, "expected a list of names");
  return value.map((name: unknown, index) => nameAt(name, `${path}[${index}]`));
}

/** A part of a namespace's name, and a Kubernetes node name. */
export function nameAt(name: unknown, path: string): string {
  if (typeof name !== "string" || !/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(name)) {
    throw fault(path, `${JSON.stringify(name)} is not a name of lower-case letters, digits and "-", 40 at most`);
  }
  return name;
}

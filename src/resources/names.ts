import { createHash } from "node:crypto";
import { Failure } from "../lib/errors.ts";

/** A name, label or annotation that breaks the rules for its place. */
export class NameError extends Failure<"bad-name"> {
  constructor(message: string) {
    super("bad-name", message);
  }
}

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const LABEL_1035 = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const QUALIFIED = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** RFC 1123 subdomain of at most 253 characters: the name of most objects. Returns the name or throws `NameError`. */
export function subdomainName(name: string): string {
  if (name.length > 253) throw new NameError(`"${name.slice(0, 40)}…" is longer than 253 characters`);
  for (const part of name.split(".")) {
    if (!LABEL.test(part)) {
      throw new NameError(
        `"${name}" is not a name: lower-case letters, digits, "-" and "." only, beginning and ending with a letter or digit`,
      );
    }
  }
  return name;
}

/** RFC 1123 label of at most 63 characters: namespaces, containers. */
export function labelName(name: string): string {
  if (name.length > 63) throw new NameError(`"${name.slice(0, 40)}…" is longer than 63 characters`);
  if (!LABEL.test(name)) {
    throw new NameError(
      `"${name}" is not a name: lower-case letters, digits and "-" only, beginning and ending with a letter or digit`,
    );
  }
  return name;
}

/** RFC 1035 label: services, whose names become DNS labels that may not begin with a digit. */
export function serviceName(name: string): string {
  if (name.length > 63 || !LABEL_1035.test(name)) {
    throw new NameError(
      `"${name}" is not a service name: at most 63 lower-case letters, digits and "-", beginning with a letter`,
    );
  }
  return name;
}

/** Configuration for all nodes is named `default`, for one of them `node.<its name>`. */
export function configurationName(name: string): string {
  if (name !== "default" && !name.startsWith("node.")) {
    throw new NameError(`"${name}" must be "default", or "node." and the name of a node`);
  }
  return subdomainName(name);
}

/** Of kinds of which there is one object in the cluster. */
export function defaultName(name: string): string {
  if (name !== "default") throw new NameError(`"${name}" must be "default": there is one such object`);
  return name;
}

/** RFC 6335 service name: the name of a port. */
export function portName(name: string): string {
  const fits = name.length <= 15 && LABEL.test(name) && /[a-z]/.test(name) && !name.includes("--");
  if (!fits) {
    throw new NameError(
      `"${name}" is not a port name: at most 15 lower-case letters, digits and single "-", with at least one letter`,
    );
  }
  return name;
}

/** The key of a label or annotation: `name` or `domain/name`. */
export function labelKey(key: string): string {
  const slash = key.indexOf("/");
  const name = key.slice(slash + 1);
  if (slash >= 0) {
    try {
      subdomainName(key.slice(0, slash).toLowerCase());
    } catch {
      throw new NameError(`"${key}" is not a key: what stands before "/" must be a domain name`);
    }
  }
  if (name.length > 63 || !QUALIFIED.test(name)) {
    throw new NameError(
      `"${key}" is not a key: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit`,
    );
  }
  return key;
}

export function labelValue(value: string): string {
  if (value !== "" && (value.length > 63 || !QUALIFIED.test(value))) {
    throw new NameError(
      `"${value}" is not a label value: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit`,
    );
  }
  return value;
}

/**
 * The host side of a pod's veth: `prefix` and the first 11 hex digits of SHA-1("<namespace>.<pod>"). It depends on
 * the pod's name only, so that a pod that is made anew finds its old interface.
 */
export function hostInterfaceName(namespace: string, pod: string, prefix: string): string {
  return prefix + createHash("sha1").update(`${namespace}.${pod}`).digest("hex").slice(0, 11);
}

/** `<node>-k8s-<pod>-<interface>`; `-` inside a part is doubled, so that no two endpoints share a name. */
export function workloadEndpointName(node: string, pod: string, interfaceName: string): string {
  const doubled = (part: string): string => (part.includes("-") ? part.replaceAll("-", "--") : part);
  return `${doubled(node)}-k8s-${doubled(pod)}-${doubled(interfaceName)}`;
}

/** The name of a block's object: its CIDR with `.`, `:` and `/` as `-`. */
export function blockName(cidr: string): string {
  return cidr.replaceAll(/[.:/]/g, "-");
}

/** The name of the object that says that `host` holds the block. Too long a name is cut and ends in its hash. */
export function blockAffinityName(host: string, cidr: string): string {
  return hashedName(`${host}-${blockName(cidr)}`, 253);
}

/** The name of a handle's object: names are lower case, handles need not be. */
export function handleName(handleId: string): string {
  return handleId.toLowerCase();
}

/** `name`, or where that is too long, what fits of it, `-` and 64 hex digits of its SHA-256. */
function hashedName(name: string, max: number): string {
  if (name.length <= max) return name;
  const hash = createHash("sha256").update(name).digest("hex");
  return `${name.slice(0, max - hash.length - 1)}-${hash}`;
}

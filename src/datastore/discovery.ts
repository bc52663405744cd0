/** The documents by which clients such as `kubectl` find out what the API server has. */
import type { KindInfo } from "../resources/kind.ts";
import { KINDS } from "../resources/registry.ts";

/** What `kubectl get all` shows. */
const ALL = ["Pod", "Service"];
const VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/** Of the Kubernetes release whose conventions are followed: clients adapt to it. */
export const VERSION = {
  major: "1",
  minor: "32",
  gitVersion: "v1.32.0+caracal",
  gitCommit: "",
  gitTreeState: "clean",
  buildDate: "1970-01-01T00:00:00Z",
  goVersion: "",
  compiler: "",
  platform: "linux",
};

export function coreVersions(): object {
  return { kind: "APIVersions", versions: ["v1"], serverAddressByClientCIDRs: [] };
}

export function groupList(): object {
  const groups = [...new Set(KINDS.map((info) => info.group))].filter((group) => group !== "").toSorted();
  return { kind: "APIGroupList", apiVersion: "v1", groups: groups.map(describeGroup) };
}

export function groupOf(group: string): object {
  return { kind: "APIGroup", apiVersion: "v1", ...describeGroup(group) };
}

function describeGroup(group: string): object {
  const versions = [...new Set(KINDS.filter((info) => info.group === group).map((info) => info.version))]
    .toSorted()
    .map((version) => ({ groupVersion: `${group}/${version}`, version }));
  return { name: group, versions, preferredVersion: versions.at(-1) };
}

const kindsAt = (group: string, version: string): KindInfo[] =>
  KINDS.filter((info) => info.group === group && info.version === version);

export const apiVersionOf = ({ group, version }: { group: string; version: string }): string =>
  group === "" ? version : `${group}/${version}`;

export function resourceList(group: string, version: string): object {
  const resources = kindsAt(group, version).flatMap((info) => {
    const { plural, kind, namespaced, singular, shortNames } = info;
    const categories = group === "" && ALL.includes(kind) ? { categories: ["all"] } : {};
    const own = { name: plural, singularName: singular, namespaced, kind, verbs: VERBS, shortNames, ...categories };
    const status = { name: `${plural}/status`, singularName: "", namespaced, kind, verbs: ["get", "patch", "update"] };
    return info.status ? [own, status] : [own];
  });
  return { kind: "APIResourceList", apiVersion: "v1", groupVersion: apiVersionOf({ group, version }), resources };
}

const pathOfVersion = (group: string, version: string): string =>
  group === "" ? `api/${version}` : `apis/${group}/${version}`;

/** The list of OpenAPI documents, one for each group and version. */
export function openapiIndex(): object {
  const places = new Set(KINDS.map(({ group, version }) => pathOfVersion(group, version)));
  return {
    paths: Object.fromEntries(
      [...places].map((place) => [place, { serverRelativeURL: `/openapi/v3/${place}?hash=${VERSION.gitVersion}` }]),
    ),
  };
}

/**
 * As much of OpenAPI as `kubectl apply` asks before it trusts the server to check fields: that a patch takes the
 * parameter `fieldValidation`. The fields themselves are not described; the server refuses the wrong ones.
 */
export function openapiOf(group: string, version: string): object {
  const parameter = (name: string): object => ({ name, in: "query", schema: { type: "string" } });
  const place = pathOfVersion(group, version);
  const paths = kindsAt(group, version).map(({ plural, namespaced, kind }) => {
    const gvk = { "x-kubernetes-group-version-kind": { group, version, kind } };
    const write = { parameters: ["dryRun", "fieldManager", "fieldValidation"].map(parameter), responses: {}, ...gvk };
    const operations = { patch: write, put: write, delete: { responses: {}, ...gvk }, get: { responses: {}, ...gvk } };
    return [`/${place}/${namespaced ? "namespaces/{namespace}/" : ""}${plural}/{name}`, operations];
  });
  const schemas = kindsAt(group, version).map(({ kind }) => [
    [...(group === "" ? ["core"] : group.split(".").toReversed()), version, kind].join("."),
    {
      type: "object",
      "x-kubernetes-group-version-kind": [{ group, version, kind }],
      "x-kubernetes-preserve-unknown-fields": true,
    },
  ]);
  return {
    openapi: "3.0.0",
    info: { title: "Caracal", version: VERSION.gitVersion },
    paths: Object.fromEntries(paths) as object,
    components: { schemas: Object.fromEntries(schemas) as object },
  };
}

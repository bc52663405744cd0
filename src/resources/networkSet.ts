import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { net } from "./fields.ts";
import { arrayOf, object, withDefault } from "./schema.ts";

const spec = withDefault(object({ nets: withDefault(arrayOf(net), []) }), { nets: [] });
const columns = [{ heading: "NETS", text: (item: { spec: { nets: string[] } }) => item.spec.nets.join(",") }];

/** The label that stands for the namespace itself cannot be given by hand. */
function checkLabels(
  { metadata }: { metadata: { labels?: Record<string, string> } },
  fault: (reason: string, path: string) => void,
): void {
  const label = "projectcalico.org/namespace";
  if (metadata.labels?.[label] !== undefined) fault("is set by the system", `metadata.labels["${label}"]`);
}

/** Networks that rules select by label, in one namespace. */
export const networkSet = defineKind({
  kind: "NetworkSet",
  group: CALICO,
  version: "v3",
  plural: "networksets",
  shortNames: ["netset", "netsets"],
  namespaced: true,
  fields: { spec },
  check: checkLabels,
  columns,
});
export type NetworkSet = ItemOf<typeof networkSet>;

/** Networks that rules select by label, outside every namespace. */
export const globalNetworkSet = defineKind({
  kind: "GlobalNetworkSet",
  group: CALICO,
  version: "v3",
  plural: "globalnetworksets",
  shortNames: ["gnetset", "gnetsets"],
  fields: { spec },
  check: checkLabels,
  columns,
});
export type GlobalNetworkSet = ItemOf<typeof globalNetworkSet>;

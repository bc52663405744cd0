import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import { formatAddress } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { membersOf, type LabDefinition } from "./definition.ts";
import { AS_NUMBER } from "./router.io.ts";

/** Objects of the datastore that a lab has from the start. They are written as soon as the API server answers. */

export interface Writing {
  readonly datastore: Datastore;
  readonly signal: AbortSignal;
  readonly note: (message: string) => void;
}

/** Tries until the API server has answered, be it that the object is there. */
async function writeOnce(what: string, { signal, note }: Writing, write: () => Promise<unknown>): Promise<void> {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      await write();
      return;
    } catch (error) {
      if (isDatastoreError(error, "already-exists")) return;
      if (tries % 50 === 49) note(`${what} cannot be written: ${messageOf(error)}`);
      await new Promise((resolve) => setTimeout(resolve, 50)); // the API server is still starting
    }
  }
}

/** Nodes do not speak BGP with each other. */
export function switchMeshOff(writing: Writing): Promise<void> {
  return writeOnce("the BGPConfiguration", writing, () =>
    writing.datastore.create("BGPConfiguration", {
      apiVersion: "projectcalico.org/v3",
      kind: "BGPConfiguration",
      metadata: { name: "default" },
      spec: { nodeToNodeMeshEnabled: false, logSeverityScreen: "Info", serviceLoadBalancerAggregation: "Enabled" },
    }),
  );
}

/** Labels and annotations of nodes that have some; the rest of a Node is its agent's. */
export async function describeNodes(definition: LabDefinition, writing: Writing): Promise<void> {
  await Promise.all(
    membersOf(definition, "node").map(async ({ name, labels, annotations }) => {
      if (labels === undefined && annotations === undefined) return;
      const metadata = { ...(labels !== undefined && { labels }), ...(annotations !== undefined && { annotations }) };
      await writeOnce(`the Node ${name}`, writing, () =>
        writing.datastore.patch("Node", name, undefined, { metadata }),
      );
    }),
  );
}

/** Tells the nodes of the router: one BGPPeer per segment and family, for the nodes on it. */
export async function announceRouter(definition: LabDefinition, writing: Writing): Promise<void> {
  const peers = definition.segments.flatMap((segment, index) => {
    const nodes = segment.members.filter(({ role }) => role === "node").map(({ name }) => `'${name}'`);
    const addresses = [segment.router, segment.router6].filter((address) => address !== undefined);
    return nodes.length === 0
      ? []
      : addresses.map((address) => ({
          name: `router-segment-${index + 1}${address.family === 6 ? "-v6" : ""}`,
          peerIP: formatAddress(address),
          nodeSelector: `kubernetes.io/hostname in { ${nodes.join(", ")} }`,
        }));
  });
  for (const { name, ...spec } of peers) {
    await writeOnce(`the router's BGPPeer ${name}`, writing, () =>
      writing.datastore.create("BGPPeer", {
        apiVersion: "projectcalico.org/v3",
        kind: "BGPPeer",
        metadata: { name },
        spec: { ...spec, asNumber: AS_NUMBER, sourceAddress: "UseNodeIP" },
      }),
    );
  }
}

import { nodePolicy, type NodePolicy } from "../src/agent/policy.io.ts";
import type { Renderer } from "../src/agent/nodeFacts.ts";
import type { Endpoint } from "../src/dataplane/endpoint.ts";
import { parseAddress } from "../src/ip/address.ts";
import { openRtnetlink } from "../src/netlink/rtnetlink.io.ts";
import { felixSettings } from "../src/resources/config.ts";
import { hostInterfaceName } from "../src/resources/names.ts";
import { KIND, type KindId, type Kinds } from "../src/resources/registry.ts";
import { NODE } from "./policy-objects.ts";

/**
 * The policy of an agent, as the agent wires it, in this process and its network namespace: what the datastore would say
 * is given to it as objects.
 */
export interface PolicyNode {
  readonly policy: NodePolicy;
  /** A pod of this node is attached, and in the datastore. */
  addOwn(pod: Kinds["Pod"]): void;
  /** Resolves when everything told until now is in the kernel; rejects where the kernel refuses any of it. */
  inForce(): Promise<void>;
  close(): Promise<void>;
}

const PREFIX = "cali";
const MINUTES = 60_000;
/** All pods' addresses are of it. */
const POOL = KIND.IPPool.parse({
  apiVersion: "projectcalico.org/v3",
  kind: "IPPool",
  metadata: { name: "pods" },
  spec: { cidr: "10.0.0.0/8" },
});

/** @param onApplied something was brought into the kernel */
export function openPolicyNode(renderer: Renderer, onApplied: () => void = () => undefined): PolicyNode {
  const settings = felixSettings({
    environment: { nftablesMode: renderer === "nft" ? "Enabled" : "Disabled", interfacePrefix: [PREFIX] },
  });
  const rtnetlink = openRtnetlink();
  const policy = nodePolicy({
    nodeName: NODE,
    interfacePrefix: PREFIX,
    isWorkloadInterface: (name) => name.startsWith(PREFIX),
    cutForbidden: false,
    ownsTables: true,
    rtnetlink,
    datastore: { get: () => Promise.resolve(undefined) },
    cluster: () => ({
      items: <K extends KindId>(kind: K): Kinds[K][] => (kind === "IPPool" ? ([POOL] as unknown as Kinds[K][]) : []),
      get: () => undefined,
      isSynced: () => true,
    }),
    settings: () => settings,
    onApplied,
    log: (level, message, fields) => process.stderr.write(`${level}: ${message} ${JSON.stringify(fields)}\n`),
  });
  return {
    policy,
    addOwn(pod) {
      policy.endpoints.adopted(attachment(pod));
      policy.listener.put("Pod", pod);
    },
    async inForce() {
      const { engine } = policy;
      if (!engine.isSettled() && !(await engine.settled(10 * MINUTES))) throw new Error("the kernel is not done");
      const { failure } = engine.status();
      const [problem] = engine.problems.list();
      if (failure !== undefined) throw new Error(failure);
      if (problem !== undefined) throw new Error(`${problem.id}: ${problem.reason}`);
    },
    async close() {
      await policy.close();
      rtnetlink.close();
    },
  };
}

function attachment({ metadata, status }: Kinds["Pod"]): Endpoint {
  const { name, namespace = "default" } = metadata;
  return {
    containerId: name,
    namespace,
    pod: name,
    podInterface: "eth0",
    hostInterface: hostInterfaceName(namespace, name, PREFIX),
    mac: "ee:ee:ee:ee:ee:ee",
    mtu: 1500,
    addresses: (status?.podIPs ?? []).map(({ ip }) => parseAddress(ip)),
    netns: "",
    network: "k8s-pod-network",
  };
}

import { familiesOf, type Endpoint, type PodLink, type PodSettings } from "../dataplane/endpoint.ts";
import { addressPlus, formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import type { AddressHolder, Assigned, CniNode, PodFacts } from "./node.ts";
import type { CniRequest } from "./request.ts";

/** A small real node in memory: a kernel of links and routes, a store of addresses, and a register of endpoints. */
export interface MemoryNode extends CniNode {
  /** All that there is, a line each; empty where there is nothing. */
  print(): string;
  /** The pods that the API server knows, by `namespace/name`. Absent: every pod that is asked for. */
  pods: Map<string, PodFacts> | undefined;
  /** Why the node is not ready. */
  reason: string | undefined;
  /** Routes that an IPAM plugin wants pods to have. */
  routes: Assigned["routes"];
  /** Something in the kernel of a pod is not as it was: what CHECK will find. */
  broken: string[];
  /** How the last pod was set up. */
  settings: PodSettings | undefined;
  /** Whom each address belongs to. */
  readonly held: ReadonlyMap<string, AddressHolder>;
  /** The pair by the name of the node's end. */
  readonly links: ReadonlyMap<string, MemoryLink>;
}

export interface MemoryLink extends PodLink {
  up: boolean;
  /** Of the pod's end. */
  addresses: readonly Address[];
  /** On the node, to the pod. */
  routes: readonly Address[];
}

/** What the node is asked to do. */
export type Step = "podFacts" | "assign" | "createLink" | "configure" | "add" | "release" | "removeLink" | "remove";
export const STEPS: readonly Step[] = [
  "podFacts",
  "assign",
  "createLink",
  "configure",
  "add",
  "release",
  "removeLink",
  "remove",
];

/**
 * Is called before each step and after it: what it throws is the step's failure, with nothing done or all of it done;
 * what it gives the step waits for (`configure`, which does not wait, is called in its middle instead of before it).
 */
export type Hook = (step: Step, when: "before" | "after") => void | Promise<void>;

const POOLS = { 4: parsePrefix("10.65.0.0/28"), 6: parsePrefix("fd00:10:65::/124") };

export function memoryNode(families: readonly (4 | 6)[] = [4], hook: Hook = () => undefined): MemoryNode {
  const links = new Map<string, MemoryLink>();
  const held = new Map<string, AddressHolder>();
  const endpoints = new Map<string, Endpoint>();
  const owners = new Map<string, Endpoint>();
  let macs = 0;

  const keyOf = ({ containerId, podInterface }: Endpoint): string => `${containerId}:${podInterface}`;
  const holderOf = ({ config, containerId }: CniRequest): AddressHolder => ({ network: config.name, containerId });
  const isSame = (a: AddressHolder, b: AddressHolder): boolean =>
    a.network === b.network && a.containerId === b.containerId;

  async function step<Result>(name: Step, work: () => Result): Promise<Result> {
    await hook(name, "before");
    const result = work();
    await hook(name, "after");
    return result;
  }

  function take(family: 4 | 6, holder: AddressHolder): Address {
    const pool = POOLS[family];
    for (let offset = 1n; offset < 15n; offset += 1n) {
      const address = addressPlus(pool.address, offset);
      const text = formatAddress(address);
      if (held.has(text)) continue;
      held.set(text, holder);
      return address;
    }
    throw new Failure("exhausted", `Cannot assign an IPv${family} address: none is left`);
  }

  function giveBack(mine: (holder: AddressHolder) => boolean): number {
    const gone = [...held].filter(([, holder]) => mine(holder));
    for (const [address] of gone) held.delete(address);
    return gone.length;
  }

  const node: MemoryNode = {
    pods: undefined,
    reason: undefined,
    routes: [],
    broken: [],
    settings: undefined,
    held,
    links,
    notReady: () => node.reason,
    podMtu: () => 1450,
    randomMac: () => `02:00:00:00:00:${String((macs += 1)).padStart(2, "0")}`,
    podFacts: (namespace, pod, uid) =>
      step("podFacts", () => {
        if (node.pods === undefined) return podFacts({ uid: uid ?? "some" });
        const facts = node.pods.get(`${namespace}/${pod}`);
        return uid === undefined || facts?.uid === uid ? facts : undefined;
      }),
    addresses: {
      assign: (request) =>
        step("assign", () => {
          const holder = holderOf(request);
          const before = new Map(held);
          try {
            return { addresses: families.map((family) => take(family, holder)), routes: node.routes };
          } catch (error) {
            held.clear();
            for (const [address, other] of before) held.set(address, other);
            throw error;
          }
        }),
      release: (request) => step("release", () => void giveBack((holder) => isSame(holder, holderOf(request)))),
      releaseOthers: (network, living) =>
        step("release", () =>
          giveBack((holder) => holder.network === network && !living.some((other) => isSame(holder, other))),
        ),
    },
    interfaces: {
      createLink: (link) =>
        step("createLink", () => {
          links.set(link.hostInterface, { ...link, up: false, addresses: [], routes: [] });
        }),
      configure(endpoint, settings) {
        const link = links.get(endpoint.hostInterface);
        if (link === undefined) throw new Failure("ENODEV", `there is no ${endpoint.hostInterface}`);
        link.addresses = endpoint.addresses;
        link.up = true;
        void hook("configure", "before");
        node.settings = settings;
        link.routes = endpoint.addresses;
        void hook("configure", "after");
      },
      removeLink: (hostInterface) => step("removeLink", () => void links.delete(hostInterface)),
      differences(endpoint) {
        const link = links.get(endpoint.hostInterface);
        if (link === undefined) return [`${endpoint.hostInterface} is not there`];
        const lost = endpoint.addresses.filter((address) => !link.addresses.some((has) => sameAddress(has, address)));
        return [...lost.map((address) => `${formatAddress(address)} is lost`), ...node.broken];
      },
    },
    endpoints: {
      find: (containerId, podInterface) => endpoints.get(`${containerId}:${podInterface}`),
      findByHostInterface: (hostInterface) => owners.get(hostInterface),
      list: () => [...endpoints.values()],
      prepare: () => Promise.resolve(),
      add: (endpoint) =>
        step("add", () => {
          endpoints.set(keyOf(endpoint), endpoint);
          owners.set(endpoint.hostInterface, endpoint);
        }),
      remove: (endpoint) =>
        step("remove", () => {
          endpoints.delete(keyOf(endpoint));
          const owner = owners.get(endpoint.hostInterface);
          if (owner !== undefined && keyOf(owner) === keyOf(endpoint)) owners.delete(endpoint.hostInterface);
        }),
    },
    print: () =>
      [
        ...[...links.values()].map(
          ({ hostInterface, podInterface, netns, mac, mtu, up, addresses }) =>
            `link ${hostInterface} ${up ? "up" : "down"} mtu ${mtu} peer ${podInterface} ${mac} in ${netns} ${addresses.map(formatAddress).join(",")}`,
        ),
        ...[...links.values()].flatMap(({ hostInterface, routes }) =>
          routes.map((address) => `route ${formatAddress(address)} dev ${hostInterface}`),
        ),
        ...[...held].map(([address, { network, containerId }]) => `address ${address} ${network}.${containerId}`),
        ...[...endpoints.values()].map(
          ({ containerId, podInterface, namespace, pod, hostInterface, addresses }) =>
            `endpoint ${containerId}:${podInterface} ${namespace ?? ""}/${pod ?? ""} ${hostInterface} ${familiesOf(addresses).length} families`,
        ),
      ]
        .map((line) => `${line}\n`)
        .join(""),
  };
  return node;
}

export function podFacts(facts: Partial<PodFacts> = {}): PodFacts {
  return {
    uid: "uid-1",
    annotations: {},
    namespaceName: "default",
    namespaceLabels: {},
    namespaceAnnotations: {},
    ...facts,
  };
}

/** Of a pod `default/web` in the container `abc123`, as containerd calls the plugin. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "abc123",
  CNI_NETNS: "/run/netns/pod",
  CNI_IFNAME: "eth0",
  CNI_PATH: "/opt/cni/bin:/usr/lib/cni",
  CNI_ARGS:
    "K8S_POD_UID=uid-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc123",
};

export const CONFIG: Readonly<Record<string, unknown>> = {
  cniVersion: "1.0.0",
  name: "k8s-pod-network",
  type: "calico",
  ipam: { type: "calico-ipam" },
};

/** What the shim sends. An undefined value leaves the variable or key out. */
export function requestBytes(
  environment: Readonly<Record<string, string | undefined>>,
  config: Readonly<Record<string, unknown>> | string = {},
): Uint8Array {
  const variables = Object.entries({ ...ENVIRONMENT, ...environment }).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}\0`],
  );
  const stdin = typeof config === "string" ? config : JSON.stringify({ ...CONFIG, ...config });
  return new TextEncoder().encode(`${variables.join("")}\0${stdin}`);
}

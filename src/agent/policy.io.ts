import type { ArpTable } from "../dataplane/arpTable.ts";
import { openArpTable } from "../dataplane/arpTable.io.ts";
import type { KernelRules } from "../dataplane/ruleset.ts";
import type { Endpoint } from "../dataplane/endpoint.ts";
import type { Datastore } from "../datastore/datastore.ts";
import type { Timers } from "../datastore/mirror.ts";
import { formatAddress, type Family } from "../ip/address.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { podEndpointId } from "../policy/convertEndpoint.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { Pod } from "../resources/workload.ts";
import type { Log } from "./agent.io.ts";
import type { Cluster } from "./cluster.io.ts";
import type { EndpointPolicy } from "./endpoints.io.ts";
import { soundFacts, type Renderer } from "./nodeFacts.ts";
import { policyArp } from "./policyArp.ts";
import { policyEngine, type PolicyEngine } from "./policyEngine.ts";
import { policyFeed, type PolicyListener } from "./policyFeed.ts";
import { podFlows } from "./policyFlows.io.ts";
import { driverSettings, policyKernel } from "./policyKernel.io.ts";
import { policyTrouble } from "./policyTrouble.ts";

/** Policy on this node, from what is followed of the datastore and attached to the node, to the kernel. */
export interface NodePolicy {
  /** To be told of every object that decides. */
  readonly listener: PolicyListener;
  readonly endpoints: EndpointPolicy;
  readonly engine: Pick<
    PolicyEngine,
    "problems" | "settled" | "isSettled" | "status" | "ruleSizes" | "counts" | "tables"
  >;
  /**
   * Where nothing holds pods back yet, everything does, until it is known what may pass: each family by itself. To be done
   * before pods can come.
   */
  guard(): Promise<void>;
  /** All of the datastore has been told once, and so have the node's endpoints: the kernel follows from now on. */
  start(): void;
  /** Settings, pools, nodes or networks of services have changed. */
  factsChanged(): void;
  /** Addresses or interfaces of the node have changed. */
  interfacesChanged(): void;
  /** Milliseconds after which the kernel is looked at unasked; 0: never. */
  refreshInterval(): number;
  check(): void;
  close(): Promise<void>;
}

export interface NodePolicyOptions {
  readonly nodeName: string;
  readonly interfacePrefix: string;
  readonly isWorkloadInterface: (name: string) => boolean;
  /** Whether connections that policy forbids are cut. */
  readonly cutForbidden: boolean;
  /** Others are kept from changing our tables of nf_tables, where the kernel can do that. */
  readonly ownsTables: boolean;
  /** Both where not given. */
  readonly families?: readonly Family[];
  readonly rtnetlink: Rtnetlink;
  readonly datastore: Pick<Datastore, "get">;
  /** Asked for only after the start. */
  readonly cluster: () => Pick<Cluster, "get" | "items" | "isSynced">;
  readonly settings: () => FelixSettings;
  readonly onApplied: (milliseconds: number) => void;
  readonly onFailed?: () => void;
  readonly log: Log;
}

/** How long a pod waits for its policy before its ADD fails. */
const ADMIT_MS = 10_000;

const timers: Timers = {
  now: () => performance.now(),
  setTimeout: (callback, milliseconds) => setTimeout(callback, milliseconds).unref(),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

export function nodePolicy(options: NodePolicyOptions): NodePolicy {
  const { nodeName, interfacePrefix, isWorkloadInterface, rtnetlink, datastore, cluster, settings, log } = options;
  const { families = [4, 6] } = options;
  const kernel = policyKernel({
    ownsTables: options.ownsTables,
    onRepaired(what) {
      log("warn", "others had changed this node's rules; they are put right", { what });
      // What has come about meanwhile no rule has seen.
      flows.policyChanged();
      engine.askRefusals().catch((error: unknown) => trouble.failed(messageOf(error)));
    },
    onFailure(error) {
      log("warn", "this node's rules are not guarded", { reason: messageOf(error) });
      trouble.failed(messageOf(error));
    },
  });
  const arpFailed = (reason: string): void =>
    log("warn", "the host may answer ARP for addresses of its workloads", { reason });
  const openArp = (): ArpTable =>
    openArpTable({
      isOwned: options.ownsTables,
      onRepaired: (what) => log("warn", "others had changed what the host answers to ARP; it is put right", { what }),
      onFailure: (error) => arpFailed(messageOf(error)),
    });
  const arp = policyArp(openArp, arpFailed);
  const factsOf = soundFacts(({ nftablesMode }) => kernel.renderer(nftablesMode));
  let inUse = settings();
  let isStarted = false;
  const engine = policyEngine({
    node: nodeName,
    families,
    open: (renderer: Renderer, family: Family): Promise<KernelRules> => kernel.open(renderer, family, inUse),
    clear: (renderer, family) => kernel.clear(renderer, family, inUse),
    timers,
    soon: (work) => void setImmediate(work),
    onApplied: options.onApplied,
    onFailed: () => options.onFailed?.(),
    onChanged: ({ endpoints, policies, profiles, sets }) => {
      if (endpoints.size + policies.size + profiles.size + sets.length > 0) flows.policyChanged();
    },
    log,
  });
  const trouble = policyTrouble(() => engine.check(), timers);
  const feed = policyFeed({ node: nodeName, interfacePrefix }, (update) => engine.update(update));
  let ownAddresses: ReadonlySet<string> = new Set();
  let interfacesText = "";
  const flows = podFlows({
    cutForbidden: options.cutForbidden,
    tables: engine.tables,
    isOwnAddress: (address) => ownAddresses.has(address),
    log,
  });

  function factsChanged(): void {
    const of = cluster();
    const known = factsOf({
      nodeName,
      settings: settings(),
      nodes: of.items("Node"),
      pools: of.items("IPPool"),
      bgp: of.get("BGPConfiguration", "default"),
    });
    inUse = known.settings;
    engine.setFacts(known.facts, known.renderer, driverSettings(inUse), known.fault);
    if (isStarted) arp.follow(known.renderer);
  }

  function interfacesChanged(): void {
    const names = new Map(rtnetlink.links().map(({ index, name }) => [index, name]));
    const byName = Map.groupBy(rtnetlink.addresses(), ({ device }) => names.get(device) ?? "");
    const interfaces = [...names.values()]
      .filter((name) => !isWorkloadInterface(name))
      .sort()
      .map((name) => ({
        name,
        addresses: (byName.get(name) ?? []).map(({ address }) => formatAddress(address.address)).sort(),
      }));
    const text = JSON.stringify(interfaces);
    if (text === interfacesText) return;
    interfacesText = text;
    ownAddresses = new Set(interfaces.flatMap(({ addresses }) => addresses));
    engine.setInterfaces(interfaces);
  }

  const isMeant = (found: Pod | undefined, uid: string | undefined): boolean =>
    found !== undefined && (uid === undefined || found.metadata.uid === uid);

  /** The pod as the datastore has it, where what is followed is behind the runtime. */
  async function podOf({ namespace, pod, podUid }: Endpoint): Promise<Pod | undefined> {
    if (pod === undefined || isMeant(cluster().get("Pod", pod, namespace), podUid)) return undefined;
    const asked = await datastore.get("Pod", pod, namespace);
    if (isMeant(asked, podUid)) return asked;
    throw new Failure("not-in-force", `Cannot bring the policy of pod ${namespace}/${pod} into force: the pod is gone`);
  }

  return {
    listener: feed,
    endpoints: {
      adopted(endpoint) {
        const { hostInterface, namespace, pod } = endpoint;
        if (!isWorkloadInterface(hostInterface)) {
          const what =
            "no policy holds back a pod whose interface interfacePrefix does not name: add its prefix to the list";
          log("warn", what, { interface: hostInterface, namespace, pod });
        }
        arp.attach(endpoint);
        feed.attach(endpoint);
      },
      prepare(endpoint) {
        const { namespace, pod, podUid } = endpoint;
        const isKnown = pod === undefined || isMeant(cluster().get("Pod", pod, namespace), podUid);
        if (!isKnown || !engine.isSettled()) return;
        feed.attach(endpoint);
        engine.flush();
      },
      async admit(endpoint) {
        const pod = await podOf(endpoint);
        flows.assigned(endpoint.addresses);
        arp.attach(endpoint);
        feed.attach(endpoint, pod);
        engine.flush();
        const who = endpoint.pod === undefined ? endpoint.containerId : `${endpoint.namespace}/${endpoint.pod}`;
        const attempt = `Cannot bring the policy of ${who} into force`;
        if (!engine.isSettled() && !(await engine.settled(ADMIT_MS))) {
          const reason = engine.status().failure ?? "the kernel has not taken it";
          throw new Failure("timeout", `${attempt} within ${ADMIT_MS} ms: ${reason}`);
        }
        const problems =
          endpoint.pod === undefined
            ? []
            : engine.problems.refusals(podEndpointId(endpoint.namespace, endpoint.pod, nodeName));
        if (problems.length > 0) throw new Failure("not-in-force", `${attempt}: ${problems.join("; ")}`);
      },
      dismiss(endpoint) {
        feed.detach(endpoint);
        arp.detach(endpoint);
        flows.released(endpoint.addresses);
      },
    },
    engine: {
      ...engine,
      status() {
        const status = engine.status();
        return { ...status, failure: status.failure ?? trouble.reason() };
      },
    },
    async guard() {
      interfacesChanged();
      factsChanged();
      const open = families.filter((family) => !kernel.hasRules(family));
      if (open.length === 0) return;
      try {
        await engine.guard(open);
      } catch (error) {
        log("warn", "pods cannot be held back before policy is known", { reason: messageOf(error) });
      }
    },
    start() {
      isStarted = true;
      factsChanged();
      engine.start();
    },
    factsChanged,
    interfacesChanged,
    refreshInterval() {
      const { nftablesMode, nftablesRefreshInterval, iptablesRefreshInterval } = inUse;
      return kernel.renderer(nftablesMode) === "nft" ? nftablesRefreshInterval : iptablesRefreshInterval;
    },
    check() {
      Promise.all([engine.check(), arp.check()])
        .then(([ofRules, ofAnswers]) => {
          const what = [...ofRules, ...ofAnswers];
          if (what.length > 0)
            log("warn", "this node's rules were not as they should be; they are put right", { what });
        })
        .catch((error: unknown) => log("warn", "this node's rules cannot be checked", { reason: messageOf(error) }));
    },
    async close() {
      trouble.close();
      flows.close();
      arp.close();
      await engine.close();
    },
  };
}

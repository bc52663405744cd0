/** How the parts of the system are set up: FelixConfiguration, KubeControllersConfiguration, ClusterInformation. */
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { FELIX_KNOBS } from "./felixKnobs.ts";
import { cidr, duration, pattern, selector } from "./fields.ts";
import type { Knob } from "./knob.ts";
import { configurationName, defaultName } from "./names.ts";
import {
  arrayOf,
  boolean,
  int,
  mapOf,
  object,
  oneOf,
  optional,
  refine,
  Report,
  string,
  withDefault,
  type Fault,
  type Optional,
} from "./schema.ts";
import { didYouMean } from "./suggestion.ts";

type Knobs = typeof FELIX_KNOBS;
type KnobName = keyof Knobs;

/** Every setting of Felix, in force on one node. Spans of time are in milliseconds. */
export type FelixSettings = {
  [Name in KnobName]: Knobs[Name] extends Knob<infer _Written, infer Setting> ? Setting : never;
};
type FelixFields = {
  [Name in KnobName]: Knobs[Name] extends Knob<infer Written, infer _Setting> ? Optional<Written> : never;
};

const felixFields = Object.fromEntries(
  Object.entries(FELIX_KNOBS).map(([name, knob]) => [name, optional<unknown>(knob.schema)]),
) as FelixFields;

const NODE_PORT_RANGES_MAX = 7;

const felixSpec = refine(object(felixFields), (spec, fault) => {
  if (spec.routeTableRange !== undefined && spec.routeTableRanges !== undefined) {
    fault("must be absent, because routeTableRanges is given", "routeTableRange");
  }
  if ((spec.kubeNodePortRanges ?? []).length > NODE_PORT_RANGES_MAX) {
    fault(`has more than ${NODE_PORT_RANGES_MAX} items`, "kubeNodePortRanges");
  }
});

/** Felix on all nodes (`default`), and what is different on one (`node.<name>`). Absent fields: see `felixSettings`. */
export const felixConfiguration = defineKind({
  kind: "FelixConfiguration",
  group: CALICO,
  version: "v3",
  plural: "felixconfigurations",
  shortNames: ["felixconfig", "felixconfigs"],
  checkName: configurationName,
  fields: { spec: withDefault(felixSpec, {}) },
});
export type FelixConfiguration = ItemOf<typeof felixConfiguration>;

/** What the environment sets, and what is wrong with it. */
export interface FelixEnvironment {
  readonly settings: Partial<FelixSettings>;
  /** Unknown variables and values that cannot be read; these are left out of `settings`. Paths are variable names. */
  readonly faults: readonly Fault[];
}

/** Variables of Calico's that say how to reach a datastore, which other parts of the program read. */
const OTHER_VARIABLES =
  /^(DATASTORETYPE|FELIXHOSTNAME|ETCD\w+|TYPHA\w+|CALICOAPIGROUP|KUBECONFIG|KUBEMASTERURL|SERVICEENVIRONMENT)$/;

const knobByVariable = new Map<string, KnobName>(
  (Object.keys(FELIX_KNOBS) as KnobName[]).map((name) => {
    const { variable }: Knob<unknown, unknown> = FELIX_KNOBS[name];
    return [(variable ?? name).toUpperCase(), name];
  }),
);

/** Reads `FELIX_…`, whatever the case. `none` turns a setting off. */
export function felixFromEnvironment(environment: Readonly<Record<string, string | undefined>>): FelixEnvironment {
  const settings: Record<string, unknown> = {};
  const faults: Fault[] = [];
  for (const [variable, value] of Object.entries(environment)) {
    const found = /^FELIX_(.+)$/i.exec(variable);
    if (found === null || value === undefined || value === "") continue;
    const short = found[1]!.toUpperCase();
    const name = knobByVariable.get(short);
    if (name === undefined) {
      if (OTHER_VARIABLES.test(short)) continue;
      const known = [...knobByVariable.keys()].map((key) => `FELIX_${key}`);
      faults.push({ path: variable, reason: `unknown variable${didYouMean(`FELIX_${short}`, known)}` });
      continue;
    }
    const knob: Knob<unknown, unknown> = FELIX_KNOBS[name];
    const report = new Report(false);
    const written: unknown = isNone(value) ? undefined : knob.schema.read(knob.fromText(value), report);
    for (const { path, reason } of report.faults) {
      faults.push({ path: variable, reason: path === "" ? reason : `${path}: ${reason}` });
    }
    if (report.faults.length > 0) continue;
    settings[name] = isNone(value) ? noneOf(knob) : knob.toSetting(written);
  }
  return { settings: settings as Partial<FelixSettings>, faults };
}

/** The settings in force: environment, then the node's own object, then the one for all, then the initial values. */
export function felixSettings(sources: {
  readonly environment?: Partial<FelixSettings>;
  readonly node?: FelixConfiguration | undefined;
  readonly global?: FelixConfiguration | undefined;
}): FelixSettings {
  const settings: Record<string, unknown> = {};
  for (const name of Object.keys(FELIX_KNOBS) as KnobName[]) {
    const knob: Knob<unknown, unknown> = FELIX_KNOBS[name];
    const written: unknown = sources.node?.spec[name] ?? sources.global?.spec[name];
    if (sources.environment !== undefined && Object.hasOwn(sources.environment, name)) {
      settings[name] = sources.environment[name];
    } else if (written === undefined) settings[name] = structuredClone(knob.initial);
    else settings[name] = isNone(written) ? noneOf(knob) : knob.toSetting(written);
  }
  return settings as FelixSettings;
}

function isNone(value: unknown): boolean {
  return typeof value === "string" && value.toLowerCase() === "none";
}

function noneOf(knob: Knob<unknown, unknown>): unknown {
  return structuredClone("zero" in knob ? knob.zero : knob.initial);
}

const onOff = oneOf("Enabled", "Disabled");
const reconciler = optional(object({ reconcilerPeriod: optional(duration) }));

const hostEndpointTemplate = object({
  generateName: optional(string),
  interfaceCIDRs: optional(arrayOf(cidr)),
  interfacePattern: optional(pattern),
  labels: optional(mapOf(string)),
  nodeSelector: optional(selector),
});

const controllersSpec = object({
  logSeverityScreen: withDefault(oneOf("None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"), "Info"),
  healthChecks: withDefault(onOff, "Enabled"),
  /** 0: no compaction. */
  etcdV3CompactionPeriod: withDefault(duration, "10m"),
  /** 0: no metrics. */
  prometheusMetricsPort: withDefault(int(0, 65535), 9094),
  debugProfilePort: optional(int(0, 65535)),
  /** A controller that is absent is off. */
  controllers: withDefault(
    object({
      node: optional(
        object({
          reconcilerPeriod: withDefault(duration, "5m"),
          syncLabels: withDefault(onOff, "Enabled"),
          hostEndpoint: optional(
            object({
              autoCreate: withDefault(onOff, "Disabled"),
              createDefaultHostEndpoint: optional(onOff),
              templates: optional(arrayOf(hostEndpointTemplate)),
            }),
          ),
          /** How long an address must look leaked before it is released; 0: never. */
          leakGracePeriod: withDefault(duration, "15m"),
        }),
      ),
      policy: reconciler,
      workloadEndpoint: reconciler,
      serviceAccount: reconciler,
      namespace: reconciler,
      loadBalancer: optional(
        object({ assignIPs: withDefault(oneOf("AllServices", "RequestedServicesOnly"), "AllServices") }),
      ),
      policyMigration: optional(object({ enabled: optional(onOff) })),
    }),
    {},
  ),
});

/** The controllers of the cluster. There is one, named `default`. */
export const kubeControllersConfiguration = defineKind({
  kind: "KubeControllersConfiguration",
  group: CALICO,
  version: "v3",
  plural: "kubecontrollersconfigurations",
  shortNames: ["kcc", "kccs", "kubecontrollersconfig"],
  status: true,
  checkName: defaultName,
  fields: {
    spec: controllersSpec,
    status: optional(object({ runningConfig: optional(controllersSpec), environmentVars: optional(mapOf(string)) })),
  },
});
export type KubeControllersConfiguration = ItemOf<typeof kubeControllersConfiguration>;

/** The cluster as a whole. There is one, named `default`. */
export const clusterInformation = defineKind({
  kind: "ClusterInformation",
  group: CALICO,
  version: "v3",
  plural: "clusterinformations",
  shortNames: ["clusterinfo", "clusterinfos"],
  checkName: defaultName,
  fields: {
    spec: withDefault(
      object({
        clusterGUID: optional(string),
        clusterType: optional(string),
        calicoVersion: optional(string),
        /** false: plugins and agents wait. */
        datastoreReady: optional(boolean),
        variant: optional(string),
      }),
      {},
    ),
  },
  columns: [
    { heading: "CLUSTERGUID", text: ({ spec }) => spec.clusterGUID ?? "" },
    { heading: "CLUSTERTYPE", text: ({ spec }) => spec.clusterType ?? "" },
    { heading: "CALICOVERSION", text: ({ spec }) => spec.calicoVersion ?? "" },
    { heading: "DATASTOREREADY", text: ({ spec }) => String(spec.datastoreReady ?? "") },
  ],
});
export type ClusterInformation = ItemOf<typeof clusterInformation>;

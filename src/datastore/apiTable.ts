/** The table form of objects, which `kubectl get` asks for and prints. */
import type { KindInfo, Resource } from "../resources/kind.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import type { Entry } from "./versionedLog.ts";

/** How much of each object comes with its row. */
export type IncludeObject = "Metadata" | "None" | "Object";

/** Whether the client would rather have a table than what it describes: `application/json;as=Table;v=v1;g=meta.k8s.io`. */
export function wantsTable(accept: string | undefined): boolean {
  const first = accept?.split(",")[0] ?? "";
  return /;\s*as=Table\b/.test(first) && /;\s*v=v1\s*(;|$)/.test(first);
}

/** @param now milliseconds since 1970, for the column AGE */
export function tableOf(
  kind: KindId,
  entries: readonly Entry[],
  options: {
    resourceVersion: string;
    continue?: string | undefined;
    include: IncludeObject;
    now: number;
    headings?: boolean;
  },
): object {
  const info: KindInfo = KIND[kind];
  const age = info.columns.some((column) => column.heading === "AGE") ? [] : ["AGE"];
  const headings = [
    ...info.columns.map(({ heading, wide }) => ({ heading, wide })),
    ...age.map((heading) => ({ heading, wide: false })),
  ];
  return {
    kind: "Table",
    apiVersion: "meta.k8s.io/v1",
    metadata: {
      resourceVersion: options.resourceVersion,
      ...(options.continue === undefined ? {} : { continue: options.continue }),
    },
    columnDefinitions: options.headings === false ? null : headings.map(columnDefinition),
    rows: entries.map(({ object }) => ({
      cells: [
        ...info.columns.map((column) => column.text(object)),
        ...age.map(() => ageOf(object.metadata.creationTimestamp, options.now)),
      ],
      object: included(object, options.include),
    })),
  };
}

function columnDefinition({ heading, wide }: { heading: string; wide?: boolean | undefined }): object {
  const name = heading.charAt(0) + heading.slice(1).toLowerCase();
  const format = heading === "NAME" ? "name" : "";
  return { name, type: "string", format, description: "", priority: wide === true ? 1 : 0 };
}

function included(object: Resource, include: IncludeObject): object | null {
  if (include === "None") return null;
  if (include === "Object") return object;
  return { kind: "PartialObjectMetadata", apiVersion: "meta.k8s.io/v1", metadata: object.metadata };
}

/**
 * The time since `created` as kubectl writes it: `45s`, `3m20s`, `25m`, `3h5m`, `2d4h`, `90d`, `2y30d` (apimachinery
 * util/duration HumanDuration).
 */
export function ageOf(created: string | undefined, now: number): string {
  const seconds = Math.floor((now - Date.parse(created ?? "")) / 1000);
  if (Number.isNaN(seconds)) return "<unknown>";
  if (seconds < 0) return "0s";
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  const two = (big: number, bigUnit: string, small: number, smallUnit: string): string =>
    small === 0 ? `${big}${bigUnit}` : `${big}${bigUnit}${small}${smallUnit}`;
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return two(minutes, "m", seconds % 60, "s");
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return two(hours, "h", minutes % 60, "m");
  if (hours < 48) return `${hours}h`;
  if (days < 8) return two(days, "d", hours % 24, "h");
  if (days < 730) return `${days}d`;
  return days < 2920 ? two(Math.floor(days / 365), "y", days % 365, "d") : `${Math.floor(days / 365)}y`;
}

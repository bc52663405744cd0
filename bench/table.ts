/** Figures of one run: every row was measured in the same rounds, so that ratios hold where absolute figures move. */
export interface BenchTable {
  readonly title: string;
  /** How it was measured, in a sentence or two. */
  readonly how?: string;
  readonly rows: readonly Readonly<Record<string, string>>[];
}

/** What Caracal wants to be held to. */
export interface Bar {
  readonly what: string;
  readonly bar: string;
  readonly measured: string;
  readonly met: boolean;
}

export interface BenchResult {
  readonly tables: readonly BenchTable[];
  readonly bars: readonly Bar[];
}

/** As a Markdown section. The columns are those of the first row. */
export function formatTable({ title, how, rows }: BenchTable): string {
  const columns = Object.keys(rows[0] ?? {});
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const body = rows.map((cells) => line(columns.map((column) => cells[column] ?? "")));
  const words = how === undefined ? [] : [how, ""];
  return [`### ${title}`, "", ...words, line(columns), line(columns.map(() => "---")), ...body, ""].join("\n");
}

/** The value below which that share of the values lies: 0.5 is the median. Throws where there are none. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const found = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  if (found === undefined) throw new Error("there is no median of nothing");
  return found;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

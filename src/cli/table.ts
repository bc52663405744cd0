/** Columns of text, as wide as they need to be, three spaces apart: the look of `kubectl get`. */

/** @param rows each as long as `headings`; an empty cell is shown as `<none>` */
export function formatTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [headings, ...rows.map((row) => row.map((cell) => (cell === "" ? "<none>" : cell)))];
  const widths = headings.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  return cells
    .map((row) =>
      row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join("   "),
    )
    .map((line) => `${line.trimEnd()}\n`)
    .join("");
}

/** Cuts a stream of text into lines, wherever the chunks end. Each chunk is looked at once, however long a line grows. */
export function lineSplitter(): (chunk: string) => string[] {
  let pieces: string[] = [];
  return (chunk) => {
    const parts = chunk.split("\n");
    if (parts.length === 1) {
      pieces.push(chunk);
      return [];
    }
    const last = parts.pop() ?? "";
    parts[0] = pieces.join("") + (parts[0] ?? "");
    pieces = last === "" ? [] : [last];
    return parts.filter((line) => line !== "");
  };
}

/** From many interface names to their chains in few steps: a tree by the names' next character, as Felix builds it. */

export interface DispatchTree {
  /** Interfaces to tell by their whole name. */
  readonly names: readonly string[];
  readonly branches: readonly Branch[];
}

export interface Branch {
  /** What its interfaces' names begin with. */
  readonly prefix: string;
  /** The part of it that names the branch: without what all names of the tree have in common. */
  readonly path: string;
  readonly tree: DispatchTree;
}

/** So many are compared one by one below the root. */
const LINEAR_MAX = 32;

/** The root branches wherever two names go on alike; below it only large branches do. Sorted by name. */
export function dispatchTree(names: Iterable<string>): DispatchTree {
  const sorted = [...new Set(names)].sort();
  const common = commonPrefix(sorted).length;
  return grow(sorted, common, common);
}

/** @param root length of what all names have in common, `depth`: of what these have */
function grow(sorted: readonly string[], root: number, depth: number): DispatchTree {
  const names: string[] = [];
  const branches: Branch[] = [];
  for (const group of Map.groupBy(sorted, (name) => name.slice(depth, depth + 1)).values()) {
    const [only, second] = group;
    if (only === undefined || second === undefined) {
      names.push(...group);
      continue;
    }
    const prefix = only.slice(0, depth + 1);
    const isLarge = group.length > LINEAR_MAX;
    const tree = isLarge ? grow(group, root, commonPrefix(group).length) : { names: group, branches: [] };
    branches.push({ prefix, path: prefix.slice(root), tree });
  }
  return { names, branches };
}

/** @param sorted then the first and the last differ before all others do */
function commonPrefix(sorted: readonly string[]): string {
  const [first = "", last = ""] = [sorted[0], sorted.at(-1)];
  let length = 0;
  while (length < first.length && first[length] === last[length]) length += 1;
  return first.slice(0, length);
}

/** Which of the kernel's links are pods' interfaces, by index: asked of every route and address that the kernel speaks of. */
export interface WorkloadLinks {
  readonly indexes: ReadonlySet<number>;
  /** A link has come or changed, or gone. */
  observe(change: "new" | "deleted", link: LinkName): void;
  /** Starts over from a list. */
  sync(links: readonly LinkName[]): void;
}

interface LinkName {
  readonly index: number;
  readonly name: string;
}

export function createWorkloadLinks(isWorkloadInterface: (name: string) => boolean): WorkloadLinks {
  const indexes = new Set<number>();
  return {
    indexes,
    observe(change, { index, name }) {
      if (change === "new" && isWorkloadInterface(name)) indexes.add(index);
      else indexes.delete(index);
    },
    sync(links) {
      indexes.clear();
      for (const { index, name } of links) if (isWorkloadInterface(name)) indexes.add(index);
    },
  };
}

/** The store of the allocator's blocks, over a datastore. */
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { affinityObject, blockObject, storedAffinity, storedBlock } from "../ipam/objects.ts";
import type { BlockStore } from "../ipam/store.ts";
import type { BlockAffinity, IPAMBlock } from "../resources/ipam.ts";
import { blockAffinityName, blockName } from "../resources/names.ts";
import type { Datastore } from "../datastore/datastore.ts";

/** Calico deletes in two steps; an object in between counts as gone, and is swept away where it stands in the way. */
export function createBlockStore(datastore: Datastore): BlockStore {
  async function create<Item extends IPAMBlock | BlockAffinity>(
    object: Item,
    write: (object: Item) => Promise<Item>,
    present: () => Promise<Item | undefined>,
    remove: (present: Item) => Promise<unknown>,
  ): Promise<Item> {
    try {
      return await write(object);
    } catch (error) {
      if (codeOf(error) !== "already-exists") throw error;
      const existing = await present();
      if (existing === undefined || !existing.spec.deleted) throw error;
      await remove(existing);
      return write(object);
    }
  }
  const removeBlock = (name: string, version: string | undefined): Promise<unknown> =>
    datastore.delete("IPAMBlock", name, undefined, { resourceVersion: version });
  const removeAffinity = (name: string, version: string | undefined): Promise<unknown> =>
    datastore.delete("BlockAffinity", name, undefined, { resourceVersion: version });
  const getBlock = (prefix: Prefix): Promise<IPAMBlock | undefined> =>
    datastore.get("IPAMBlock", blockName(formatPrefix(prefix)));

  return {
    getBlock: async (prefix) => {
      const object = await getBlock(prefix);
      return object === undefined || object.spec.deleted ? undefined : storedBlock(object);
    },
    listBlocks: async () => {
      const { items } = await datastore.list("IPAMBlock");
      return items.filter(({ spec }) => !spec.deleted).map(storedBlock);
    },
    createBlock: async (block) => {
      const object = blockObject(block);
      const write = (item: IPAMBlock): Promise<IPAMBlock> => datastore.create("IPAMBlock", item);
      const created = create(
        object,
        write,
        () => getBlock(block.prefix),
        ({ metadata }) => removeBlock(metadata.name, metadata.resourceVersion),
      );
      return storedBlock(await orConflict(created));
    },
    updateBlock: async (block, version) =>
      storedBlock(await orConflict(datastore.update("IPAMBlock", blockObject(block, version)))),
    deleteBlock: async (prefix, version) => {
      await orConflict(removeBlock(blockName(formatPrefix(prefix)), version));
    },
    getAffinity: async (node, prefix) => {
      const object = await datastore.get("BlockAffinity", blockAffinityName(node, formatPrefix(prefix)));
      return object === undefined || object.spec.deleted ? undefined : storedAffinity(object);
    },
    listAffinities: async (node) => {
      const { items } = await datastore.list("BlockAffinity");
      return items
        .filter(({ spec }) => !spec.deleted && (node === undefined || spec.node === node))
        .map(storedAffinity);
    },
    createAffinity: async (affinity) => {
      const object = affinityObject(affinity);
      const write = (item: BlockAffinity): Promise<BlockAffinity> => datastore.create("BlockAffinity", item);
      const present = (): Promise<BlockAffinity | undefined> => datastore.get("BlockAffinity", object.metadata.name);
      const created = create(object, write, present, ({ metadata }) =>
        removeAffinity(metadata.name, metadata.resourceVersion),
      );
      return storedAffinity(await orConflict(created));
    },
    updateAffinity: async (affinity, version) =>
      storedAffinity(await orConflict(datastore.update("BlockAffinity", affinityObject(affinity, version)))),
    deleteAffinity: async (affinity, version) => {
      await orConflict(removeAffinity(blockAffinityName(affinity.node, formatPrefix(affinity.prefix)), version));
    },
  };
}

/** What the allocator calls a conflict: nothing was written, because the object is not as it was thought to be. */
async function orConflict<Result>(write: Promise<Result>): Promise<Result> {
  try {
    return await write;
  } catch (error) {
    const code = codeOf(error);
    if (code !== "conflict" && code !== "already-exists" && code !== "not-found") throw error;
    throw new Failure("conflict", messageOf(error), error);
  }
}

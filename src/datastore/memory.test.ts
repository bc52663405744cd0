import { datastoreConformance } from "./datastore.testing.ts";
import { memoryDatastore } from "./memory.ts";

const open = (history?: number) => async () => {
  let uids = 0;
  const uid = (): string =>
    `${(uids += 1).toString(16).padStart(8, "0").split("").toReversed().join("")}-0000-4000-8000-000000000000`;
  const options = { now: () => 1_800_000_000_000, uid };
  const datastore = memoryDatastore(history === undefined ? options : { ...options, history });
  return { datastore, close: async () => undefined };
};

datastoreConformance("memory", open(), { shortHistory: open(50) });

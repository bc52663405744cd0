/**
 * The log of changes on disk. One table, one row per change, the revision its key: a write is one insert, the current
 * objects are the last rows of their keys, and a watch that resumes after a restart finds the rows that it has missed.
 * A row goes when the change that replaced it is forgotten; a deletion goes with its own change.
 *
 * WAL mode. With `synchronous=NORMAL` a commit is in the kernel's page cache: it survives the death of the process, not a
 * power cut. With `FULL` it is on the disk.
 */
import { chmodSync, closeSync, mkdirSync, openSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import type { Resource } from "../resources/kind.ts";
import { objectKey, VersionedLog, type Change } from "./versionedLog.ts";

/** What an acknowledged write survives: the death of the process, or of the machine as well. */
export type Durability = "process" | "machine";

/** `in-use`: another server has the data. `corrupt`: it is not ours, or damaged. `storage`: the disk refuses. */
export class JournalError extends Failure<"in-use" | "corrupt" | "storage"> {}

/** Of the layout of the tables below. */
const FORMAT = 1;
const FILE = "caracal.db";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS change (
    revision INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    time INTEGER NOT NULL,
    object TEXT NOT NULL
  );
  CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
`;

export interface Journal {
  /** What is on disk. */
  readonly log: VersionedLog;
  /** Stores the changes as one transaction. When it returns, they are as durable as was asked for. */
  append(changes: readonly Change[]): void;
  /** Removes what the log has just forgotten. */
  forget(changes: readonly Change[]): void;
  close(): void;
}

/** Opens the data in `directory`, making both where they are missing, with rights for the owner alone. */
export function openJournal(directory: string, durability: Durability): Journal {
  const path = join(directory, FILE);
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    // Made here, so that it never has any other rights; SQLite gives its -wal file the rights of the database.
    closeSync(openSync(path, "a", 0o600));
    chmodSync(path, 0o600);
    return open(path, durability);
  } catch (thrown) {
    throw journalError(thrown, path);
  }
}

function journalError(thrown: unknown, path: string): JournalError {
  if (thrown instanceof JournalError) return thrown;
  const reason = messageOf(thrown);
  if (/locked|busy/.test(reason)) {
    return new JournalError("in-use", `Cannot open ${path}: another API server is using it`, thrown);
  }
  const corrupt = /malformed|not a database|corrupt/.test(reason) || thrown instanceof SyntaxError;
  const code = codeOf(thrown) === "ERR_SQLITE_ERROR" || corrupt ? "" : ` (${codeOf(thrown) ?? "error"})`;
  return new JournalError(corrupt ? "corrupt" : "storage", `Cannot open ${path}: ${reason}${code}`, thrown);
}

function open(path: string, durability: Durability): Journal {
  const database = new DatabaseSync(path, { timeout: 50 });
  // The lock is held for as long as we run: a second server on the same data fails at once, and WAL needs no shared memory.
  database.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;");
  database.exec(`PRAGMA synchronous=${durability === "machine" ? "FULL" : "NORMAL"}; PRAGMA wal_autocheckpoint=2000;`);
  database.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`);
  const format = readState(database, "format", FORMAT);
  if (format !== FORMAT) {
    database.close();
    throw new JournalError("corrupt", `Cannot open ${path}: it has format ${format}, this version reads ${FORMAT}`);
  }
  const log = readLog(database);

  const begin = database.prepare("BEGIN");
  const commit = database.prepare("COMMIT");
  const insert = database.prepare("INSERT INTO change (revision, kind, deleted, time, object) VALUES (?, ?, ?, ?, ?)");
  const remove = database.prepare("DELETE FROM change WHERE revision = ?");
  const setState = database.prepare("INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)");

  function transaction(work: () => void): void {
    begin.run();
    try {
      work();
      commit.run();
    } catch (thrown) {
      if (database.isTransaction) database.exec("ROLLBACK");
      throw thrown;
    }
  }
  function insertChange({ entry, type, time }: Change): void {
    insert.run(entry.revision, entry.kind, type === "deleted" ? 1 : 0, time, entry.json);
  }

  return {
    log,
    append(changes) {
      const [only] = changes;
      // One statement is a transaction by itself.
      if (changes.length === 1 && only !== undefined) insertChange(only);
      else transaction(() => changes.forEach(insertChange));
    },
    forget(changes) {
      transaction(() => {
        for (const { type, entry, previous } of changes) {
          if (previous !== undefined) remove.run(previous.revision);
          if (type === "deleted") remove.run(entry.revision);
        }
        setState.run("compacted", log.compacted);
      });
    },
    close: () => database.close(),
  };
}

/** A value of the table `state`, which is set to `initial` where it is missing. */
function readState(database: DatabaseSync, name: string, initial: number): number {
  database.prepare("INSERT OR IGNORE INTO state (name, value) VALUES (?, ?)").run(name, initial);
  return Number(database.prepare("SELECT value FROM state WHERE name = ?").get(name)?.["value"]);
}

function readLog(database: DatabaseSync): VersionedLog {
  const log = new VersionedLog(readState(database, "compacted", 1));
  const rows = database.prepare("SELECT revision, kind, deleted, time, object FROM change ORDER BY revision");
  for (const row of rows.iterate()) {
    const kind = String(row["kind"]) as KindId;
    const revision = Number(row["revision"]);
    if (!Object.hasOwn(KIND, kind))
      throw new JournalError("corrupt", `revision ${revision} holds the unknown kind ${kind}`);
    const json = String(row["object"]);
    const object = JSON.parse(json) as Resource;
    const { name, namespace } = object.metadata;
    const entry = { kind, key: objectKey(name, namespace), revision, object, json };
    const deleted = row["deleted"] === 1;
    if (revision <= log.compacted) log.restore(entry, deleted);
    else if (revision !== log.revision + 1) {
      throw new JournalError("corrupt", `revision ${log.revision + 1} is missing before ${revision}`);
    } else {
      const known = log.get(kind, entry.key) !== undefined;
      log.append(deleted ? "deleted" : known ? "modified" : "added", entry, Number(row["time"]));
    }
  }
  log.published = log.revision;
  return log;
}

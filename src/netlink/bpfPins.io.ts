import { closeSync, mkdirSync, readdirSync, rmdirSync, rmSync, statfsSync, unlinkSync } from "node:fs";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { attachedTo, openPin, pin } from "./bpf.io.ts";
import { mount } from "./ffi.io.ts";
import { currentNamespace, namespaceInode } from "./namespace.io.ts";

/**
 * Where BPF objects stay when the process that made them ends: files of the BPF filesystem, in a directory for each
 * network namespace, since several nodes may share a machine.
 */

const BPF_FILESYSTEM = "/sys/fs/bpf";
const BPF_FS_MAGIC = 0xcafe4a11;
const OURS = `${BPF_FILESYSTEM}/caracal`;
/** Attachments' files begin so: by them it is seen whether a directory is still of use. */
const ATTACHMENT = "attachment-";

export interface Pins {
  /** A descriptor of what is pinned by this name; undefined where nothing is. */
  open(name: string): number | undefined;
  /** In the place of what had the name. */
  set(name: string, fd: number): void;
  /** An attachment whose pin goes ends, unless somebody has it open. */
  remove(name: string): void;
  names(): string[];
  /** Takes all of it away, and its directory. */
  clear(): void;
}

/** Name of the pin of an attachment. */
export function attachmentPin(what: string): string {
  return `${ATTACHMENT}${what}`;
}

/**
 * The pins of the namespace at `path`, or of the calling thread's. Mounts the BPF filesystem where it is not mounted,
 * and takes away what nodes have left that are gone. Throws `Failure` where there can be no pins.
 */
export function openPins(path = currentNamespace()): Pins {
  const directory = `${OURS}/${namespaceInode(path)}`;
  try {
    mountOnce();
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new Failure(codeOf(error) ?? "EIO", `Cannot keep BPF objects in ${directory}: ${messageOf(error)}`, error);
  }
  removeDead(directory);
  return pinsIn(directory);
}

/** Takes away what is pinned for the namespace at `path`, which is about to go. It may be gone already. */
export function removePins(path: string): void {
  try {
    pinsIn(`${OURS}/${namespaceInode(path)}`).clear();
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

function pinsIn(directory: string): Pins {
  const remove = (name: string): void => {
    try {
      unlinkSync(`${directory}/${name}`);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
    }
  };
  return {
    open: (name) => openPin(`${directory}/${name}`),
    set(name, fd) {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      remove(name);
      pin(fd, `${directory}/${name}`);
    },
    remove,
    names: () => listed(directory),
    clear() {
      for (const name of listed(directory)) remove(name);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A container's /sys/fs/bpf may be an empty directory, as is that of a machine without systemd. */
function mountOnce(): void {
  if (statfsSync(BPF_FILESYSTEM).type === BPF_FS_MAGIC) return;
  mount("bpffs", BPF_FILESYSTEM, "bpf", 0);
}

/**
 * Takes away the directories of which every attachment has lost its link: their namespaces are gone. One with maps and no
 * attachment is another node's that is just being made.
 */
function removeDead(except: string): void {
  for (const name of listed(OURS)) {
    const directory = `${OURS}/${name}`;
    if (directory === except) continue;
    const names = listed(directory);
    const attachments = names.filter((each) => each.startsWith(ATTACHMENT));
    const isBeingMade = names.length > 0 && attachments.length === 0;
    if (isBeingMade || attachments.some((each) => isAttached(`${directory}/${each}`))) continue;
    try {
      for (const each of names) unlinkSync(`${directory}/${each}`);
      rmdirSync(directory);
    } catch {
      // Another agent was at it at the same time.
    }
  }
}

function listed(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function isAttached(path: string): boolean {
  const fd = openPin(path);
  if (fd === undefined) return false;
  try {
    return attachedTo(fd) !== undefined;
  } finally {
    closeSync(fd);
  }
}

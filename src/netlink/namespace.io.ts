import { closeSync, mkdirSync, openSync, statSync, unlinkSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import {
  AF_INET,
  CLONE_NEWNET,
  ioctl,
  MNT_DETACH,
  mount,
  MS_BIND,
  MS_REC,
  MS_SHARED,
  setns,
  SOCK_DGRAM,
  socket,
  unmount,
  unshare,
} from "./ffi.io.ts";

/** Network namespaces. A thread is in one at a time; everything here leaves the calling thread where it was. */

/** The calling thread's own namespace; /proc/self would be the main thread's. */
const HERE = "/proc/thread-self/ns/net";

/** Where `ip netns` keeps its namespaces. */
const IPROUTE2_DIRECTORY = "/run/netns";

/** A path that keeps naming the calling thread's namespace for as long as this thread is in it. */
export function currentNamespace(): string {
  return HERE;
}

/** What tells one namespace from another: the inode of its nsfs file. Throws `Failure` ENOENT where there is none. */
export function namespaceInode(path: string): number {
  try {
    return statSync(path).ino;
  } catch (error) {
    throw failed(`find network namespace ${path}`, error);
  }
}

/**
 * Runs `work` with the calling thread in the namespace at `path` and comes back, whatever happens. Synchronous only:
 * what is awaited would run in the wrong namespace, so a promise is refused. Sockets opened inside belong to it for
 * good, processes started inside live there, and /proc/sys/net is that namespace's.
 */
export function inNamespace<Result>(path: string, work: () => Result): Result {
  const there = openNamespace(path);
  try {
    return away(() => {
      try {
        setns(there, CLONE_NEWNET);
      } catch (error) {
        throw failed(`enter network namespace ${path}`, error);
      }
      return work();
    });
  } finally {
    closeSync(there);
  }
}

/** A socket (with close-on-exec) in the namespace at `path`, or in the calling thread's own where there is no path. */
export function socketIn(path: string | undefined, domain: number, type: number, protocol: number): number {
  return path === undefined ? socket(domain, type, protocol) : inNamespace(path, () => socket(domain, type, protocol));
}

/**
 * A new namespace that lives as long as the file at `path` is mounted, as `ip netns add` makes it. Its loopback is
 * down unless asked for. Throws `Failure` EEXIST where the file is there already.
 */
export function createNamespace(path: string, options: { readonly loopback?: boolean } = {}): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    if (dirname(path) === IPROUTE2_DIRECTORY) shareMounts(IPROUTE2_DIRECTORY);
    closeSync(openSync(path, "wx", 0o444));
  } catch (error) {
    throw failed(`create network namespace ${path}`, error);
  }
  try {
    away(() => {
      unshare(CLONE_NEWNET);
      mount(HERE, path, "none", MS_BIND);
      if (options.loopback === true) loopbackUp();
    });
  } catch (error) {
    deleteNamespace(path);
    throw failed(`create network namespace ${path}`, error);
  }
}

/** SIOCSIFFLAGS with a `struct ifreq`: one ioctl, where netlink would need a socket of its own. */
function loopbackUp(): void {
  const request = new Uint8Array(40);
  request.set([0x6c, 0x6f]); // ifr_name "lo"
  request[16] = 0x41; // ifr_flags IFF_UP | IFF_RUNNING
  const fd = socket(AF_INET, SOCK_DGRAM, 0);
  try {
    ioctl(fd, 0x8914, request);
  } finally {
    closeSync(fd);
  }
}

/** Lets go of the namespace: the kernel ends it when no process, socket or file holds it. It may be gone already. */
export function deleteNamespace(path: string): void {
  try {
    unmount(path, MNT_DETACH);
  } catch (error) {
    // EINVAL: an ordinary file, where creation was cut short.
    const code = codeOf(error);
    if (code !== "ENOENT" && code !== "EINVAL") throw failed(`delete network namespace ${path}`, error);
  }
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw failed(`delete network namespace ${path}`, error);
  }
}

/**
 * Makes the directory a shared mount point of its own, as iproute2 does (`create_netns_dir`), so that what is mounted
 * in it is seen, and unmounted, in every mount namespace that came from this one.
 */
function shareMounts(directory: string): void {
  try {
    mount("", directory, "none", MS_SHARED | MS_REC);
  } catch (error) {
    if (codeOf(error) !== "EINVAL") throw error; // EINVAL: it is no mount point yet
    mount(directory, directory, "none", MS_BIND | MS_REC);
    mount("", directory, "none", MS_SHARED | MS_REC);
  }
}

/** Runs what moves the calling thread, then brings the thread back. */
function away<Result>(work: () => Result): Result {
  const here = openNamespace(HERE);
  try {
    const result = work();
    if (result instanceof Promise) {
      result.catch(() => undefined);
      throw new Failure("EINVAL", "Work inside a network namespace must be synchronous, but it gave a promise");
    }
    return result;
  } finally {
    try {
      setns(here, CLONE_NEWNET);
    } catch (error) {
      // oxlint-disable-next-line no-unsafe-finally -- a thread lost in another namespace outweighs any other error
      throw new Failure(
        "namespace-lost",
        `Cannot return to the thread's network namespace: ${messageOf(error)}`,
        error,
      );
    } finally {
      closeSync(here);
    }
  }
}

function openNamespace(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    throw failed(`open network namespace ${path}`, error);
  }
}

function failed(attempt: string, error: unknown): Failure {
  return new Failure(codeOf(error) ?? "EIO", `Cannot ${attempt}: ${messageOf(error)}`, error);
}

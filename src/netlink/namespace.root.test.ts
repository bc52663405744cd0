import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { codeOf } from "../lib/errors.ts";
import {
  AF_INET,
  bind,
  getSocketOption,
  poll,
  POLLIN,
  setSocketOption,
  SO_REUSEADDR,
  SOCK_DGRAM,
  socket,
  SOL_SOCKET,
} from "./ffi.io.ts";
import {
  createNamespace,
  currentNamespace,
  deleteNamespace,
  inNamespace,
  namespaceInode,
  socketIn,
} from "./namespace.io.ts";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import { readSysctl, writeSysctl } from "./sysctl.io.ts";

const here = (): string => readlinkSync("/proc/thread-self/ns/net");
const code = (expected: string) => (error: unknown) => codeOf(error) === expected;

describe("network namespaces", () => {
  test("are made and ended as `ip netns` does", () => {
    using made = temporaryNamespace();
    assert.match(execFileSync("ip", ["netns", "list"], { encoding: "utf8" }), new RegExp(`^${made.name}\\b`, "m"));
    assert.match(inside(made.name, "ip", "link", "show", "lo"), /<LOOPBACK,UP,LOWER_UP>/);
    assert.notEqual(namespaceInode(made.path), namespaceInode(currentNamespace()));
    deleteNamespace(made.path);
    assert.equal(existsSync(made.path), false);
    deleteNamespace(made.path); // again
    assert.throws(() => namespaceInode(made.path), code("ENOENT"));
  });

  test("`ip netns` ends what we made, and we end what it made", () => {
    using made = temporaryNamespace();
    execFileSync("ip", ["netns", "delete", made.name]);
    assert.equal(existsSync(made.path), false);
    execFileSync("ip", ["netns", "add", made.name]);
    deleteNamespace(made.path);
    assert.doesNotMatch(execFileSync("ip", ["netns", "list"], { encoding: "utf8" }), new RegExp(made.name));
  });

  test("one that is there is not made again, and stays", () => {
    using made = temporaryNamespace();
    const inode = namespaceInode(made.path);
    assert.throws(() => createNamespace(made.path), code("EEXIST"));
    assert.equal(namespaceInode(made.path), inode);
  });

  test("live in any directory; an ordinary file is removed too", () => {
    const directory = mkdtempSync(join(tmpdir(), "caracal-netns-"));
    const path = join(directory, "deeper", "pod");
    try {
      createNamespace(path);
      assert.notEqual(inNamespace(path, here), here());
      deleteNamespace(path);
      writeFileSync(path, "");
      deleteNamespace(path);
      assert.equal(existsSync(path), false);
    } finally {
      deleteNamespace(path);
      rmSync(directory, { recursive: true });
    }
  });

  test("the thread comes back, whatever happened inside", async () => {
    using made = temporaryNamespace();
    const home = here();
    const there = inNamespace(made.path, here);
    assert.notEqual(there, home);
    assert.equal(here(), home);
    assert.throws(
      () =>
        inNamespace(made.path, () => {
          throw new Error("inside");
        }),
      /inside/,
    );
    assert.equal(here(), home);
    // A promise's work would go on outside.
    assert.throws(() => inNamespace(made.path, () => Promise.reject(new Error("late"))), /must be synchronous/);
    assert.equal(here(), home);
    using other = temporaryNamespace();
    const nested = inNamespace(made.path, () => [inNamespace(other.path, here), here()]);
    assert.deepEqual(nested, [inNamespace(other.path, here), there]);
    assert.equal(here(), home);
    await Promise.resolve();
    assert.equal(here(), home);
  });

  test("one that is not there, or is none, is refused by its path", () => {
    assert.throws(
      () => inNamespace("/run/netns/none-such", here),
      /Cannot open network namespace \/run\/netns\/none-such/,
    );
    assert.throws(() => inNamespace("/etc/hostname", here), /Cannot enter network namespace \/etc\/hostname.*EINVAL/);
  });

  test("a socket, and a process, live where they were made", () => {
    using made = temporaryNamespace();
    const fd = socketIn(made.path, AF_INET, SOCK_DGRAM, 0);
    try {
      // 127.0.0.1:53000, in a namespace where nobody has it
      bind(fd, Uint8Array.of(2, 0, 0xcf, 8, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0));
      assert.match(inside(made.name, "cat", "/proc/net/udp"), /0100007F:CF08/);
    } finally {
      closeSync(fd);
    }
    const child = inNamespace(made.path, () => execFileSync("readlink", ["/proc/self/ns/net"], { encoding: "utf8" }));
    assert.equal(child.trim(), inNamespace(made.path, here));
  });

  test("settings are the namespace's own, and written only where they differ", () => {
    using made = temporaryNamespace();
    const outside = readSysctl("ipv4/ip_forward");
    inNamespace(made.path, () => {
      assert.equal(readSysctl("ipv4/ip_forward"), "0");
      assert.equal(writeSysctl("ipv4/ip_forward", 1), true);
      assert.equal(writeSysctl("ipv4/ip_forward", 1), false);
      assert.equal(readSysctl("ipv4/ip_forward"), "1");
      assert.equal(writeSysctl("ipv4/ping_group_range", "0 99"), true);
      assert.equal(writeSysctl("ipv4/ping_group_range", "0 99"), false);
    });
    assert.equal(readSysctl("ipv4/ip_forward"), outside);
    assert.throws(
      () => readSysctl("ipv4/conf/none0/proxy_arp"),
      /Cannot read \/proc\/sys\/net\/ipv4\/conf\/none0\/proxy_arp/,
    );
    inNamespace(made.path, () => {
      assert.throws(
        () => writeSysctl("ipv4/ip_forward", "x"),
        /Cannot set \/proc\/sys\/net\/ipv4\/ip_forward to "x": EINVAL/,
      );
    });
  });
});

describe("system calls", () => {
  test("say which one failed, and why", () => {
    assert.throws(() => socket(99, SOCK_DGRAM, 0), /Cannot open a socket of family 99.*\(EAFNOSUPPORT\)/);
    assert.throws(() => setSocketOption(-1, SOL_SOCKET, SO_REUSEADDR, 1), code("EBADF"));
  });
  test("options are read and written", () => {
    const fd = socket(AF_INET, SOCK_DGRAM, 0);
    try {
      assert.deepEqual([...getSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 4)], [0, 0, 0, 0]);
      setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
      assert.deepEqual([...getSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 16)], [1, 0, 0, 0]);
    } finally {
      closeSync(fd);
    }
  });
  test("poll tells which descriptor is ready", () => {
    const quiet = socket(AF_INET, SOCK_DGRAM, 0);
    const talkative = openSync("/dev/zero", "r");
    try {
      const entries = [quiet, talkative, -1].map((fd) => ({ fd, events: POLLIN }));
      assert.deepEqual(poll(entries, 1000), [0, POLLIN, 0]);
      assert.deepEqual(poll(entries.slice(0, 1), 1), [0]);
    } finally {
      closeSync(quiet);
      closeSync(talkative);
    }
  });
});

import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Koffi from "koffi";

const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
const setns = koffi.load("libc.so.6").func("int setns(int fd, int type)") as (fd: number, type: number) => number;
/** <linux/sched.h> */
const CLONE_NEWNET = 0x40000000;

/** Makes every socket that this process opens from now on one of the namespace. */
export function enterNamespace(name: string): void {
  const fd = openSync(`/run/netns/${name}`, "r");
  try {
    if (setns(fd, CLONE_NEWNET) < 0) throw new Error(`setns into ${name} failed with errno ${koffi.errno()}`);
  } finally {
    closeSync(fd);
  }
}

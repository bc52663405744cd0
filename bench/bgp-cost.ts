import { readdirSync, readFileSync } from "node:fs";

/** What processes have used so far. Memory in MB of 10^6 bytes. */
export interface Cost {
  /** User and system seconds. */
  readonly cpu: number;
  readonly resident: number;
  /** The most that each has had resident, added up. */
  readonly peak: number;
}

/** `/proc` counts time in these. */
const TICKS_PER_SECOND = 100;

/** Of processes and all their descendants: some daemons are several. */
export function costOf(roots: readonly number[]): Cost {
  const cost = { cpu: 0, resident: 0, peak: 0 };
  for (const pid of familyOf(roots)) {
    try {
      const fields = statOf(pid);
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const megabytes = (name: string): number =>
        (Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? 0) * 1024) / 1e6;
      cost.cpu += (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
      cost.resident += megabytes("VmRSS");
      cost.peak += megabytes("VmHWM");
    } catch {
      // it ended meanwhile
    }
  }
  return cost;
}

function familyOf(roots: readonly number[]): Set<number> {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      parents.set(Number(name), Number(statOf(Number(name))[1]));
    } catch {
      // it ended meanwhile
    }
  }
  const family = new Set(roots);
  for (let before = -1; before !== family.size;) {
    before = family.size;
    for (const [pid, parent] of parents) if (family.has(parent)) family.add(pid);
  }
  return family;
}

/** The fields of proc_pid_stat(5) after the command's name, which may hold anything. */
function statOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
}

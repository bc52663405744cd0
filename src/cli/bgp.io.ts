import { createWriteStream } from "node:fs";
import type { Writable } from "node:stream";
import type { AgentAccess } from "./target.ts";

interface Output {
  write(text: string): unknown;
}

/** Asks a peer of each of these nodes to tell all again (RFC 2918). Exit code 1 where no session of that name is up. */
export async function refreshPeer(agents: readonly AgentAccess[], peer: string, output: Output): Promise<number> {
  const path = `/bgp/refresh?peer=${encodeURIComponent(peer)}`;
  const failures: unknown[] = [];
  let asked = 0;
  for (const agent of agents) {
    try {
      const answer = (await agent.ask(path)) as { readonly peer: string; readonly asked: boolean };
      if (answer.asked) asked += 1;
      output.write(
        answer.asked
          ? `${agent.node}: ${answer.peer} is asked to tell all again\n`
          : `${agent.node}: the session with ${answer.peer} is not established\n`,
      );
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length === agents.length) throw failures[0];
  return asked > 0 ? 0 : 1;
}

/** All that peers told a node and what it holds itself, as MRT records (RFC 6396), into a file; `-` is the standard output. */
export async function dumpTables(agent: AgentAccess, file: string, errors: Output): Promise<number> {
  const length = await agent.stream("/bgp/dump", open(file));
  if (file !== "-") errors.write(`${agent.node}: ${length} bytes of MRT records in ${file}\n`);
  return 0;
}

/** What a session says and hears from now on, as MRT records, until the time is over or somebody interrupts it. */
export async function traceSession(
  agent: AgentAccess,
  peer: string,
  file: string,
  seconds: number | undefined,
  errors: Output,
): Promise<number> {
  const end = new AbortController();
  const interrupt = (): void => end.abort();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, interrupt);
  const timer = seconds === undefined ? undefined : setTimeout(interrupt, seconds * 1000);
  try {
    const length = await agent.stream(`/bgp/trace?peer=${encodeURIComponent(peer)}`, open(file), end.signal);
    if (file !== "-") errors.write(`${agent.node}: ${length} bytes of MRT records in ${file}\n`);
    return 0;
  } finally {
    clearTimeout(timer);
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, interrupt);
  }
}

function open(file: string): Writable {
  return file === "-" ? process.stdout : createWriteStream(file, { mode: 0o600 });
}

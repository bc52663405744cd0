import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { http } from "../lib/http.io.ts";

/** One question to an agent's socket; resolves with its answer, which is JSON. Rejects when there is none in time. */
export function askAgent(socketPath: string, path: string, timeoutMs = 1000): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = http.request({ socketPath, path, timeout: timeoutMs }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(JSON.parse(text));
        else reject(refusal(response.statusCode, text));
      });
    });
    call.on("timeout", () => call.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    call.on("error", reject);
    call.end();
  });
}

/**
 * Writes an answer that comes as a stream of bytes to `output`, which it ends. Resolves with its length when it is whole, or
 * when the signal ends it; rejects where the agent answers otherwise, or breaks off.
 */
export function streamAgent(socketPath: string, path: string, output: Writable, signal?: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    let length = 0;
    const call = http.request({ socketPath, path, ...(signal !== undefined && { signal }) }, (response) => {
      if (response.statusCode !== 200) {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        response.on("end", () => reject(refusal(response.statusCode, text)));
        return;
      }
      response.on("data", (chunk: Buffer) => (length += chunk.length));
      pipeline(response, output).then(
        () => resolve(length),
        (error: unknown) => {
          if (signal?.aborted !== true) reject(error instanceof Error ? error : new Error(String(error)));
          else output.end(() => resolve(length));
        },
      );
    });
    call.on("error", (error) => (signal?.aborted === true ? output.end(() => resolve(length)) : reject(error)));
    call.end();
  });
}

/** The agent's own sentence, where it has one. */
function refusal(status: number | undefined, text: string): Error {
  let reason = text.trim();
  try {
    const answer = JSON.parse(text) as { readonly error?: unknown };
    if (typeof answer.error === "string") reason = answer.error;
  } catch {
    // Not JSON: it is shown as it is.
  }
  return new Error(`the agent answers ${status}: ${reason}`);
}

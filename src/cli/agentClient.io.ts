import { request } from "node:http";

/** One question to an agent's socket; resolves with its answer, which is JSON. Rejects when there is none in time. */
export function askAgent(socketPath: string, path: string, timeoutMs = 1000): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, timeout: timeoutMs }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(JSON.parse(text));
        else reject(new Error(`the agent answers ${response.statusCode}: ${text.trim()}`));
      });
    });
    call.on("timeout", () => call.destroy(new Error(`no answer in ${timeoutMs} ms`)));
    call.on("error", reject);
    call.end();
  });
}

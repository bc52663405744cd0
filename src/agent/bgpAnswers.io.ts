import { once } from "node:events";
import type { RouteQuery } from "../bgp/config.ts";
import { formatAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { Routing } from "./routing.io.ts";
import type { Answer, StreamedBody } from "./statusServer.io.ts";

/** What the command line may ask of a node's BGP. */
export function bgpAnswers(routing: Routing): Record<string, Answer> {
  /** A peer by its name or its address. */
  const nameOf = (query: URLSearchParams): string | undefined => {
    const wanted = query.get("peer") ?? "";
    return routing.peers().find(({ name, address }) => name === wanted || address === wanted)?.name;
  };
  const noPeer = (query: URLSearchParams): Promise<{ status: number; body: unknown }> => {
    const names = routing.peers().map(({ name }) => name);
    const reason = `there is no BGP peer "${query.get("peer") ?? ""}"; there are ${names.join(", ") || "none"}`;
    return Promise.resolve({ status: 404, body: { error: reason } });
  };
  return {
    "/bgp/peers": () => Promise.resolve({ status: 200, body: routing.peers() }),
    "/bgp/routes": (query) => {
      let wanted: RouteQuery;
      try {
        wanted = routeQuery(query);
      } catch (thrown) {
        return Promise.resolve({ status: 400, body: { error: messageOf(thrown) } });
      }
      const body = routing.routes(wanted).map((route) => {
        const kernel =
          wanted.view === "best" && route.chosen && route.from !== "local"
            ? routing.refusedByKernel({ prefix: parsePrefix(route.prefix) })
            : undefined;
        return { ...(printed(route) as object), ...(kernel !== undefined && { kernel }) };
      });
      return Promise.resolve({ status: 200, body });
    },
    "/bgp/refresh": (query) => {
      const name = nameOf(query);
      if (name === undefined) return noPeer(query);
      return Promise.resolve({ status: 200, body: { peer: name, asked: routing.refresh(name) } });
    },
    "/bgp/dump": () => Promise.resolve({ status: 200, body: tables(routing) }),
    "/bgp/trace": (query) => {
      const name = nameOf(query);
      return name === undefined ? noPeer(query) : Promise.resolve({ status: 200, body: session(routing, name) });
    },
  };
}

function routeQuery(query: URLSearchParams): RouteQuery {
  const view = query.get("view") ?? "best";
  if (view !== "in" && view !== "best" && view !== "out") throw new TypeError(`view "${view}" is not in, best or out`);
  const [peer, prefix, family] = [query.get("peer"), query.get("prefix"), query.get("family")];
  if (family !== null && family !== "4" && family !== "6") throw new TypeError(`family "${family}" is not 4 or 6`);
  return {
    view,
    ...(peer !== null && { peer }),
    ...(prefix !== null && { prefix: parsePrefix(prefix) }),
    ...(family !== null && { family: family === "4" ? 4 : 6 }),
  };
}

/** Addresses as text: attributes hold them as numbers, and JSON has no form for some. */
function printed(value: unknown): unknown {
  if (typeof value === "bigint") return value.toString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Array.isArray(value)) return value.map(printed);
  if (typeof value !== "object" || value === null) return value;
  if ("family" in value && "value" in value && typeof value.value === "bigint") {
    return formatAddress({ family: value.family === 4 ? 4 : 6, value: value.value });
  }
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, printed(part)]));
}

/** How many records are written before others have their turn. */
const RECORDS_PER_TURN = 1000;

/** All tables, as fast as they are read: a large one takes many turns, in which sessions go on. */
function tables(routing: Routing): StreamedBody {
  return {
    async stream(response, gone) {
      let count = 0;
      for (const record of routing.dump()) {
        if (gone.aborted) return;
        const flows = response.write(record);
        count += 1;
        if (!flows) await once(response, "drain", { signal: gone }).catch(() => undefined);
        else if (count % RECORDS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    },
  };
}

/** More than this unread, and the reader is too slow: in bytes. */
const MOST_UNREAD = 64 * 1024 * 1024;

/** What a session says and hears, until whoever asked goes away. */
function session(routing: Routing, name: string): StreamedBody {
  return {
    stream(response, gone) {
      return new Promise((resolve) => {
        const stop = routing.trace(name, (record) => {
          response.write(record);
          if (response.writableLength > MOST_UNREAD) end();
        });
        const end = (): void => {
          stop();
          resolve();
        };
        gone.addEventListener("abort", end, { once: true });
      });
    },
  };
}

import { formatPrefix, hostPrefix } from "../ip/prefix.ts";
import { CniError } from "./error.ts";
import type { CniNode } from "./node.ts";
import { isObject, type CniRequest } from "./request.ts";

/** CHECK: whether the pod's network is as ADD left it. Throws `CniError` with every difference. */
export function check(request: CniRequest, node: CniNode): void {
  const { containerId, interfaceName, config, netns } = request;
  const endpoint = node.endpoints.find(containerId, interfaceName);
  if (endpoint === undefined) {
    throw new CniError(
      "unknown-container",
      `container ${containerId} has no interface ${interfaceName} from this plugin`,
    );
  }
  if (config.prevResult === undefined) {
    throw new CniError("invalid-config", "CHECK needs the result of ADD as prevResult");
  }
  const expected = new Set(endpoint.addresses.map((address) => formatPrefix(hostPrefix(address))));
  const strangers = addressesOf(config.prevResult, interfaceName).filter((text) => !expected.has(text));
  const differences = [
    ...strangers.map((text) => `prevResult has ${text}, which this endpoint has not`),
    ...node.interfaces.differences({ ...endpoint, netns }),
  ];
  if (differences.length > 0) {
    throw new CniError(
      "endpoint-mismatch",
      `the network of container ${containerId} is not as ADD left it`,
      differences.join("; "),
    );
  }
}

/** `ips` of a result that belong to the interface; other plugins of the chain may have added interfaces of their own. */
function addressesOf(prevResult: Readonly<Record<string, unknown>>, interfaceName: string): string[] {
  const { ips, interfaces } = prevResult;
  if (!Array.isArray(ips)) return [];
  const nameAt = (index: unknown): unknown => {
    const found: unknown = Array.isArray(interfaces) && typeof index === "number" ? interfaces[index] : undefined;
    return isObject(found) ? found["name"] : undefined;
  };
  return ips.flatMap((ip: unknown) => {
    if (!isObject(ip) || typeof ip["address"] !== "string") return [];
    const name = nameAt(ip["interface"]);
    return name === undefined || name === interfaceName ? [ip["address"]] : [];
  });
}

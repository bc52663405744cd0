/** Whose chains an interface has, of all endpoints that say it is theirs. */
import type { EndpointChains } from "../policy/chains.ts";

export interface InterfaceOwners {
  /** @param key as in the compiler's differences */
  set(key: string, endpoint: EndpointChains | undefined): void;
  touchAll(): void;
  /** Interfaces that may have another owner, or the same with other chains. `slot` tells them apart. */
  take(): { readonly slot: string; readonly owner: EndpointChains | undefined }[];
}

export function interfaceOwners(): InterfaceOwners {
  const endpoints = new Map<string, EndpointChains>();
  const claims = new Map<string, Map<string, EndpointChains>>();
  const dirty = new Set<string>();

  function change(key: string, endpoint: EndpointChains, isClaimed: boolean): void {
    const slot = `${endpoint.kind} ${endpoint.interfaceName}`;
    const claimants = claims.get(slot) ?? new Map<string, EndpointChains>();
    claims.set(slot, claimants);
    if (isClaimed) claimants.set(key, endpoint);
    else claimants.delete(key);
    if (claimants.size === 0) claims.delete(slot);
    dirty.add(slot);
  }

  return {
    set(key, endpoint) {
      const before = endpoints.get(key);
      if (before !== undefined) change(key, before, false);
      if (endpoint === undefined) return void endpoints.delete(key);
      endpoints.set(key, endpoint);
      change(key, endpoint, true);
    },
    touchAll() {
      for (const slot of claims.keys()) dirty.add(slot);
    },
    take() {
      const changed = [...dirty].map((slot) => {
        // The first by its key: any rule would do that depends on nothing but what is there.
        const [first] = [...(claims.get(slot) ?? [])].toSorted(([a], [b]) => (a < b ? -1 : 1));
        return { slot, owner: first?.[1] };
      });
      dirty.clear();
      return changed;
    },
  };
}

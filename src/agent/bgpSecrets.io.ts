import type { Datastore } from "../datastore/datastore.ts";
import { mirror, type Mirror } from "../datastore/mirror.ts";
import { messageOf } from "../lib/errors.ts";
import { secretValue, type Secret } from "../resources/secret.ts";

/** The Secrets that hold passwords of BGP sessions: those that are named are followed, and no others are read. */
export interface BgpSecrets {
  /** Follows these from now on, each by its name, and lets go of others. */
  follow(names: readonly string[]): void;
  /** Whether all that are followed have been read, or could not be for long enough. */
  known(): boolean;
  value(name: string, key: string): string | undefined;
  stop(): void;
}

export interface BgpSecretsOptions {
  readonly datastore: Datastore;
  /** Where Calico keeps them: its own namespace. */
  readonly namespace: string;
  readonly onChange: () => void;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** How long sessions wait for a Secret that cannot be read, before the others begin without. */
const PATIENCE_MS = 3000;

export function createBgpSecrets({ datastore, namespace, onChange, log }: BgpSecretsOptions): BgpSecrets {
  const followed = new Map<
    string,
    { readonly mirror: Mirror<Secret>; known: boolean; readonly patience: NodeJS.Timeout }
  >();

  function begin(name: string): void {
    const know = (): void => {
      const entry = followed.get(name);
      if (entry === undefined || entry.known) return;
      entry.known = true;
      clearTimeout(entry.patience);
      onChange();
    };
    let told = "";
    const copy = mirror(
      datastore,
      "Secret",
      {
        timers: {
          now: () => performance.now(),
          setTimeout,
          clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
        },
        random: Math.random,
        namespace,
        fieldSelector: `metadata.name=${name}`,
      },
      {
        // After the mirror itself has taken note.
        onSync: () => void setImmediate(know),
        onChange,
        onError(error) {
          const reason = messageOf(error);
          if (reason !== told) log("warn", "a Secret with BGP passwords cannot be read", { namespace, name, reason });
          told = reason;
        },
      },
    );
    followed.set(name, { mirror: copy, known: false, patience: setTimeout(know, PATIENCE_MS).unref() });
  }

  function end(name: string): void {
    const entry = followed.get(name);
    clearTimeout(entry?.patience);
    entry?.mirror.stop();
    followed.delete(name);
  }

  return {
    follow(names) {
      for (const name of followed.keys()) if (!names.includes(name)) end(name);
      for (const name of names) if (!followed.has(name)) begin(name);
    },
    known: () => [...followed.values()].every((entry) => entry.known),
    value(name, key) {
      const secret = followed.get(name)?.mirror.get(name, namespace);
      return secret === undefined ? undefined : secretValue(secret, key);
    },
    stop() {
      for (const name of followed.keys()) end(name);
    },
  };
}

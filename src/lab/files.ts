import { LabError } from "./labError.ts";

/** Where everything of a lab lives: one folder under /run/caracal, and namespaces whose names begin with the lab's. */

const LABS_DIRECTORY = "/run/caracal/labs";
export const NETNS_DIRECTORY = "/run/netns";

export interface LabFiles {
  readonly directory: string;
  /** What the lab is: its definition, for the commands that come after `lab up`. */
  readonly definition: string;
  /** Pid of the process that keeps the lab running. */
  readonly pid: string;
  readonly apiSocket: string;
  readonly dataDirectory: string;
  readonly logDirectory: string;
  /** `CNI_PATH`: the plugin's executable. */
  readonly pluginDirectory: string;
  readonly conflist: string;
  /** What the lab runs, as the keeper last wrote it: pods and their namespaces. */
  readonly keeperSocket: string;
}

export function labsDirectory(): string {
  return LABS_DIRECTORY;
}

export function labFiles(lab: string): LabFiles {
  const directory = `${LABS_DIRECTORY}/${lab}`;
  return {
    directory,
    definition: `${directory}/lab.json`,
    pid: `${directory}/keeper.pid`,
    apiSocket: `${directory}/api.sock`,
    dataDirectory: `${directory}/data`,
    logDirectory: `${directory}/log`,
    pluginDirectory: `${directory}/bin`,
    conflist: `${directory}/net.d/10-calico.conflist`,
    keeperSocket: `${directory}/keeper.sock`,
  };
}

export interface NodeFiles {
  /** The agent's /var/run/calico. */
  readonly runDirectory: string;
  /** The agent's /var/lib/calico. */
  readonly libDirectory: string;
  readonly log: string;
}

export function nodeFiles(lab: string, node: string): NodeFiles {
  const { directory, logDirectory } = labFiles(lab);
  return {
    runDirectory: `${directory}/nodes/${node}/run`,
    libDirectory: `${directory}/nodes/${node}/lib`,
    log: `${logDirectory}/${node}.log`,
  };
}

/**
 * Names of namespaces begin with `caracal.LAB.`: neither labs' nor members' names have dots, so that no lab's prefix is
 * another's.
 */
export function namespacePrefix(lab: string): string {
  return `caracal.${lab}.`;
}

/** The namespace of a node, a host, or the router. */
export function memberNamespace(lab: string, member: string): string {
  return `${NETNS_DIRECTORY}/${namespacePrefix(lab)}${member}`;
}

export function podNamespace(lab: string, namespace: string, pod: string): string {
  return `${NETNS_DIRECTORY}/${namespacePrefix(lab)}${namespace}.${pod}`;
}

/**
 * Whether the text names a lab: it becomes a part of file names and of namespaces' names. With a node's longest name it
 * still fits into the path of a unix socket, which has 107 bytes.
 */
export function checkLabName(name: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$/.test(name)) {
    throw new LabError(
      "bad-definition",
      `"${name}" is not a lab's name: lower-case letters, digits and "-", 24 at most`,
    );
  }
  return name;
}

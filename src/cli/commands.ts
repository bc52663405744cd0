import type { Command, Option } from "./arguments.ts";

/** Every command of `caracal`, for the parser and the help. `main.ts` carries them out. */

const LAB: Option = {
  type: "string",
  value: "LAB",
  help: 'the lab to speak to (default: $CARACAL_LAB, the only one running, or "default")',
};
const KUBECONFIG: Option = {
  type: "string",
  value: "FILE",
  help: "a cluster to speak to instead of a lab (default: $KUBECONFIG)",
};
const TARGET = { lab: LAB, kubeconfig: KUBECONFIG } as const;
const NAMESPACE: Option = {
  type: "string",
  short: "n",
  value: "NAMESPACE",
  help: "namespace of what names none (default: default)",
};
const FILE: Option = {
  type: "string",
  short: "f",
  value: "FILE|DIR|-",
  help: "manifests in YAML or JSON; may stand more than once",
  repeatable: true,
};
const WAIT: Option = { type: "boolean", help: "return when every node has it in force, and pods run or are gone" };
const TIMEOUT: Option = { type: "string", value: "SECONDS", help: "how long --wait waits (default: 60)" };
const JSON_OUTPUT: Option = { type: "string", short: "o", value: "json", help: "print JSON" };
const MRT_FILE: Option = {
  type: "string",
  short: "o",
  value: "FILE|-",
  help: "where to (default: -, the standard output)",
};
const NAME: Option = { type: "string", value: "NAME", help: "the lab's name (default: default)" };

function command(
  words: string,
  operands: string,
  help: string,
  options: Command["options"] = {},
  extra: Partial<Command> = {},
): Command {
  const list = words.split(" ");
  return {
    words: list,
    operands,
    minOperands: 0,
    maxOperands: operands === "" ? 0 : operands.split(" ").length,
    help,
    options,
    ...extra,
  };
}

export const COMMANDS: readonly Command[] = [
  command("lab up", "", "Make a cluster of network namespaces, with an API server and an agent on every node.", {
    name: NAME,
    nodes: { type: "string", value: "N", help: "how many nodes, all on one segment (default: 3)" },
    file: { type: "string", short: "f", value: "LAB.YAML", help: "segments, nodes and hosts, instead of --nodes" },
  }),
  command("lab down", "", "Remove every process, namespace and file of a lab.", { name: NAME }),
  command("lab list", "", "List the labs of this machine.", { output: JSON_OUTPUT }),
  command(
    "lab link",
    "MEMBER",
    "Set what is wrong with the wire of a lab's node or host; without options, nothing is.",
    {
      lab: LAB,
      cut: { type: "boolean", help: "nothing passes" },
      mtu: { type: "string", value: "BYTES", help: "larger packets are swallowed, as by a switch" },
      block: {
        type: "string",
        value: "PROTOCOL[:PORT]",
        help: "drop ipip, tcp, udp, icmp, icmpv6 or a number; with a port, what is for it; may stand more than once",
        repeatable: true,
      },
    },
    { minOperands: 1 },
  ),
  command(
    "lab exec",
    "NODE",
    "Run a command on a node, a host or the router of a lab.",
    { ...TARGET },
    { minOperands: 1, runs: true },
  ),
  command("lab keep", "", 'Keep a lab running ("lab up" starts this).', { name: NAME }),
  command("exec", "NAMESPACE/POD", "Run a command in a pod.", { ...TARGET }, { minOperands: 1, runs: true }),
  command("apply", "", "Bring objects to what manifests say.", {
    filename: FILE,
    namespace: NAMESPACE,
    wait: WAIT,
    timeout: TIMEOUT,
    ...TARGET,
  }),
  command(
    "delete",
    "KIND NAME…",
    "Delete objects, by name or as manifests name them.",
    {
      filename: FILE,
      namespace: NAMESPACE,
      wait: WAIT,
      timeout: TIMEOUT,
      "ignore-not-found": { type: "boolean", help: "what is not there counts as deleted" },
      ...TARGET,
    },
    { maxOperands: 1000 },
  ),
  command(
    "get",
    "KIND NAME",
    "Show objects.",
    {
      namespace: NAMESPACE,
      "all-namespaces": { type: "boolean", short: "A", help: "of all namespaces" },
      output: { type: "string", short: "o", value: "wide|yaml|json|name", help: "the form (default: a table)" },
      selector: {
        type: "string",
        short: "l",
        value: "SELECTOR",
        help: "only objects with these labels: app=web,tier!=db",
      },
      ...TARGET,
    },
    { minOperands: 1 },
  ),
  command("probe", "", "Try real connections between pods, and print which of them work.", {
    output: JSON_OUTPUT,
    protocol: { type: "string", value: "TCP|UDP|ICMP", help: "only this protocol (default: what pods declare)" },
    port: { type: "string", value: "PORT", help: "this port, instead of those that pods declare" },
    from: { type: "string", value: "SELECTOR", help: "only from pods with these labels, or from this namespace/pod" },
    to: { type: "string", value: "SELECTOR", help: "only to pods with these labels, or to this namespace/pod" },
    timeout: { type: "string", value: "MS", help: "how long one connection may take (default: 1000)" },
    ...TARGET,
  }),
  command("node status", "", "Show each node's state and its BGP peers.", { output: JSON_OUTPUT, ...TARGET }),
  command("bgp peers", "NODE", "Show BGP sessions, and why one is down.", { output: JSON_OUTPUT, ...TARGET }),
  command("bgp routes", "NODE", "Show BGP routes, and why one was or was not chosen.", {
    view: {
      type: "string",
      value: "in|best|out",
      help: "what peers said, what was chosen, or what is told to peers (default: best)",
    },
    peer: { type: "string", value: "NAME", help: "only of this peer, or to it" },
    prefix: { type: "string", value: "CIDR", help: "only this prefix" },
    family: { type: "string", value: "4|6", help: "only of this family" },
    output: JSON_OUTPUT,
    ...TARGET,
  }),
  command("policy counters", "NODE", "Show the packets and bytes that each rule of each policy has seen.", {
    output: JSON_OUTPUT,
    ...TARGET,
  }),
  command(
    "bgp refresh",
    "PEER NODE",
    "Ask a BGP peer, by its name or address, to tell all of its routes again.",
    { ...TARGET },
    { minOperands: 1 },
  ),
  command("bgp dump", "NODE", "Write all BGP tables of a node into a file of MRT records (RFC 6396).", {
    output: MRT_FILE,
    ...TARGET,
  }),
  command(
    "bgp trace",
    "PEER NODE",
    "Write what a BGP session says and hears into a file of MRT records, until interrupted.",
    {
      output: MRT_FILE,
      seconds: { type: "string", value: "SECONDS", help: "end after this time" },
      ...TARGET,
    },
    { minOperands: 1 },
  ),
  command("ipam show", "", "Show how the address pools are used.", {
    ip: { type: "string", value: "ADDRESS", help: "who has this address" },
    "show-blocks": { type: "boolean", help: "each block as well" },
    "show-borrowed": { type: "boolean", help: "addresses that nodes have from others' blocks" },
    "show-configuration": { type: "boolean", help: "the IPAM configuration" },
    output: JSON_OUTPUT,
    ...TARGET,
  }),
  command("ipam check", "", "Look for leaked, missing and doubled addresses.", {
    "show-all-ips": { type: "boolean", help: "every address that is in use" },
    "show-problem-ips": { type: "boolean", help: "every address with a problem" },
    output: JSON_OUTPUT,
    ...TARGET,
  }),
  command("agent", "", "Run the agent of a node; it is configured by its environment, as calico/node is."),
  command("apiserver", "", "Run the embedded API server.", {
    data: { type: "string", value: "DIR", help: "where the objects are kept" },
    socket: { type: "string", value: "PATH", help: "a unix socket to listen on" },
    listen: { type: "string", value: "ADDRESS:PORT", help: "TCP as well, with a bearer token" },
    "token-file": { type: "string", value: "FILE", help: "the token (default: DIR/token)" },
    durability: {
      type: "string",
      value: "process|machine",
      help: "what a written object survives the end of (default: process)",
    },
  }),
  command("controller", "", "Run the controller: give back addresses that nobody uses any more.", {
    kubeconfig: KUBECONFIG,
    socket: { type: "string", value: "PATH", help: "the embedded API server's socket" },
  }),
  command("flannel", "", "Run as flanneld: subnet leases and tunnels (caracal flannel -help lists its flags)."),
  command("cni", "", "Answer as the CNI plugin (what a runtime calls where no compiler was at hand)."),
  command("version", "", "Print the version."),
  command("help", "COMMAND…", "List the commands, or explain one.", {}, { maxOperands: 3 }),
];

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { helpText, parseCommandLine, usageOf, UsageError, type Invocation } from "./arguments.ts";
import { COMMANDS } from "./commands.ts";

const parse = (line: string): Invocation =>
  parseCommandLine(
    line.split(" ").filter((word) => word !== ""),
    COMMANDS,
  );

describe("the command line", () => {
  test("finds the command by its words, the longest first", () => {
    assert.deepEqual(parse("lab up").command.words, ["lab", "up"]);
    assert.deepEqual(parse("exec default/web -- ip addr").command.words, ["exec"]);
    assert.deepEqual(parse("lab exec node1 -- ip addr").command.words, ["lab", "exec"]);
  });

  test("reads options, long and short, wherever they stand", () => {
    const { operands, text, flag } = parse("get -n kube pods -o wide web --all-namespaces");
    assert.deepEqual(operands, ["pods", "web"]);
    assert.equal(text("namespace"), "kube");
    assert.equal(text("output"), "wide");
    assert.equal(flag("all-namespaces"), true);
    assert.equal(text("selector"), undefined);
    assert.equal(flag("selector"), false);
    assert.equal(parse("get pods --namespace=kube").text("namespace"), "kube");
  });

  test("takes - for a file, and -f more than once", () => {
    assert.deepEqual(parse("apply -f -").texts("filename"), ["-"]);
    assert.deepEqual(parse("apply -f a.yaml --filename b").texts("filename"), ["a.yaml", "b"]);
    assert.deepEqual(parse("apply").texts("filename"), []);
  });

  test("leaves what stands after -- to the command that is run", () => {
    const { operands, rest, text } = parse("lab exec --lab mine node1 -- ip -o addr --lab x -- y");
    assert.deepEqual(operands, ["node1"]);
    assert.deepEqual(rest, ["ip", "-o", "addr", "--lab", "x", "--", "y"]);
    assert.equal(text("lab"), "mine");
    assert.deepEqual(parse("get pods -- -x").operands, ["pods", "-x"]);
  });

  test("reads whole numbers within bounds", () => {
    assert.equal(parse("lab up --nodes 12").number("nodes", 1, 200), 12);
    assert.equal(parse("lab up").number("nodes", 1, 200), undefined);
    for (const wrong of ["0", "201", "1.5", "1e1", "x", "-1"]) {
      const { number } = parse(`lab up --nodes=${wrong}`);
      assert.throws(
        () => number("nodes", 1, 200),
        (error) => {
          assert.ok(error instanceof UsageError);
          assert.equal(error.message, `--nodes ${wrong}: expected a number from 1 to 200`);
          return true;
        },
      );
    }
  });

  const wrong: { line: string; message: RegExp }[] = [
    { line: "fly", message: /^unknown command "fly"; "caracal help" lists them all$/ },
    { line: "lab", message: /^"lab" needs one of: up, down, list, link, exec, keep$/ },
    { line: "lab fly", message: /^"lab" needs one of/ },
    {
      line: "lab up --node 3",
      message: /^Unknown option '--node'\nusage: caracal lab up \[--name NAME\] \[--nodes N\]/,
    },
    { line: "lab up -x", message: /^Unknown option '-x'\nusage:/ },
    { line: "lab up --nodes", message: /^Option '--nodes <value>' argument missing\nusage:/ },
    { line: "get pods --selector -n kube", message: /^Option '--selector' argument is ambiguous\nusage:/ },
    {
      line: "get pods --all-namespaces=yes",
      message: /^Option '-A, --all-namespaces' does not take an argument\nusage:/,
    },
    { line: "get pods -n a -n b", message: /^--namespace stands twice\nusage:/ },
    { line: "get pods -A -A", message: /^--all-namespaces stands twice\nusage:/ },
    { line: "lab up three", message: /^unexpected argument "three"\nusage: caracal lab up/ },
    { line: "get", message: /^an argument is missing\nusage: caracal get/ },
    { line: "get pods a b", message: /^unexpected argument "b"/ },
    {
      line: "exec default/web",
      message: /^the command to run is missing\nusage: caracal exec .* NAMESPACE\/POD -- COMMAND…$/,
    },
    { line: "exec default/web --", message: /^the command to run is missing/ },
    { line: "exec -- ip addr", message: /^an argument is missing/ },
  ];
  for (const { line, message } of wrong) {
    test(`refuses "${line}"`, () => {
      assert.throws(
        () => parse(line),
        (error) => {
          assert.ok(error instanceof UsageError);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }
});

describe("the commands", () => {
  test("have names of their own, one line of help each, and options that do not clash", () => {
    const names = COMMANDS.map(({ words }) => words.join(" "));
    assert.equal(new Set(names).size, names.length);
    for (const command of COMMANDS) {
      assert.match(command.help, /^[A-Z].*[.)]$/);
      const shorts = Object.values(command.options).flatMap(({ short }) => short ?? []);
      assert.equal(new Set(shorts).size, shorts.length, usageOf(command));
      assert.ok(command.minOperands <= command.maxOperands);
      for (const [name, { type, value }] of Object.entries(command.options)) {
        assert.equal(value !== undefined, type === "string", `${usageOf(command)}: --${name}`);
      }
    }
  });

  test("are those that people and scripts rely on", () => {
    for (const line of [
      "lab up --name x --nodes 3",
      "lab up --file lab.yaml",
      "lab down --name x",
      "lab list",
      "lab exec node1 -- true",
      "exec default/web -- true",
      "apply -f x --wait",
      "delete -f - --wait",
      "delete pod web db",
      "get pods web -n kube -o yaml",
      "probe -o json --protocol TCP --port 80 --from a=b --to c/d",
      "node status -o json",
      "bgp peers node1 -o json",
      "bgp routes -o json",
      "ipam show -o json",
      "ipam check -o json",
      "agent",
      "apiserver",
      "controller",
      "cni",
      "version",
      "help lab up",
    ]) {
      assert.doesNotThrow(() => parse(line), line);
    }
  });
});

describe("the help", () => {
  const apply = COMMANDS.find(({ words }) => words.join(" ") === "lab up")!;

  test("of one command has its usage, what it does, and its options", () => {
    assert.equal(
      helpText([apply]),
      `usage: caracal lab up [--name NAME] [--nodes N] [-f LAB.YAML]

Make a cluster of network namespaces, with an API server and an agent on every node.

  --name NAME                 the lab's name (default: default)
  --nodes N                   how many nodes, all on one segment (default: 3)
  -f, --file LAB.YAML         segments, nodes and hosts, instead of --nodes`,
    );
  });

  test("of all has a line for each", () => {
    const text = helpText(COMMANDS);
    for (const { words, help } of COMMANDS) {
      assert.match(text, new RegExp(`^  ${words.join(" ")}.*  ${help.slice(0, 20).replaceAll(/[.()?]/g, ".")}`, "m"));
    }
    assert.ok(text.split("\n").every((line) => line.length <= 130));
  });
});

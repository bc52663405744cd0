import { parseArgs } from "node:util";
import { Failure, messageOf } from "../lib/errors.ts";

/** The command line: a table of commands, each with its options, and one parser for all of them. */

export class UsageError extends Failure<"usage"> {
  constructor(message: string) {
    super("usage", message);
  }
}

export interface Option {
  readonly type: "string" | "boolean";
  readonly short?: string;
  /** One line for the help: what it does, and its default. */
  readonly help: string;
  /** Name of the value in the help: `--nodes N`. */
  readonly value?: string;
  /** Whether it may stand more than once. */
  readonly repeatable?: true;
}

export interface Command {
  /** The words that name it: `["lab", "up"]`. */
  readonly words: readonly string[];
  /** What follows the words and options in the usage line: `KIND [NAME]`. */
  readonly operands: string;
  readonly minOperands: number;
  readonly maxOperands: number;
  readonly help: string;
  readonly options: Readonly<Record<string, Option>>;
  /** Whether everything after `--` is a command to run. */
  readonly runs?: boolean;
}

export interface Invocation {
  readonly command: Command;
  readonly operands: readonly string[];
  /** After `--`. */
  readonly rest: readonly string[];
  readonly text: (option: string) => string | undefined;
  /** Of an option that may stand more than once. */
  readonly texts: (option: string) => readonly string[];
  readonly flag: (option: string) => boolean;
  /** A whole number within the bounds. Throws `UsageError`. */
  readonly number: (option: string, low: number, high: number) => number | undefined;
}

/** Finds the command that the words name and reads its options. Throws `UsageError` with what is wrong and what would be right. */
export function parseCommandLine(argv: readonly string[], commands: readonly Command[]): Invocation {
  const command = commands
    .filter(({ words }) => words.every((word, index) => argv[index] === word))
    .toSorted((a, b) => b.words.length - a.words.length)[0];
  if (command === undefined) throw new UsageError(unknownCommand(argv, commands));
  const dashes = argv.indexOf("--");
  const own = argv.slice(command.words.length, dashes < 0 ? undefined : dashes);
  const rest = dashes < 0 ? [] : argv.slice(dashes + 1);
  const { values, positionals } = readOptions(own, command);
  if (command.runs === true && rest.length === 0)
    throw new UsageError(`the command to run is missing\nusage: ${usageOf(command)}`);
  if (command.runs !== true && rest.length > 0) positionals.push(...rest);
  if (positionals.length < command.minOperands || positionals.length > command.maxOperands) {
    const problem =
      positionals.length < command.minOperands
        ? "an argument is missing"
        : `unexpected argument "${positionals[command.maxOperands]}"`;
    throw new UsageError(`${problem}\nusage: ${usageOf(command)}`);
  }
  return {
    command,
    operands: positionals,
    rest,
    text: (option) => (typeof values[option] === "string" ? values[option] : undefined),
    texts: (option) => [values[option] ?? []].flat().filter((value) => typeof value === "string"),
    flag: (option) => values[option] === true,
    number(option, low, high) {
      const text = values[option];
      if (typeof text !== "string") return undefined;
      const value = Number(text);
      if (!/^[0-9]+$/.test(text) || value < low || value > high) {
        throw new UsageError(`--${option} ${text}: expected a number from ${low} to ${high}`);
      }
      return value;
    },
  };
}

function readOptions(own: readonly string[], command: Command) {
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, { type, short, repeatable }]) => [
      name,
      { type, multiple: repeatable === true, ...(short === undefined ? {} : { short }) },
    ]),
  );
  let parsed;
  try {
    parsed = parseArgs({ args: [...own], options, allowPositionals: true, strict: true, tokens: true });
  } catch (error) {
    throw new UsageError(`${messageOf(error).split(/[.\n]/)[0]}\nusage: ${usageOf(command)}`);
  }
  const given = parsed.tokens.flatMap((token) => (token.kind === "option" ? [token.name] : []));
  const twice = given.find((name, index) => given.indexOf(name) < index && options[name]?.multiple !== true);
  if (twice !== undefined) throw new UsageError(`--${twice} stands twice\nusage: ${usageOf(command)}`);
  return parsed;
}

function unknownCommand(argv: readonly string[], commands: readonly Command[]): string {
  const first = argv[0] ?? "";
  const family = commands.filter(({ words }) => words[0] === first);
  if (family.length === 0) return `unknown command "${first}"; "caracal help" lists them all`;
  return `"${first}" needs one of: ${family.map(({ words }) => words.slice(1).join(" ")).join(", ")}`;
}

export function usageOf(command: Command): string {
  const options = Object.entries(command.options).map(([name, { value, short, type }]) => {
    const spelled = short === undefined ? `--${name}` : `-${short}`;
    return `[${spelled}${type === "string" ? ` ${value ?? "VALUE"}` : ""}]`;
  });
  return ["caracal", ...command.words, ...options, command.operands, ...(command.runs === true ? ["-- COMMAND…"] : [])]
    .filter((part) => part !== "")
    .join(" ");
}

/** The help of one command, or of all. */
export function helpText(commands: readonly Command[]): string {
  if (commands.length === 1) {
    const [command] = commands;
    const rows = Object.entries(command!.options).map(
      ([name, { short, value, help }]) =>
        `  ${`${short === undefined ? "" : `-${short}, `}--${name}${value === undefined ? "" : ` ${value}`}`.padEnd(28)}${help}`,
    );
    return [`usage: ${usageOf(command!)}`, "", command!.help, ...(rows.length === 0 ? [] : ["", ...rows])].join("\n");
  }
  const width = Math.max(...commands.map(({ words, operands }) => [...words, operands].join(" ").length)) + 2;
  const rows = commands.map(
    ({ words, operands, help }) => `  ${[...words, operands].join(" ").padEnd(width)}${help.split("\n")[0]}`,
  );
  return ["usage: caracal COMMAND [OPTIONS]", "", ...rows, "", '"caracal COMMAND --help" says more.'].join("\n");
}

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  anything,
  arrayOf,
  boolean,
  derive,
  int,
  mapOf,
  nullable,
  number,
  object,
  oneOf,
  oneOfNumber,
  opaque,
  optional,
  parseWith,
  refine,
  string,
  text,
  union,
  withDefault,
  type Infer,
  type Schema,
} from "./schema.ts";
import { didYouMean } from "./suggestion.ts";

const upper = text("a name", (value) => {
  if (value === "") throw new TypeError("must not be empty");
  return value.toUpperCase();
});

const taken: { name: string; schema: Schema<unknown>; input: unknown; value: unknown }[] = [
  { name: "a string", schema: string, input: "", value: "" },
  { name: "a number", schema: number, input: -1.5, value: -1.5 },
  { name: "a number at each bound", schema: arrayOf(int(1, 2)), input: [1, 2], value: [1, 2] },
  { name: "anything", schema: anything, input: [{ a: null }], value: [{ a: null }] },
  { name: "text in its normal form", schema: upper, input: "abc", value: "ABC" },
  { name: "one of two kinds", schema: arrayOf(union(int(1, 9), upper)), input: [5, "a"], value: [5, "A"] },
  { name: "null in a list with gaps", schema: arrayOf(nullable(int(0, 9))), input: [1, null], value: [1, null] },
  {
    name: "optional fields that are absent",
    schema: object({ a: optional(string), b: optional(int(0, 1)) }),
    input: { b: null },
    value: {},
  },
  {
    name: "an empty text as absent, where a text has a form",
    schema: object({ a: optional(upper), b: withDefault(oneOf("x", "y"), "y") }),
    input: { a: "", b: "" },
    value: { b: "y" },
  },
  {
    name: "an empty text as itself, where any text will do",
    schema: object({ a: optional(string) }),
    input: { a: "" },
    value: { a: "" },
  },
  {
    name: "defaults",
    schema: object({ a: withDefault(boolean, true), b: withDefault(arrayOf(string), ["x"]) }),
    input: { a: null },
    value: { a: true, b: ["x"] },
  },
  {
    name: "opaque fields",
    schema: object({ a: string, ...opaque("b", "c") }),
    input: { a: "", b: { d: [1] } },
    value: { a: "", b: { d: [1] } },
  },
  {
    name: "unknown fields that are kept",
    schema: object({ a: upper }, "keep"),
    input: { a: "x", z: 1 },
    value: { a: "X", z: 1 },
  },
  { name: "a map", schema: mapOf(upper), input: { a: "b", constructor: "c" }, value: { a: "B", constructor: "C" } },
  {
    name: "what follows from the rest",
    schema: derive(object({ a: int(0, 9) }), ({ a }) => ({ a, twice: 2 * a })),
    input: { a: 4 },
    value: { a: 4, twice: 8 },
  },
];

const refused: { name: string; schema: Schema<unknown>; input: unknown; faults: string[] }[] = [
  { name: "nothing", schema: string, input: undefined, faults: ["is required (a string)"] },
  { name: "null", schema: boolean, input: null, faults: ["is required (true or false)"] },
  {
    name: "a long text",
    schema: number,
    input: "x".repeat(50),
    faults: [`expected a number, not the text "${"x".repeat(40)}…"`],
  },
  { name: "not a number", schema: number, input: Number.NaN, faults: ["expected a number, not the number NaN"] },
  {
    name: "a broken number",
    schema: int(0, 9),
    input: 1.5,
    faults: ["expected a whole number, 0 to 9, not the number 1.5"],
  },
  { name: "a number below", schema: int(1, Number.MAX_SAFE_INTEGER), input: 0, faults: ["0 is not 1 or more"] },
  { name: "a list for an object", schema: object({}), input: [], faults: ["expected an object, not a list"] },
  { name: "an object for a list", schema: arrayOf(string), input: {}, faults: ["expected a list, not an object"] },
  {
    name: "no kind of a union",
    schema: union(int(1, 9), upper),
    input: 10,
    faults: ["expected a whole number, 1 to 9 or a name, not the number 10"],
  },
  {
    name: "a text that its parser throws at",
    schema: arrayOf(upper),
    input: ["a", ""],
    faults: ["[1]: must not be empty"],
  },
  { name: "another number", schema: oneOfNumber(4, 6), input: 5, faults: ["5 is not 4 or 6"] },
  { name: "too long a list", schema: arrayOf(string, 1), input: ["a", "b"], faults: ["has 2 items, more than 1"] },
  {
    name: "faults all the way down, all of them",
    schema: object({ a: object({ b: arrayOf(object({ c: int(0, 1), d: string })) }), e: mapOf(int(0, 1)), f: string }),
    input: {
      a: {
        b: [
          { c: 2, d: "x" },
          { c: "1", dd: "" },
        ],
      },
      e: { "x.y": 7 },
      g: 1,
    },
    faults: [
      "a.b[0].c: 2 is not 0 to 1",
      'a.b[1].c: expected a whole number, 0 to 1, not the text "1"',
      "a.b[1].d: is required (a string)",
      'a.b[1].dd: unknown field, did you mean "d"?',
      'e["x.y"]: 7 is not 0 to 1',
      "f: is required (a string)",
      'g: unknown field, did you mean "a"?',
    ],
  },
  {
    name: "a rule between fields, with its path",
    schema: object({
      range: refine(
        object({ from: number, to: number }),
        ({ from, to }, fault) => from > to && fault("is before from", "to"),
      ),
    }),
    input: { range: { from: 2, to: 1 } },
    faults: ["range.to: is before from"],
  },
  {
    name: "a field, without the rules that build on it",
    schema: derive(
      refine(object({ from: number }), (_, fault) => fault("never")),
      () => assert.fail("derived"),
    ),
    input: { from: "2" },
    faults: ['from: expected a number, not the text "2"'],
  },
  {
    name: "fields by the names of Object's own",
    schema: object({ a: optional(string) }),
    input: JSON.parse('{"constructor":1,"__proto__":2}'),
    faults: ["constructor: unknown field", "__proto__: unknown field"],
  },
];

describe("a schema", () => {
  for (const { name, schema, input, value } of taken) {
    test(`takes ${name}`, () => {
      assert.deepEqual(parseWith(schema, input, "it"), value);
    });
  }

  for (const { name, schema, input, faults } of refused) {
    test(`refuses ${name}`, () => {
      assert.throws(() => parseWith(schema, input, "Thing"), {
        code: "invalid",
        message: ["Thing is not valid:", ...faults].join("\n  "),
      });
    });
  }

  test("fills in a list of its own for each object", () => {
    const schema = object({ a: withDefault(arrayOf(string), []) });
    parseWith(schema, {}, "it").a.push("x");
    assert.deepEqual(parseWith(schema, {}, "it").a, []);
  });

  test("keeps __proto__ as a key like any other", () => {
    const map = parseWith(mapOf(anything), JSON.parse('{"__proto__":{"polluted":true}}'), "it");
    assert.deepEqual(Object.keys(map), ["__proto__"]);
    assert.equal(({} as Record<string, unknown>)["polluted"], undefined);
    assert.equal(Object.getPrototypeOf(map), Object.prototype);
  });

  test("has the type of what it takes: absent fields are absent, not undefined", () => {
    const schema = object({ a: string, b: optional(int(0, 1)), c: withDefault(oneOf("x", "y"), "x") });
    type Thing = Infer<typeof schema>;
    const whole: Thing = { a: "", b: 1, c: "y" };
    const short: Thing = { a: "", c: "x" };
    // @ts-expect-error undefined does not stand for absent
    const wrong: Thing = { a: "", b: undefined, c: "x" };
    assert.deepEqual(
      [whole, short].map((thing) => parseWith(schema, thing, "it")),
      [whole, short],
    );
    assert.deepEqual(parseWith(schema, wrong, "it"), short);
  });
});

const suggestions: [string, string[], string][] = [
  ["blockSzie", ["cidr", "blockSize"], ', did you mean "blockSize"?'],
  ["CIDR", ["cidr"], ', did you mean "cidr"?'],
  ["containrs", ["containers", "initContainers"], ', did you mean "containers"?'],
  ["selctor", ["nodeSelector", "selector"], ', did you mean "selector"?'],
  ["doNotTrack", ["order", "types"], ""],
  ["ab", ["xy"], ""],
  ["x".repeat(100), ["x".repeat(99)], ""],
];
for (const [word, known, suggestion] of suggestions) {
  test(`for ${word.slice(0, 20)} the suggestion is "${suggestion}"`, () => {
    assert.equal(didYouMean(word, known), suggestion);
  });
}

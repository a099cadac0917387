/**
 * What a JSON Schema says about a value, in words for a person. Pure functions.
 *
 * Only what can be said in a line and checked in bounded time: patterns and formats are left to the kernel, which
 * validates everything again, because a schema may come from a server that nobody trusts.
 */
export type Schema = Readonly<Record<string, unknown>>;

const MAX_DEPTH = 12;

export function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** The schema itself, or the one of `root` that its `$ref` names. */
export function resolved(given: unknown, root: Schema): Schema {
  let schema = record(given);
  for (let hops = 0; typeof schema.$ref === "string" && hops < MAX_DEPTH; hops++) {
    let found: unknown = root;
    for (const key of schema.$ref.split("/").slice(1)) found = record(found)[key];
    schema = record(found);
  }
  return schema;
}

/** The alternatives of a schema; one without has itself. */
export function alternatives(given: unknown, root: Schema): readonly Schema[] {
  const schema = resolved(given, root);
  const any = list(schema.anyOf ?? schema.oneOf);
  if (any.length > 0) return any.map((each) => resolved(each, root));
  return Array.isArray(schema.type) ? schema.type.map((type) => ({ ...schema, type })) : [schema];
}

export function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return Number.isInteger(value) ? "integer" : typeof value;
}

function isOf(type: unknown, value: unknown): boolean {
  const found = typeOf(value);
  return type === undefined || found === type || (found === "integer" && type === "number");
}

/** Why this value is none of the schema's, or null. */
export function problemWith(given: unknown, value: unknown, root: Schema, depth = 0): string | null {
  if (depth > MAX_DEPTH) return null;
  const choices = alternatives(given, root);
  if (choices.length > 1) {
    const problems = choices.map((each) => problemWith(each, value, root, depth + 1));
    // That of the alternative which has the value's own type says most.
    return problems.includes(null)
      ? null
      : (problems[choices.findIndex((each) => isOf(each.type, value))] ??
          `must be ${choices.map((each) => String(each.type ?? "a value")).join(" or ")}`);
  }
  const schema = choices[0] ?? {};
  const options = "const" in schema ? [schema.const] : list(schema.enum);
  if (options.length > 0 && !options.some((each) => isSame(each, value)))
    return `must be ${options.map((each) => JSON.stringify(each)).join(", ")}`;
  if (!isOf(schema.type, value)) return `must be ${String(schema.type)}, and is ${typeOf(value)}`;
  return (
    outOfBounds(schema, value) ??
    (typeof value === "object" && value !== null ? inside(schema, value, root, depth + 1) : null)
  );
}

type Bound = [
  name: string,
  size: number | null,
  isBroken: (size: number, limit: number) => boolean,
  words: string,
];

function outOfBounds(schema: Schema, value: unknown): string | null {
  const number = typeof value === "number" ? value : null;
  const length = typeof value === "string" ? [...value].length : null;
  const items = Array.isArray(value) ? value.length : null;
  const less = (size: number, limit: number): boolean => size < limit;
  const more = (size: number, limit: number): boolean => size > limit;
  const bounds: Bound[] = [
    ["minimum", number, less, "at least #"],
    ["maximum", number, more, "at most #"],
    ["exclusiveMinimum", number, (size, limit) => size <= limit, "more than #"],
    ["exclusiveMaximum", number, (size, limit) => size >= limit, "less than #"],
    ["minLength", length, less, "at least # long"],
    ["maxLength", length, more, "at most # long"],
    ["minItems", items, less, "a list of at least #"],
    ["maxItems", items, more, "a list of at most #"],
  ];
  for (const [name, size, isBroken, words] of bounds) {
    const limit = schema[name];
    if (size !== null && typeof limit === "number" && isBroken(size, limit))
      return `must be ${words.replace("#", String(limit))}`;
  }
  return null;
}

function inside(schema: Schema, value: object, root: Schema, depth: number): string | null {
  const properties = record(schema.properties);
  if (!Array.isArray(value)) {
    const missing = list(schema.required).find((key) => !Object.hasOwn(value, String(key)));
    if (missing !== undefined) return `${String(missing)} is missing`;
  }
  for (const [key, each] of Object.entries(value)) {
    const isKnown = !Array.isArray(value) && Object.hasOwn(properties, key);
    const rest = Array.isArray(value) ? schema.items : schema.additionalProperties;
    if (!isKnown && rest === false) return `${key} is not known`;
    const problem = problemWith(isKnown ? properties[key] : rest, each, root, depth);
    if (problem !== null) return `${key}: ${problem}`;
  }
  return null;
}

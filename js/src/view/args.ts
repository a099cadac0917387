/**
 * Arguments of a call, for eyes that decide about them: every value whole and wrapped, every hidden character an escape,
 * text and other values told apart.
 */
import { h, reveal } from "../dom";
import { highlight } from "../highlight";
import { escapeHidden, HIDDEN, visible } from "../urls";
import type { CallState } from "../wire";

export type Arguments = NonNullable<CallState["arguments"]>;

/** Key and value of each argument. */
export function argumentsView(values: Arguments): HTMLElement {
  const entries = Object.entries(values);
  if (entries.length === 0) return h("p", { class: "tc-note tc-dim" }, "No arguments.");
  const list = h("dl", { class: "tc-kv" });
  for (const [key, value] of entries)
    list.append(h("dt", null, reveal(key)), h("dd", null, coloured(key, value) ?? reveal(shown(value))));
  return list;
}

const LANGUAGES: Readonly<Record<string, string>> = {
  ...{ code: "python", python: "python", sql: "sql", query: "sql", command: "bash" },
};

/** The language of an argument that is code, by its name; null for one that is not. */
export function languageOf(key: string, text: string): string | null {
  const language = Object.hasOwn(LANGUAGES, key) ? (LANGUAGES[key] ?? null) : null;
  // A query may be asked of a search engine as well, and its words are no keywords.
  return key === "query" &&
    !/^\s*(?:--|\/\*|\(|select|with|insert|update|delete|create|drop|alter|from)/i.test(text)
    ? null
    : language;
}

/** Code in colours, unless something in it would not be seen. */
function coloured(key: string, value: unknown): DocumentFragment | null {
  if (typeof value !== "string" || shown(value) !== value || visible(value) !== value) return null;
  const language = languageOf(key, value);
  return language === null ? null : highlight(value, language);
}

/** Arguments while they stream: the raw text says nothing to most people, half a JSON object can be read all the same. */
export function streamingView(text: string): HTMLElement {
  const list = h("dl", { class: "tc-kv" });
  const entries = partialEntries(text);
  entries.forEach(([key, value], index) => {
    const isLast = index === entries.length - 1;
    list.append(
      h("dt", null, reveal(key)),
      h("dd", null, reveal(value), isLast && h("span", { class: "tc-caret" })),
    );
  });
  if (entries.length === 0)
    list.append(h("dt"), h("dd", null, reveal(text), h("span", { class: "tc-caret" })));
  return list;
}

/** One line: `path: "data/sales.csv", limit: 20`. Cut by the layout, and here for the sake of the DOM. */
export function argumentsLine(values: Arguments): string {
  const words = Object.entries(values).map(
    ([key, value]) => `${key}: ${oneLine(JSON.stringify(value) ?? "")}`,
  );
  return words.join(", ").slice(0, 300).replace(HIDDEN, escapeHidden);
}

/** The same while they stream. */
export function streamingLine(text: string): string {
  const entries = partialEntries(text.slice(0, 600));
  const words = entries.map(
    ([key, value, isText]) => `${key}: ${oneLine(isText ? JSON.stringify(value) : value)}`,
  );
  return words.join(", ").slice(0, 300).replace(HIDDEN, escapeHidden);
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ");
}

/**
 * Text as it is, other values as JSON. Text that could be taken for another value (`12`, `true`, nothing, or blanks at
 * an end) stands in quotes.
 */
function shown(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value, null, 2) ?? "";
  const isPlain = value !== "" && (value.includes("\n") || value.trim() === value) && !isJson(value);
  return isPlain ? value : JSON.stringify(value);
}

function isJson(text: string): boolean {
  if (!/^[-\d"[{tfn]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** A number that the page cannot hold exactly: what is shown of it would not be what runs. */
export function isInexact(value: unknown): boolean {
  if (typeof value === "number") return Number.isInteger(value) && !Number.isSafeInteger(value);
  return typeof value === "object" && value !== null && Object.values(value).some(isInexact);
}

/** A value as JSON to edit, with hidden characters as JSON escapes. */
export function editable(value: unknown): string {
  return withEscapes(JSON.stringify(value, null, 2));
}

function withEscapes(text: string): string {
  return text.replace(HIDDEN, (character) =>
    Array.from({ length: character.length }, (_, at) => escapeUnit(character.charCodeAt(at))).join(""),
  );
}

/** All arguments as JSON to edit. */
export function editableAll(values: Arguments, written: string): string {
  // What the model wrote has the numbers to the letter; an edit must not round them in passing.
  return isInexact(values) ? withEscapes(written) : editable(values);
}

function escapeUnit(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, "0")}`;
}

/** Why this text cannot be the arguments of a call, or null. */
export function problemOf(text: string): string | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `Not valid JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
  return isObject ? null : "Arguments are a JSON object: { … }";
}

/** What an edit changes, by lines: of texts of more than one line those that differ, of all else the value. */
export function changesOf(before: Arguments, text: string): ["-" | "+", string][] {
  const after = JSON.parse(text) as Arguments;
  const changes: ["-" | "+", string][] = [];
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [old, now] = [before, after].map((values) => (key in values ? shown(values[key]) : null));
    if (old == null || now == null || old !== now) changes.push(...linesOf(key, old ?? null, now ?? null));
  }
  return changes;
}

function linesOf(key: string, old: string | null, now: string | null): ["-" | "+", string][] {
  const [gone, come] = [old?.split("\n") ?? [], now?.split("\n") ?? []];
  let from = 0;
  while (from < Math.min(gone.length, come.length) && gone[from] === come[from]) from++;
  let back = 0;
  while (back < Math.min(gone.length, come.length) - from && gone.at(-1 - back) === come.at(-1 - back))
    back++;
  const cut = (lines: string[], sign: "-" | "+"): ["-" | "+", string][] =>
    lines.slice(from, lines.length - back).map((line) => [sign, `${key}: ${line}`]);
  return [...cut(gone, "-"), ...cut(come, "+")];
}

const ENTRY = /\s*,?\s*"((?:[^"\\]|\\.)*)"\s*:\s*/y;
const TEXT = /"((?:[^"\\]|\\.)*)(?:"|\\?$)/y;

/** Top-level keys and values of a JSON object that may break off anywhere; with true for values that are text. */
export function partialEntries(text: string): [string, string, boolean][] {
  const entries: [string, string, boolean][] = [];
  let at = text.indexOf("{") + 1;
  if (at === 0) return entries;
  for (;;) {
    ENTRY.lastIndex = at;
    const key = ENTRY.exec(text);
    if (key === null) return entries;
    at = ENTRY.lastIndex;
    TEXT.lastIndex = at;
    const value = TEXT.exec(text);
    if (value !== null) {
      entries.push([unescaped(key[1] ?? ""), unescaped(value[1] ?? ""), true]);
      at = TEXT.lastIndex;
      continue;
    }
    const end = endOfValue(text, at);
    entries.push([unescaped(key[1] ?? ""), text.slice(at, end).trim(), false]);
    at = end;
  }
}

/** The end of a number, word, list or object that begins here. */
function endOfValue(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === '"') {
      TEXT.lastIndex = at;
      TEXT.exec(text);
      at = Math.max(at, TEXT.lastIndex - 1);
    } else if (character === "[" || character === "{") depth += 1;
    else if (character === "]" || character === "}") {
      if (depth === 0) return at;
      depth -= 1;
    } else if (character === "," && depth === 0) return at;
  }
  return text.length;
}

/** A JSON string's body; an escape that is not complete yet is left out. */
function unescaped(body: string): string {
  try {
    return JSON.parse(`"${body.replace(/\\(?:u[\da-fA-F]{0,3})?$/, "")}"`) as string;
  } catch {
    return body;
  }
}

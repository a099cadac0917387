/**
 * The arguments of a call as fields, from the tool's JSON Schema.
 *
 * What has no field of its own (a list, an object, text with characters that a field would hide or lose) is edited as
 * JSON. The form writes JSON text; numbers stand in it as they were typed.
 */
import { type Child, h, reveal } from "../dom";
import { highlight } from "../highlight";
import { visible } from "../urls";
import { type Arguments, editable, languageOf } from "./args";
import { alternatives, isSame, problemWith, record, resolved, type Schema } from "./schema";

interface Field {
  readonly key: string;
  /** JSON text; null leaves the argument out. */
  read(): string | null;
  readonly isNumber: boolean;
  tell(problem: string | null): void;
}

const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?$/;
const LEFT_OUT = "";

/** A field that grows with its text. In colours, where it holds code: those are of a copy that lies behind it. */
export function codeField(
  id: string,
  label: string,
  language: string | null,
): [HTMLElement, HTMLTextAreaElement] {
  const copy = h("pre", { "aria-hidden": "true" });
  const isCode = language !== null;
  const field = h("textarea", {
    ...{ id, rows: 1, class: isCode ? "tc-field tc-code-field" : "tc-field", "aria-label": label || null },
    ...(isCode && { spellcheck: "false", autocapitalize: "off", autocomplete: "off" }),
  });
  const box = h(
    "div",
    { class: `tc-grown${isCode ? " tc-coded" : ""}${language ? " tc-coloured" : ""}` },
    copy,
    field,
  );
  const draw = (): void => {
    // A last line without a character would have no height.
    copy.replaceChildren((language && highlight(field.value, language)) || field.value, "\n");
  };
  field.addEventListener("input", draw);
  return [box, field];
}

export class Form {
  readonly element = h("div", { class: "tc-form" });
  /** What stands in it, as JSON. */
  text = "";
  problem: string | null = null;
  readonly #fields: Field[] = [];
  readonly #properties: Schema;

  constructor(
    readonly id: string,
    readonly schema: Schema,
    readonly known: Arguments,
    readonly values: Arguments,
    onInput: () => void,
  ) {
    this.#properties = record(schema.properties);
    const keys = new Set([...Object.keys(this.#properties), ...Object.keys(values)]);
    for (const key of keys) this.#fields.push(this.#field(key));
    this.element.addEventListener("input", () => {
      this.#read();
      onInput();
    });
    this.#read();
  }

  focus(): void {
    this.element.querySelector<HTMLElement>("textarea, input, select")?.focus({ preventScroll: true });
  }

  #has(key: string): boolean {
    return Object.hasOwn(this.values, key);
  }

  #isRequired(key: string): boolean {
    const { required } = this.schema;
    return Array.isArray(required) && required.includes(key);
  }

  #read(): void {
    this.problem = null;
    const parts: string[] = [];
    for (const { key, read, isNumber, tell } of this.#fields) {
      const text = read();
      const problem = this.#problem(key, text, isNumber);
      tell(problem);
      if (problem !== null) this.problem ??= `${key} ${problem}`;
      if (text !== null) parts.push(`${JSON.stringify(key)}: ${text}`);
    }
    this.text = parts.length === 0 ? "{}" : `{\n  ${parts.join(",\n  ")}\n}`;
  }

  #problem(key: string, text: string | null, isNumber: boolean): string | null {
    if (text === null) return this.#isRequired(key) ? "is needed" : null;
    if (isNumber && text !== "null" && !NUMBER.test(text.trim())) return "is not a number";
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return "is not valid JSON";
    }
    // The kernel has taken what stands there unchanged.
    if (Object.hasOwn(this.known, key) && isSame(value, this.known[key])) return null;
    return problemWith(this.#properties[key] ?? true, value, this.schema);
  }

  #field(key: string): Field {
    const value = this.values[key];
    const given = this.#properties[key];
    const all = alternatives(given, this.schema);
    const known = all.filter(({ type }) => type !== "null");
    const [only = {}] = known;
    const isPlain = known.length === 1;
    const isNullable = known.length < all.length;
    const options =
      isPlain && (Array.isArray(only.enum) ? only.enum : only.type === "boolean" && [true, false]);
    const isUnset = !this.#has(key) || value === null;
    /** What an empty field stands for. */
    const nothing = this.#has(key) && value === null ? "null" : this.#isRequired(key) ? null : LEFT_OUT;
    const isOf = (type: string): boolean => isUnset || typeof value === type;
    const id = `${this.id}-${this.#fields.length}`;
    let control: HTMLTextAreaElement | HTMLSelectElement;
    let read: Field["read"];
    let isNumber = false;
    let node: HTMLElement;
    if (options) {
      const texts = [...options, ...(isNullable ? [null] : [])].map((option) => JSON.stringify(option));
      if (this.#has(key) && !texts.includes(JSON.stringify(value))) texts.unshift(JSON.stringify(value));
      if (!this.#isRequired(key) || !this.#has(key)) texts.unshift(LEFT_OUT);
      const select = h("select", { id });
      for (const text of texts)
        select.append(
          h("option", { value: text }, text === LEFT_OUT ? "(left out)" : visible(shownOption(text))),
        );
      select.value = this.#has(key) ? JSON.stringify(value) : LEFT_OUT;
      read = () => (select.value === LEFT_OUT ? null : select.value);
      control = node = select;
    } else {
      isNumber = isPlain && (only.type === "number" || only.type === "integer") && isOf("number");
      // A field drops carriage returns and shows nothing of what is invisible.
      const isText =
        isPlain && only.type === "string" && isOf("string") && visible(String(value)) === String(value);
      const language = isText ? languageOf(key, String(value ?? "")) : isNumber ? null : "json";
      const [box, field] = codeField(id, "", language);
      if (!isUnset) field.value = isText ? String(value) : editable(value);
      if (isNumber) field.setAttribute("inputmode", "decimal");
      const fallback = resolved(given, this.schema).default ?? record(given).default;
      field.placeholder = isUnset && fallback != null ? visible(JSON.stringify(fallback)) : "";
      field.dispatchEvent(new Event("input"));
      read = () => {
        const text = field.value;
        if (text.trim() === "" && !(isText && !isUnset))
          return isText && text !== "" ? JSON.stringify(text) : nothing || null;
        if (isText) return JSON.stringify(text);
        // What is no number stays as it was typed when the form becomes JSON.
        return isNumber && !NUMBER.test(text.trim()) ? JSON.stringify(text) : text;
      };
      control = field;
      node = box;
    }
    const hint = h("p", { class: "tc-hint tc-bad", id: `${id}-p` });
    control.setAttribute("aria-describedby", hint.id);
    const { description } = { ...only, ...record(given) };
    const words: Child[] = [reveal(key), !this.#isRequired(key) && h("small", null, " optional")];
    const about =
      typeof description === "string" && h("p", { class: "tc-sub" }, reveal(description.slice(0, 400)));
    this.element.append(
      h("div", null, h("label", { class: "tc-label", for: id }, ...words), about, node, hint),
    );
    const tell = (problem: string | null): void => {
      control.setAttribute("aria-invalid", String(problem !== null));
      hint.hidden = problem === null;
      hint.replaceChildren(reveal(problem === null ? "" : `${key} ${problem}`));
    };
    return { key, read, isNumber, tell };
  }
}

function shownOption(text: string): string {
  return text.startsWith('"') ? String(JSON.parse(text)) : text;
}

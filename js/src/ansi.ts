/**
 * The text of a tool as a terminal would colour it, without being a terminal.
 *
 * Colours become class names of the theme, so that text is never invisible on its background. Whatever would act on a
 * terminal (titles, the clipboard, hyperlinks, cursor, device queries) is dropped; what would hide text does not:
 * concealed text is shown, a backspace is an escape, an unfinished sequence stays visible. Only `\r` and "erase the line"
 * after it are obeyed, inside their own line, because progress bars live by them.
 */
import { h, reveal } from "./dom";

export interface Span {
  readonly text: string;
  /** Class names, separated by spaces; empty for plain text. */
  readonly classes: string;
}
export type Line = readonly Span[];

/** What is kept of one output; the rest is in the journal. */
export const MAX_OUTPUT_CHARS = 1_000_000;
/** Lines per block element: layout of one huge inline run would be anew with every line. */
const CHUNK_LINES = 64;

// CSI, then strings (OSC, DCS, SOS, PM, APC) with their terminator on the same line, then two-byte escapes.
const SEQUENCE = new RegExp(
  [
    String.raw`(?:\x1b\[|\x9b)([0-?]*)[ -/]*([@-~])`,
    String.raw`(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)`,
    String.raw`\x1b[ -/]+[0-~]`,
    String.raw`\x1b[0-OQ-WYZ\\\x60-~]`,
  ].join("|"),
  "g",
);

const HUES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"] as const;

interface Style {
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  strike: boolean;
  inverse: boolean;
  colour: string;
  background: string;
}

const plain = (): Style => ({
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  strike: false,
  inverse: false,
  colour: "",
  background: "",
});

const SWITCHES: Readonly<Record<number, Partial<Style>>> = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  4: { underline: true },
  7: { inverse: true },
  9: { strike: true },
  21: { underline: true },
  22: { bold: false, dim: false },
  23: { italic: false },
  24: { underline: false },
  27: { inverse: false },
  29: { strike: false },
  39: { colour: "" },
  49: { background: "" },
};

function classesOf(style: Style): string {
  const names: string[] = [];
  for (const flag of ["bold", "dim", "italic", "underline", "strike", "inverse"] as const) {
    if (style[flag]) names.push(`tc-${flag}`);
  }
  if (style.colour !== "") names.push(`tc-fg-${style.colour}`);
  if (style.background !== "") names.push(`tc-bg-${style.background}`);
  return names.join(" ");
}

/** The nearest of the theme's hues, or none for greys, which would vanish in one of the two themes. */
function hueOf(red: number, green: number, blue: number): string {
  const high = Math.max(red, green, blue);
  const low = Math.min(red, green, blue);
  if (high - low < 48) return "";
  const isOn = (value: number): number => (value > (high + low) / 2 ? 1 : 0);
  return HUES[isOn(red) + 2 * isOn(green) + 4 * isOn(blue)] ?? "";
}

function indexedHue(index: number): string {
  if (index < 16) return HUES[index % 8] ?? "";
  if (index >= 232) return "";
  const cube = index - 16;
  return hueOf(Math.floor(cube / 36) * 51, (Math.floor(cube / 6) % 6) * 51, (cube % 6) * 51);
}

/** Applies one "select graphic rendition"; the number of parameters that count is bounded. */
function applySgr(style: Style, parameters: string): void {
  const codes = parameters.slice(0, 256).split(/[;:]/).map(Number);
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at] ?? 0;
    if (code === 0) Object.assign(style, plain());
    else if (code >= 30 && code <= 37) style.colour = HUES[code - 30] ?? "";
    else if (code >= 90 && code <= 97) style.colour = HUES[code - 90] ?? "";
    else if (code >= 40 && code <= 47) style.background = HUES[code - 40] ?? "";
    else if (code >= 100 && code <= 107) style.background = HUES[code - 100] ?? "";
    else if (code === 38 || code === 48) {
      const isIndexed = codes[at + 1] === 5;
      const hue = isIndexed
        ? indexedHue(codes[at + 2] ?? 0)
        : hueOf(codes[at + 2] ?? 0, codes[at + 3] ?? 0, codes[at + 4] ?? 0);
      if (code === 38) style.colour = hue;
      else style.background = hue;
      at += isIndexed ? 2 : 4;
    } else Object.assign(style, SWITCHES[code]);
  }
}

/** One line while it is written: spans, and a column to go back to. */
class LineWriter {
  #spans: { text: string; classes: string }[] = [];
  /** Column of the next character, or null at the end of the line. */
  #column: number | null = null;

  write(text: string, classes: string): void {
    if (text === "") return;
    if (this.#column !== null) {
      this.#overwrite(text, classes, this.#column);
      return;
    }
    const last = this.#spans[this.#spans.length - 1];
    if (last !== undefined && last.classes === classes) last.text += text;
    else this.#spans.push({ text, classes });
  }

  toStart(): void {
    this.#column = 0;
  }

  /** Erases from the column on; only after a return, so that it never erases what stands where it was written. */
  erase(): void {
    if (this.#column === null) return;
    let room = this.#column;
    this.#spans = this.#spans.flatMap((span) => {
      const text = span.text.slice(0, room);
      room -= text.length;
      return text === "" ? [] : [{ ...span, text }];
    });
    this.#column = null;
  }

  take(): Line {
    const spans = this.#spans;
    this.#spans = [];
    this.#column = null;
    return spans;
  }

  #overwrite(text: string, classes: string, column: number): void {
    const before: { text: string; classes: string }[] = [];
    const after: { text: string; classes: string }[] = [];
    const end = column + text.length;
    let at = 0;
    for (const span of this.#spans) {
      if (at < column) before.push({ ...span, text: span.text.slice(0, column - at) });
      if (at + span.text.length > end) after.push({ ...span, text: span.text.slice(Math.max(0, end - at)) });
      at += span.text.length;
    }
    this.#spans = before;
    this.#column = null;
    this.write(text, classes);
    for (const span of after) this.write(span.text, span.classes);
    this.#column = end < at ? end : null;
  }
}

/** Text of a terminal as lines of spans; a trailing newline makes no line of its own. */
export function parseAnsi(text: string): Line[] {
  const lines: Line[] = [];
  const line = new LineWriter();
  const style = plain();
  let classes = "";
  const write = (piece: string): void => {
    piece.split("\n").forEach((row, index) => {
      if (index > 0) lines.push(line.take());
      row.split("\r").forEach((part, nth) => {
        if (nth > 0) line.toStart();
        line.write(part, classes);
      });
    });
  };
  let at = 0;
  for (const match of text.matchAll(SEQUENCE)) {
    write(text.slice(at, match.index));
    at = match.index + match[0].length;
    if (match[2] === "K") line.erase();
    if (match[2] !== "m" || /[<=>?]/.test(match[1] ?? "")) continue;
    applySgr(style, match[1] ?? "");
    classes = classesOf(style);
  }
  write(text.slice(at));
  const last = line.take();
  if (last.length > 0 || (text !== "" && !text.endsWith("\n"))) lines.push(last);
  return lines;
}

/** Lines `from` to `to` in blocks of 64 lines each; hidden characters are escapes. */
export function renderLines(lines: readonly Line[], from = 0, to = lines.length): DocumentFragment {
  const fragment = document.createDocumentFragment();
  for (let start = from; start < Math.min(to, lines.length); start += CHUNK_LINES) {
    const chunk = h("span", { class: "tc-lines" });
    for (const line of lines.slice(start, Math.min(start + CHUNK_LINES, to))) {
      for (const { text, classes } of line) {
        const content = reveal(text);
        chunk.append(classes === "" ? content : h("span", { class: classes }, content));
      }
      chunk.append("\n");
    }
    chunk.normalize();
    fragment.append(chunk);
  }
  return fragment;
}

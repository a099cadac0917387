/**
 * What a call has made for people: figures, tables, files.
 *
 * A tool says what it likes, so only what has exactly the expected shape is shown: an image as base64 in a `data:` URL of
 * ours, and tables of values, each as text.
 */
import { h, reveal } from "../dom";
import { visible } from "../urls";
import type { CallState, StepView } from "../wire";
import { outputView } from "./output";
import { bytes } from "./words";

const TABLE = "application/vnd.turncell.table+json";
const IMAGES = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const MAX_HTML = 500_000;
const MAX_ROWS = 200;
const MAX_CELL = 500;

/** A mime bundle; empty where there is nothing that we show. */
export function displayView(bundle: unknown, name: string): Node[] {
  if (typeof bundle !== "object" || bundle === null) return [];
  const {
    [TABLE]: table,
    "text/plain": text,
    "text/html": html,
    ...others
  } = bundle as Record<string, unknown>;
  const words = typeof text === "string" ? text : "";
  for (const type of IMAGES) {
    const data = others[type];
    if (typeof data !== "string" || !/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(data)) continue;
    const alt = visible(words).slice(0, 200) || `Figure of ${visible(name)}`;
    return [h("img", { class: "tc-loaded", src: `data:${type};base64,${data.replace(/\s/g, "")}`, alt })];
  }
  const view = tableView(table, name);
  if (view !== null) return [view];
  const shown = words === "" ? [] : [outputView("Display", words, `Display of ${visible(name)}`)];
  return typeof html === "string" && html !== "" ? [...shown, htmlView(html, name)] : shown;
}

/** No script, no network, no form: what a tool's HTML may still do is lie about itself, so it has a frame and a label. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/**
 * HTML of a tool, behind a click. The frame takes no click and no focus: a link in it would take its address, and what
 * is in that, to another host.
 */
function htmlView(html: string, name: string): HTMLElement {
  const show = h("button", { type: "button", class: "tc-small tc-link" }, "Show HTML");
  const view = h("div", { class: "tc-html" }, show);
  const isLong = html.length > MAX_HTML;
  if (isLong) view.replaceChildren(h("p", { class: "tc-note tc-dim" }, "HTML, too long to be shown."));
  show.addEventListener("click", () => {
    const frame = h("iframe", {
      ...{ sandbox: true, referrerpolicy: "no-referrer", tabindex: -1, title: `HTML of ${visible(name)}` },
      srcdoc: `<!doctype html><meta http-equiv="Content-Security-Policy" content="${POLICY}"><meta name="color-scheme" content="light"><base target="_blank">${html}`,
    });
    const label = `HTML of ${visible(name)}, in a frame without script and network`;
    const box = h("div", { class: "tc-frame", tabindex: 0, role: "group", "aria-label": label }, frame);
    show.replaceWith(box);
    box.focus({ preventScroll: true });
  });
  return view;
}

/** What a model has made. One at an address is named, never loaded. */
export function imagesView(images: StepView["images"]): HTMLElement {
  const views = images.flatMap(({ media_type, data }) =>
    media_type === null
      ? [h("p", { class: "tc-note tc-dim" }, "Image, not loaded: ", reveal(data))]
      : displayView({ [media_type]: data, "text/plain": "Image by the model" }, ""),
  );
  return h("div", null, ...views);
}

function tableView(table: unknown, name: string): HTMLElement | null {
  const { columns, rows, shape } = (table ?? {}) as Record<string, unknown>;
  if (!Array.isArray(columns) || !Array.isArray(rows) || !rows.every((row) => Array.isArray(row)))
    return null;
  const shown: unknown[][] = rows.slice(0, MAX_ROWS);
  const sides = columns.map((_, at) => {
    const values = shown.map((row) => row[at]).filter((value) => value != null);
    return values.length > 0 && values.every((value) => typeof value === "number") ? "tc-right" : null;
  });
  const line = (tag: "th" | "td", values: readonly unknown[]): HTMLElement => {
    const scope = tag === "th" ? "col" : null;
    return h(
      "tr",
      null,
      ...sides.map((side, at) => h(tag, { class: side, scope }, reveal(cell(values[at])))),
    );
  };
  const body = shown.map((row) => line("td", row));
  const whole = h("table", null, h("thead", null, line("th", columns)), h("tbody", null, ...body));
  // What scrolls needs the keyboard and a name.
  const label = `Table of ${visible(name)}`;
  const view = h("div", { class: "tc-table", tabindex: 0, role: "group", "aria-label": label }, whole);
  const total = Array.isArray(shape) && typeof shape[0] === "number" ? shape[0] : rows.length;
  if (total <= shown.length) return view;
  const note = `${shown.length} of ${total.toLocaleString("en")} rows`;
  return h("div", null, view, h("div", { class: "tc-more" }, note));
}

function cell(value: unknown): string {
  if (value == null) return "";
  return (typeof value === "string" ? value : (JSON.stringify(value) ?? "")).slice(0, MAX_CELL);
}

/** The files that a call has written. */
export function filesView(files: CallState["files"]): HTMLElement {
  const items = files.map((file) => {
    const size = file.bytes !== null && h("span", { class: "tc-dim" }, ` ${bytes(file.bytes)}`);
    return h("li", null, h("code", null, reveal(file.path)), size);
  });
  return h("ul", { class: "tc-files" }, ...items);
}

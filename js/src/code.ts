/** Code blocks: a head with language and Copy, and lines that can grow by tens of thousands. */
import { copyButton, h } from "./dom";
import { readable } from "./urls";

/**
 * Lines per inner block. One text node of 100 KB is laid out anew with every character; blocks of 64 lines keep a
 * growing fence at 0.1 ms a frame.
 */
const CHUNK_LINES = 64;

/**
 * Appends text to a `code` element in chunks. The result depends on the whole text only, not on how it was cut, as long
 * as no surrogate pair is cut. Bidi controls and tags become escapes: code is judged by eye before it is run.
 */
export class CodeWriter {
  #node: Text | null = null;
  #lines = 0;

  constructor(readonly code: HTMLElement) {}

  append(raw: string): void {
    const text = readable(raw);
    let at = 0;
    while (at < text.length) {
      if (this.#node === null || this.#lines === CHUNK_LINES) {
        this.#node = document.createTextNode("");
        this.#lines = 0;
        this.code.append(h("span", { class: "tc-lines" }, this.#node));
      }
      let end = at;
      while (end < text.length && this.#lines < CHUNK_LINES) {
        const newline = text.indexOf("\n", end);
        end = newline < 0 ? text.length : newline + 1;
        if (newline >= 0) this.#lines += 1;
      }
      this.#node.appendData(text.slice(at, end));
      at = end;
    }
  }
}

/** The language of a fence's info string: its first word, or nothing when it is not a plain name. */
export function languageOf(info: string): string {
  const name = /^\S*/.exec(info.trim())?.[0] ?? "";
  return /^[\w+#.-]{1,24}$/.test(name) ? name.toLowerCase() : "";
}

/** An empty code block; write into the `code` element of the result with a `CodeWriter`. */
export function codeBlock(language: string): { block: HTMLElement; code: HTMLElement } {
  const code = h("code", language === "" ? null : { class: `language-${language}` });
  // A scroller gets the focus in Chromium even without tabindex, so it needs the attribute against shortcuts too.
  const pre = h(
    "pre",
    { tabindex: 0, role: "group", "aria-label": language === "" ? "Code" : `${language} code` },
    code,
  );
  const copy = copyButton((button) => codeText(button.closest(".tc-code")).replace(/\n$/, ""));
  const add = h("button", { type: "button", class: "tc-copy tc-insert" }, "Insert cell");
  add.addEventListener("click", () => {
    const asked = new CustomEvent("tc-insert", {
      bubbles: true,
      composed: true,
      detail: codeText(add.closest(".tc-code")),
    });
    add.dispatchEvent(asked);
  });
  const isCell = /^(?:python|py|ipython|)$/.test(language);
  const head = h(
    "div",
    { class: "tc-code-head" },
    h("span", { class: "tc-lang" }, language),
    isCell && add,
    copy,
  );
  return { block: h("div", { class: "tc-code" }, head, pre), code };
}

/** The text of a code block, whatever the highlighter made of it. */
export function codeText(block: Element | null): string {
  return block?.querySelector("pre > code")?.textContent ?? "";
}

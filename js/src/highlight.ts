/**
 * Colours for closed code blocks, when the page has nothing better to do.
 *
 * highlight.js reports scopes and text to an emitter; ours writes them into the DOM as they come, so the library's HTML
 * string is never made. Code is cut to nothing and filled again only after it was read whole, so what is copied or
 * selected as text is always exactly what the model wrote.
 */
import core from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import diff from "highlight.js/lib/languages/diff";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import { h } from "./dom";

/** Beyond this the colours are not worth the time. */
export const MAX_HIGHLIGHT_CHARS = 50_000;

/** From highlight.js scopes (their first word) to the few colours that we have. */
const CLASSES: Readonly<Record<string, string>> = {
  keyword: "tc-hl-keyword",
  literal: "tc-hl-keyword",
  "selector-tag": "tc-hl-keyword",
  string: "tc-hl-string",
  regexp: "tc-hl-string",
  addition: "tc-hl-added",
  deletion: "tc-hl-removed",
  number: "tc-hl-number",
  built_in: "tc-hl-name",
  type: "tc-hl-name",
  title: "tc-hl-name",
  attr: "tc-hl-name",
  attribute: "tc-hl-name",
  variable: "tc-hl-variable",
  meta: "tc-hl-comment",
  comment: "tc-hl-comment",
  quote: "tc-hl-comment",
};

/** What highlight.js calls while it reads; see its `TokenTreeEmitter`. */
class DomEmitter {
  readonly fragment = document.createDocumentFragment();
  #open: Node[] = [this.fragment];

  get #top(): Node {
    return this.#open[this.#open.length - 1] ?? this.fragment;
  }

  addText(text: string): void {
    const last = this.#top.lastChild;
    if (last instanceof Text) last.appendData(text);
    else if (text !== "") this.#top.appendChild(document.createTextNode(text));
  }

  startScope(scope: string): void {
    const className = CLASSES[scope.split(".")[0] ?? ""];
    // A scope without a colour of its own makes no element.
    const node = className === undefined ? this.#top : this.#top.appendChild(h("span", { class: className }));
    this.#open.push(node);
  }

  endScope(): void {
    if (this.#open.length > 1) this.#open.pop();
  }

  openNode(scope: string): void {
    this.startScope(scope);
  }

  closeNode(): void {
    this.endScope();
  }

  __addSublanguage(emitter: DomEmitter): void {
    this.#top.appendChild(emitter.fragment);
  }

  closeAllNodes(): void {}
  finalize(): void {}
  toHTML(): string {
    return "";
  }
}

/** Enough of YAML for a file of settings; the library's grammar is eight times as long. */
const yaml: typeof json = (hljs) => ({
  keywords: "true false yes no on off null",
  contains: [
    ...[hljs.HASH_COMMENT_MODE, hljs.QUOTE_STRING_MODE, hljs.APOS_STRING_MODE],
    { scope: "attr", begin: /[\w.*&-][^\n:#'"]*:(?=\s|$)/ },
    { scope: "number", begin: /[-+]?\b\d[\d.:_eE+-]*(?=\s|$|[,\]}])/ },
  ],
});

/** Enough of SQL for a query; the library's grammar knows hundreds of functions by name. */
const sql: typeof json = (hljs) => ({
  case_insensitive: true,
  keywords:
    "select from where group by order having join left right inner outer full cross on using as and or not in is null like " +
    "between exists case when then else end distinct all union intersect except limit offset with recursive insert into " +
    "values update set delete create table view index drop alter add primary key foreign references default unique check " +
    "over partition rows asc desc true false cast int integer bigint text varchar date timestamp boolean numeric",
  contains: [
    ...[hljs.COMMENT("--", "$"), hljs.C_BLOCK_COMMENT_MODE, hljs.C_NUMBER_MODE],
    ...[
      { scope: "string", begin: "'", end: "'", contains: [{ begin: "''" }] },
      { scope: "built_in", begin: /\b\w+(?=\()/ },
    ],
  ],
});

// An instance of our own: the notebook may use the same library with other settings.
const hljs = core.newInstance();
hljs.configure({ __emitter: DomEmitter } as unknown as Parameters<typeof hljs.configure>[0]);
for (const [name, language] of Object.entries({ python, sql, bash, json, yaml, diff })) {
  hljs.registerLanguage(name, language);
}
hljs.registerAliases(["ipython", "ipython3", "py3"], { languageName: "python" });
hljs.registerAliases(["postgresql", "sqlite", "duckdb"], { languageName: "sql" });
hljs.registerAliases(["jsonl", "ndjson"], { languageName: "json" });

/** The code in colours, or null for a language that we do not know or a text that is too long. */
export function highlight(text: string, language: string): DocumentFragment | null {
  if (text.length > MAX_HIGHLIGHT_CHARS || hljs.getLanguage(language) === undefined) return null;
  const result = hljs.highlight(text, { language, ignoreIllegals: true });
  const emitter: unknown = result._emitter;
  // highlight.js gives up on a fault of a grammar by returning plain text without filling the emitter.
  if (!(emitter instanceof DomEmitter) || emitter.fragment.textContent !== text) return null;
  return emitter.fragment;
}

/** Colours `pre > code.language-x` in idle time; the result cancels what has not been done yet. */
export function highlightLater(code: HTMLElement): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let idle = 0;
  const hasIdle = typeof requestIdleCallback === "function";
  const later = (delay_ms: number): void => {
    timer = setTimeout(() => {
      if (hasIdle) idle = requestIdleCallback(work, { timeout: 2000 });
      else work();
    }, delay_ms);
  };
  const work = (): void => {
    // New nodes would drop a selection that someone is making in there.
    const selection = document.getSelection();
    if (selection !== null && !selection.isCollapsed && selection.containsNode(code, true)) {
      later(1000);
      return;
    }
    const language = code.className.replace(/^language-/, "");
    const coloured = highlight(code.textContent ?? "", language);
    if (coloured !== null) code.replaceChildren(coloured);
  };
  later(0);
  return () => {
    clearTimeout(timer);
    if (hasIdle) cancelIdleCallback(idle);
  };
}

/**
 * Markdown tokens to DOM, without a string of HTML in between.
 *
 * The parser says what the text means; this file decides what may exist: tags of one list, attributes written here by
 * name, URLs that `safeUrl` let through, text as text nodes. An image is a placeholder until a person loads it, because
 * a request alone can carry data out.
 */
import MarkdownIt, { type Env, type Token } from "markdown-it";
import { CodeWriter, codeBlock, languageOf } from "./code";
import { h, icon } from "./dom";
import { formula } from "./math";
import { linkRisk, readable, type SafeUrl, safeUrl } from "./urls";

const TAGS = [
  ...["p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "hr", "br"],
  ...["ul", "ol", "li", "em", "strong", "s", "table", "thead", "tbody", "tr", "th", "td"],
] as const;
type Tag = (typeof TAGS)[number];
const ALLOWED: ReadonlySet<string> = new Set(TAGS);

const IMAGE = [
  "M3.5 3h9A1.5 1.5 0 0 1 14 4.5v7a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 2 11.5v-7A1.5 1.5 0 0 1 3.5 3z",
  "M2.5 11.5l3.5-3.5 3 3 1.5-1.5 3 3",
];

const parser = new MarkdownIt("default", { html: false, linkify: false, typographer: false });
// 20 nested lists are still lists; deeper ones become text. Half the default halves the cost of 20,000 open brackets.
parser.set({ maxNesting: 50 });
// Every destination reaches the builder as it was written: one policy, in one place, and a refused link keeps its text.
parser.validateLink = () => true;
parser.normalizeLink = (url) => url;
parser.normalizeLinkText = (text) => text;
parser.inline.ruler.before("escape", "math", formula);

export type References = NonNullable<Env["references"]>;

export interface BuildOptions {
  /** URLs that the person has asked to load; such images are built loaded, so that a later pass does not take them back. */
  readonly loaded: Set<string>;
}

/** One top-level block of a document. */
export interface Block {
  readonly type: string;
  /** First line, and the line after the last one. */
  readonly start: number;
  readonly end: number;
  readonly tokens: readonly Token[];
}

/** Parses Markdown into top-level blocks. Link definitions are read from and written to `references`. */
export function parse(text: string, references: References): Block[] {
  const env: Env = { references };
  const blocks: Block[] = [];
  let first = 0;
  const tokens = parser.parse(text, env);
  tokens.forEach((token, index) => {
    if (token.level !== 0 || token.nesting === 1) return;
    const opening = tokens[first] ?? token;
    const [start, end] = opening.map ?? [0, 0];
    blocks.push({ type: opening.type, start, end, tokens: tokens.slice(first, index + 1) });
    first = index + 1;
  });
  return blocks;
}

/** The language of a fence, or nothing. */
export function fenceLanguage(token: Token | undefined): string {
  return token?.type === "fence" ? languageOf(parser.utils.unescapeAll(token.info)) : "";
}

/** Exactly one node per block. */
export function build(block: Block, options: BuildOptions): Node {
  return built(block.tokens, options).firstChild ?? h("p");
}

/** The nodes of text inside a block. */
export function buildInline(text: string, references: References, options: BuildOptions): Node[] {
  return [...built(parser.parseInline(text, { references }), options).childNodes];
}

function built(tokens: readonly Token[], options: BuildOptions): DocumentFragment {
  const fragment = document.createDocumentFragment();
  new Builder(options, fragment).write(tokens);
  return fragment;
}

class Builder {
  /** The open elements; a token that makes no element repeats its parent, so that opening and closing stay paired. */
  readonly #stack: (Element | DocumentFragment)[];
  readonly #links: { element: HTMLElement | null; url: SafeUrl | null }[] = [];

  constructor(
    readonly options: BuildOptions,
    root: DocumentFragment,
  ) {
    this.#stack = [root];
  }

  write(tokens: readonly Token[]): void {
    for (const token of tokens) this.#token(token);
  }

  get #top(): Element | DocumentFragment {
    return this.#stack[this.#stack.length - 1] as Element | DocumentFragment;
  }

  #token(token: Token): void {
    switch (token.type) {
      case "inline":
        this.write(token.children ?? []);
        break;
      case "text":
      case "text_special":
        this.#text(readable(token.content));
        break;
      case "softbreak":
        this.#text("\n");
        break;
      case "math":
        this.#top.append(h("span", { class: "tc-math" }, readable(token.content)));
        break;
      case "code_inline":
        this.#top.append(h("code", null, readable(token.content)));
        break;
      case "fence":
      case "code_block":
        this.#code(token);
        break;
      case "image":
        this.#image(token);
        break;
      case "link_open":
        this.#openLink(token);
        break;
      case "link_close":
        this.#closeLink();
        break;
      default:
        this.#element(token);
    }
  }

  /** Neighbouring text is one node: growing text is then one `appendData`, and equal text is an equal node. */
  #text(text: string): void {
    const last = this.#top.lastChild;
    if (last instanceof Text) last.appendData(text);
    else if (text !== "") this.#top.append(text);
  }

  #element(token: Token): void {
    if (token.nesting === -1) {
      this.#stack.pop();
      return;
    }
    // "hidden" are the paragraphs of a tight list.
    if (token.hidden || !ALLOWED.has(token.tag)) {
      if (token.nesting === 1) this.#stack.push(this.#top);
      else this.#text(readable(token.content));
      return;
    }
    const element = document.createElement(token.tag as Tag);
    if (token.tag === "ol") {
      const start = Number(token.attrGet("start") ?? 1);
      if (Number.isInteger(start) && start !== 1) element.setAttribute("start", String(start));
    } else if (token.tag === "th" || token.tag === "td") {
      const side = /^text-align:(left|center|right)$/.exec(String(token.attrGet("style")))?.[1];
      if (side) element.className = `tc-${side}`;
    }
    this.#top.append(
      token.tag === "table"
        ? h("div", { class: "tc-table", tabindex: 0, role: "group", "aria-label": "Table" }, element)
        : element,
    );
    if (token.nesting === 1) this.#stack.push(element);
  }

  #code(token: Token): void {
    const { block, code } = codeBlock(fenceLanguage(token));
    new CodeWriter(code).append(token.content);
    this.#top.append(block);
  }

  #openLink(token: Token): void {
    const url = safeUrl(String(token.attrGet("href") ?? ""));
    if (url === null) {
      this.#links.push({ element: null, url });
      this.#stack.push(this.#top);
      return;
    }
    const element = h("a", {
      href: url.href,
      title: url.host,
      target: "_blank",
      rel: "noopener noreferrer",
      referrerpolicy: "no-referrer",
    });
    this.#links.push({ element, url });
    this.#top.append(element);
    this.#stack.push(element);
  }

  #closeLink(): void {
    this.#stack.pop();
    const { element, url } = this.#links.pop() ?? { element: null, url: null };
    if (element === null || url === null) return;
    const risk = linkRisk(url, element.textContent ?? "");
    if (risk !== null) guard(element, url, risk);
  }

  #image(token: Token): void {
    const url = safeUrl(String(token.attrGet("src") ?? ""));
    const isWeb = url !== null && !url.href.startsWith("mailto:");
    const description = readable(plainText(token.children ?? []));
    if (isWeb && this.options.loaded.has(url.href)) {
      this.#top.append(loadedImage(url, description));
      return;
    }
    const what = isWeb ? `Image from ${url.host} not loaded` : "Image not shown";
    const label = h("span", null, description === "" ? what : `${what}: ${description}`);
    // The title carries the whole URL: it tells the person, and a changed URL makes a different node.
    const holder = h("span", { class: "tc-image", title: isWeb ? url.href : null }, icon(IMAGE), label);
    // A button inside a link would be two controls in one place; the link itself still works.
    const isLinked = this.#links.some((link) => link.element !== null);
    if (isWeb && !isLinked) {
      const load = h("button", { type: "button", "aria-label": `Load the image from ${url.host}` }, "Load");
      load.addEventListener("click", () => {
        this.options.loaded.add(url.href);
        holder.replaceWith(loadedImage(url, description));
      });
      holder.append(load);
    }
    this.#top.append(holder);
  }
}

function plainText(tokens: readonly Token[]): string {
  return tokens
    .map((token) =>
      token.children ? plainText(token.children) : token.type === "softbreak" ? " " : token.content,
    )
    .join("");
}

function loadedImage(url: SafeUrl, description: string): HTMLElement {
  return h("img", {
    class: "tc-loaded",
    src: url.href,
    alt: description,
    referrerpolicy: "no-referrer",
    decoding: "async",
  });
}

/** Shows where a doubtful link goes, and opens it with the second click only. */
function guard(link: HTMLElement, url: SafeUrl, risk: string): void {
  const again = h("span", { class: "tc-again" }, ": click again to open");
  link.append(h("span", { class: "tc-host", title: risk }, ` (${url.host}`, again, ")"));
  link.classList.add("tc-doubtful");
  const ask = (event: Event): void => {
    if (link.classList.contains("tc-armed")) return;
    event.preventDefault();
    link.classList.add("tc-armed");
  };
  link.addEventListener("click", ask);
  link.addEventListener("auxclick", ask);
}

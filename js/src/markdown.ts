/**
 * Markdown that arrives in pieces.
 *
 * The cost of a piece must not grow with what is already there, and what a person has selected must not jump. So:
 *
 * - Top-level blocks are *frozen*: once the next block has begun for good, the DOM of a block is never touched again and
 *   its text is never parsed again. "For good" is the delicate part, see `#safeEnd`.
 * - The rest, the *open part*, is parsed anew and patched into the DOM node by node; text grows by `appendData`.
 * - Words that follow a word are not parsed at all, see `#findTail`, nor are the lines of an open fence: they go straight
 *   into the code block until one closes it. Of an open table only the rows that are not complete are parsed again, and of
 *   a line of prose only what is behind the last mark that was closed, see `#settle`.
 * - Blocks stand in groups, by their number: laying out the last one visits its group and the other groups, not all blocks.
 * - A text is drawn as often as its drawing is cheap: after a frame that took t ms, with style, layout and paint, the next
 *   one waits 15t (at most 150 ms), and after a slow one 4t (at most 500 ms). So an answer that streams takes a sixteenth of
 *   a page, and no input more than a fifth. `end` waits for nothing.
 *
 * Invariant (held by the tests): after any sequence of `append` and `flush` the blocks are those that the whole text would
 * give at once. Two exceptions, both passing: a last line that may yet close a fence is held back, and a link whose
 * definition comes later is text until `end`.
 */
import {
  type Block,
  type BuildOptions,
  build,
  buildInline,
  fenceLanguage,
  parse,
  type References,
} from "./build";
import { CodeWriter, codeBlock } from "./code";
import { h } from "./dom";
import { highlightLater } from "./highlight";
import { patchChildren } from "./patch";

export interface MarkdownOptions {
  /** Colour closed code blocks when the page is idle; true unless said otherwise. */
  readonly highlight?: boolean;
  /** Typesets the formulas of a block that is whole. */
  readonly typeset?: ((block: Element) => void) | undefined;
  /** Called after each flush that changed the DOM. */
  readonly onFlush?: () => void;
}

/** A single block beyond this is cut at a line: one endless table must not be parsed as a whole for ever. */
const MAX_OPEN_CHARS = 200_000;
/** A table beyond this is cut as well. It is also the number of missing cells that the parser fills in. */
const MAX_CELLS = 0x10000;
export const GROUP_BLOCKS = 64;
/** What means nothing to Markdown behind a letter of the same line, whatever the paragraph holds. */
const PLAIN = /^[\p{L}\p{N} .,:?!'"([{}<&@^/%=+-]*$/u;
/** What may begin something that is closed later, when it is read as text. */
const OPENING = /[*_~`[\]<&\\$]/;

/** A place in a line of prose: whatever follows changes only what is behind it. */
interface Settled {
  readonly parent: Element;
  /** The number of the first child behind it. */
  readonly index: number;
  /** Offset in the open part. */
  readonly at: number;
}

interface OpenFence {
  readonly writer: CodeWriter;
  readonly closes: RegExp;
  /** A line that is not complete and may yet become the closing one. */
  readonly mayClose: RegExp;
  /** Offset in the open part of the first line that is not complete; what is before it has been looked at. */
  line: number;
  /** Offset up to which the text is in the DOM. */
  shown: number;
}

interface OpenTable {
  /** The two lines that make it a table; they are parsed again with each row. */
  readonly head: string;
  /** How many rows are frozen. */
  readonly rows: number;
}

const NO_TABLE: OpenTable = { head: "", rows: 0 };

/** A hidden tab has no frames; what has gathered is shown the moment it is looked at again. */
const waiting = new Set<MarkdownStream>();
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const stream of waiting) stream.flush();
});

export class MarkdownStream {
  #text = "";
  /** The text that is not frozen, with `\n` line ends only, so that offsets and lines agree with the parser's. */
  #open = "";
  /** A last character that means nothing alone: half of `\r\n` or of a surrogate pair. */
  #half = "";
  #frozenNodes = 0;
  /** Definitions of the frozen text; those of the open part may still change. */
  #references: References = {};
  #fence: OpenFence | null = null;
  #table = NO_TABLE;
  /** The text node where plain words go on, and how much of the open part is in the DOM then. */
  #tail: Text | null = null;
  #shown = 0;
  #settled: Settled | null = null;
  #isDirty = false;
  #isEnded = false;
  #notBefore = 0;
  #cancelFlush: (() => void) | null = null;
  #hasDefinitions = false;
  readonly #build: BuildOptions = { loaded: new Set() };
  readonly #highlights = new Map<HTMLElement, () => void>();

  /** The stream owns all children of `root`. */
  constructor(
    readonly root: HTMLElement,
    readonly options: MarkdownOptions = {},
  ) {}

  /** Everything that was appended, as it came. */
  get text(): string {
    return this.#text;
  }

  append(text: string): void {
    if (this.#isEnded) throw new Error("append() after end() on a MarkdownStream: start a new one");
    if (text === "") return;
    this.#text += text;
    const whole = this.#half + text;
    this.#half = /[\r\ud800-\udbff]$/.exec(whole)?.[0] ?? "";
    this.#open += lineEnds(whole.slice(0, whole.length - this.#half.length));
    this.#isDirty = true;
    this.root.classList.add("tc-live");
    this.#schedule();
  }

  /** Shows everything, resolves late link definitions and colours the last block. Repeating it does nothing. */
  end(): void {
    if (this.#isEnded) return;
    this.#open += lineEnds(this.#half);
    this.#isDirty = true;
    this.#isEnded = true;
    this.flush();
    this.root.classList.remove("tc-live");
  }

  dispose(): void {
    this.#isEnded = true;
    this.#cancelFlush?.();
    for (const cancel of this.#highlights.values()) cancel();
    this.#highlights.clear();
  }

  /** Brings the DOM up to date now. */
  flush(): void {
    this.#cancelFlush?.();
    if (!this.#isDirty) return;
    this.#isDirty = false;
    const started = performance.now();
    if (this.#isEnded || !(this.#growTail() || this.#growLine())) this.#render();
    if (this.#isEnded) this.#finish();
    this.#wait(started);
    this.options.onFlush?.();
  }

  /** How long the next drawing waits, when one that began then is done. */
  #wait(started: number): void {
    const now = performance.now();
    const cost = now - started;
    this.#notBefore = now + Math.max(Math.min(15 * cost, 150), Math.min(4 * cost, 500));
  }

  #schedule(): void {
    if (this.#cancelFlush !== null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let frame = 0;
    const flush = (): void => {
      const started = performance.now();
      this.flush();
      // The page is drawn before the next task.
      setTimeout(() => this.#wait(started));
    };
    waiting.add(this);
    this.#cancelFlush = () => {
      waiting.delete(this);
      this.#cancelFlush = null;
      clearTimeout(timer);
      cancelAnimationFrame(frame);
    };
    const wait = this.#notBefore - performance.now();
    if (wait < 16) frame = requestAnimationFrame(flush);
    else
      timer = setTimeout(() => {
        frame = requestAnimationFrame(flush);
      }, wait);
  }

  #render(): void {
    if (this.#fence !== null) this.#growFence(this.#fence);
    // Freezing a fence leaves an open part, and an open part may end in the next fence.
    while (this.#fence === null && this.#renderOpen()) {
      if (this.#fence !== null) this.#growFence(this.#fence);
    }
    this.#settled = null;
    this.#tail = null;
    if (this.#fence === null) this.#settle();
  }

  /** Finds where the next words go, and what they cannot change any more. */
  #settle(): void {
    const source = withoutSpaces(this.#open);
    this.#shown = source.length;
    this.#tail = this.#findTail();
    const [tail, before] = [this.#tail, this.#settled];
    const parent = tail?.parentElement ?? null;
    if (tail === null || parent === null) return;
    // Behind an element a space: no mark that comes can then belong to what is before it. Where the text is not its own
    // source, with an escape or an entity in it, the source does not end with it.
    const { data, previousSibling } = tail;
    if (!(previousSibling === null ? /^\p{L}/u : /^ /).test(data) || !source.endsWith(data)) return;
    const index = parent.childNodes.length - 1;
    for (let number = before?.index ?? 0; number < index; number++)
      if (mayOpen(parent.childNodes[number] as Node)) return;
    this.#settled = { parent, index, at: source.length - data.length };
  }

  /**
   * The last text node, when plain words behind it would only make it longer: it is the end of the source, in a paragraph,
   * an item or a heading, and its line has a letter already, so that no mark at the line's beginning can come any more.
   */
  #findTail(): Text | null {
    const line = withoutSpaces(this.#open.slice(this.#open.lastIndexOf("\n") + 1));
    const end = line.slice(-1);
    // A definition may take the next words for its own.
    if (!/\p{L}/u.test(line) || !PLAIN.test(end) || this.#open.includes("]:")) return null;
    let node: Node = this.root;
    let depth = 0;
    for (; node.lastChild !== null; node = node.lastChild) depth += 1;
    // The parser drops what is nested too deeply.
    if (depth > 20 || !(node instanceof Text)) return null;
    const isProse = /^(?:p|li|h\d)$/.test(node.parentElement?.localName ?? "");
    return isProse && node.data.endsWith(end) ? node : null;
  }

  #growTail(): boolean {
    const text = withoutSpaces(this.#open.slice(this.#shown));
    if (this.#tail === null || !PLAIN.test(text)) return false;
    this.#tail.appendData(text);
    this.#shown += text.length;
    return true;
  }

  /** Shows more of a line of prose, without what is settled of it. */
  #growLine(): boolean {
    const [settled, more] = [this.#settled, this.#open.slice(this.#shown)];
    // A heading may end in marks that are not shown.
    if (settled === null || /[\n\t#]/.test(more) || this.#open.includes("]:")) return false;
    const rest = withoutSpaces(this.#open.slice(settled.at));
    patchChildren(settled.parent, settled.index, buildInline(rest, this.#references, this.#build));
    this.#settle();
    return true;
  }

  /** Parses and shows the open part, freezes what is safe. True when there may be more to do behind it. */
  #renderOpen(): boolean {
    const open = this.#table.head + this.#open;
    const references = { ...this.#references };
    const blocks = this.#show(open, references);
    this.#hasDefinitions ||= Object.keys(references).length > 0;
    const lines = lineStarts(open);
    const frozen = this.#safeEnd(blocks, lines, open);
    const last = blocks[blocks.length - 1];

    if (last !== undefined && frozen === blocks.length - 1) {
      const start = lines[last.start] ?? 0;
      if (last.type === "fence" && hasBegun(last, lines, open)) {
        const lineEnd = (lines[last.start + 1] ?? open.length + 1) - 1;
        const opening = /^(?:`{3,}|~{3,})/.exec(open.slice(start, lineEnd));
        if (opening !== null) {
          this.#freeze(frozen, start, references);
          this.#openFence(opening[0], fenceLanguage(last.tokens[0]), lineEnd + 1 - start);
          return true;
        }
      }
      const firstRow = last.start + 2;
      const rowsEnd = Math.min(last.end, lines.length - 1);
      if (last.type === "table_open" && rowsEnd > firstRow) {
        const { rows } = frozen > 0 ? NO_TABLE : this.#table;
        this.#freeze(frozen, start, references);
        this.#table = { head: open.slice(start, lines[firstRow]), rows: rows + rowsEnd - firstRow };
        this.#open = open.slice(lines[rowsEnd]);
        const columns = this.#nodeAt(this.#frozenNodes).querySelectorAll("th").length;
        if (columns * this.#table.rows <= MAX_CELLS) return false;
        this.#freeze(1, this.#table.head.length, {});
        return true;
      }
    }
    const boundary = blocks[frozen];
    if (frozen > 0 && boundary !== undefined) this.#freeze(frozen, lines[boundary.start] ?? 0, references);
    const rest = this.#table.head + this.#open;
    if (rest.length <= MAX_OPEN_CHARS) return false;
    const end = rest.lastIndexOf("\n", MAX_OPEN_CHARS) + 1 || MAX_OPEN_CHARS;
    const piece = this.#show(rest.slice(0, end), { ...this.#references });
    this.#freeze(piece.length, end, references);
    return true;
  }

  /** Makes the DOM behind the frozen blocks, and the frozen rows, that of a text. */
  #show(open: string, references: References): Block[] {
    const blocks = parse(open, references);
    const nodes = blocks.map((block) => build(block, this.#build));
    const { rows } = this.#table;
    if (rows > 0) {
      const fresh = (nodes.shift() as HTMLElement).querySelector("tbody")?.childNodes ?? [];
      patchChildren(this.#nodeAt(this.#frozenNodes).querySelector("tbody") as Node, rows, [...fresh]);
    }
    this.#patchFrom(this.#frozenNodes + (rows > 0 ? 1 : 0), nodes);
    return blocks;
  }

  /**
   * How many blocks can never change again, whatever follows: all before the last one that has begun for good.
   *
   * A paragraph right under link definitions has not begun for good: it may turn out to be the rest of a title.
   */
  #safeEnd(blocks: readonly Block[], lines: readonly number[], open: string): number {
    for (let index = blocks.length - 1; index > 0; index--) {
      const block = blocks[index] as Block;
      const before = blocks[index - 1] as Block;
      const above = open.slice(lines[block.start - 1], lines[block.start]);
      // A letter behind an empty line begins something, whatever its line becomes.
      const isFresh = /^[ \t]*\n$/.test(above) && /^ {0,3}\p{L}/u.test(open.slice(lines[block.start]));
      if (!isFresh && !hasBegun(block, lines, open)) continue;
      const isText = block.type === "paragraph_open" || block.type === "heading_open";
      if (isText && before.end < block.start && above.trim() !== "") continue;
      return index;
    }
    return 0;
  }

  /** Freezes the first `count` open blocks: so many characters of the open part, with the head of its table. */
  #freeze(count: number, chars: number, references: References): void {
    const open = this.#table.head + this.#open;
    const text = open.slice(0, chars);
    // `references` is of the whole open part; when it learnt something, ask what the frozen text alone defines.
    if (Object.keys(references).length > Object.keys(this.#references).length) parse(text, this.#references);
    for (let index = 0; index < count; index++) this.#adorn(this.#nodeAt(this.#frozenNodes++));
    this.#open = open.slice(chars);
    if (count > 0) this.#table = NO_TABLE;
  }

  #openFence(marker: string, language: string, content: number): void {
    const { block, code } = codeBlock(language);
    this.#patchFrom(this.#frozenNodes, [block]);
    const shown = this.#nodeAt(this.#frozenNodes);
    // The patch may have kept an earlier code block with its text; the fence starts from an empty one.
    const live = shown.querySelector<HTMLElement>("pre > code") ?? code;
    live.replaceChildren();
    const sign = marker.charAt(0);
    this.#fence = {
      writer: new CodeWriter(live),
      closes: new RegExp(`^ {0,3}${sign}{${marker.length},}[ \\t]*$`),
      mayClose: new RegExp(`^ {0,3}${sign}*[ \\t]*$`),
      line: content,
      shown: content,
    };
  }

  #growFence(fence: OpenFence): void {
    const source = this.#open;
    for (;;) {
      const newline = source.indexOf("\n", fence.line);
      const isComplete = newline >= 0 || this.#isEnded;
      const end = newline >= 0 ? newline : source.length;
      const line = source.slice(fence.line, end);
      if (isComplete && fence.closes.test(line)) {
        this.#writeFence(fence, fence.line);
        this.#fence = null;
        this.#freeze(1, Math.min(end + 1, source.length), {});
        return;
      }
      if (newline < 0) {
        // At the end spaces alone are no line, as for the parser.
        const isHeld = this.#isEnded ? line.trim() === "" : fence.mayClose.test(line);
        this.#writeFence(fence, isHeld ? fence.line : end);
        this.#open = source.slice(fence.line);
        fence.shown -= fence.line;
        fence.line = 0;
        return;
      }
      fence.line = newline + 1;
    }
  }

  #writeFence(fence: OpenFence, end: number): void {
    if (end <= fence.shown) return;
    fence.writer.append(this.#open.slice(fence.shown, end).replaceAll("\0", "\ufffd"));
    fence.shown = end;
  }

  #finish(): void {
    // Only a definition has an effect on text before it.
    if (this.#hasDefinitions) {
      this.#patchFrom(
        0,
        parse(lineEnds(this.#text), {}).map((block) => build(block, this.#build)),
      );
    }
    this.#fence = null;
    for (const group of this.root.children) this.#adorn(group);
  }

  #nodeAt(index: number): HTMLElement {
    const group = this.root.childNodes[Math.floor(index / GROUP_BLOCKS)];
    return group?.childNodes[index % GROUP_BLOCKS] as HTMLElement;
  }

  /** Makes the blocks from `index` on these. */
  #patchFrom(index: number, nodes: readonly Node[]): void {
    const { childNodes } = this.root;
    const count = Math.ceil((index + nodes.length) / GROUP_BLOCKS);
    for (let number = Math.floor(index / GROUP_BLOCKS); number < count; number++) {
      const first = number * GROUP_BLOCKS - index;
      const group = childNodes[number] ?? this.root.appendChild(h("div"));
      patchChildren(group, Math.max(0, -first), nodes.slice(Math.max(0, first), first + GROUP_BLOCKS));
    }
    while (childNodes.length > count) this.root.lastChild?.remove();
  }

  /** What is done to a block that is whole. */
  #adorn(node: Element): void {
    this.options.typeset?.(node);
    if (this.options.highlight === false) return;
    for (const code of node.querySelectorAll<HTMLElement>("pre > code[class^='language-']")) {
      if (!this.#highlights.has(code)) this.#highlights.set(code, highlightLater(code));
    }
  }
}

function lineEnds(text: string): string {
  return text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
}

/** Whether text in it, other than code, may yet begin something that is closed behind it. */
function mayOpen(node: Node): boolean {
  if (node instanceof Text) return OPENING.test(node.data);
  return (node as Element).localName !== "code" && [...node.childNodes].some(mayOpen);
}

/** Spaces at the end of a paragraph are not shown. */
function withoutSpaces(text: string): string {
  let end = text.length;
  while (text[end - 1] === " ") end -= 1;
  return text.slice(0, end);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
  return starts;
}

/**
 * Whether the lines that say what a block is are complete: its first one (`#` may become `#hashtag`), and the one below
 * when the first has a `|`, for that makes a table even of what would be a fence or a heading.
 */
function hasBegun(block: Block, lines: readonly number[], open: string): boolean {
  const first = open.slice(lines[block.start], lines[block.start + 1]);
  return block.start + (first.includes("|") ? 1 : 0) < lines.length - 1;
}

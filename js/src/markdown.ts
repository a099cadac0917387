/**
 * Markdown that arrives in pieces.
 *
 * The cost of a piece must not grow with what is already there, and what a person has selected must not jump. So:
 *
 * - Top-level blocks are *frozen*: once the next block has begun for good, the DOM of a block is never touched again and
 *   its text is never parsed again. "For good" is the delicate part, see `#safeEnd`.
 * - The rest, the *open part*, is parsed anew and patched into the DOM node by node; text grows by `appendData`.
 * - An open fence is not parsed at all: its lines go straight into the code block until one closes it.
 * - After a flush that took t ms the next one waits 4t (at most 500 ms): no input takes more than a fifth of the page.
 *
 * Invariant (held by the tests): after any sequence of `append` and `flush` the DOM is the one that the whole text would
 * give at once. Two exceptions, both passing: a last line that may yet close a fence is held back, and a link whose
 * definition comes later is text until `end`.
 */
import { type Block, type BuildOptions, build, fenceLanguage, parse, type References } from "./build";
import { CodeWriter, codeBlock } from "./code";
import { highlightLater } from "./highlight";
import { patchChildren } from "./patch";

export interface MarkdownOptions {
  /** Colour closed code blocks when the page is idle; true unless said otherwise. */
  readonly highlight?: boolean;
  /** Called after each flush that changed the DOM. */
  readonly onFlush?: () => void;
}

/** A single block beyond this is cut at a line: one endless table must not be parsed as a whole for ever. */
const MAX_OPEN_CHARS = 200_000;
const MAX_WAIT_MS = 500;

interface OpenFence {
  readonly writer: CodeWriter;
  readonly closes: RegExp;
  /** A line that is not complete and may yet become the closing one. */
  readonly mayClose: RegExp;
  /** Offset of the first line that is not complete; what is before it has been looked at. */
  line: number;
  /** Offset up to which the text is in the DOM. */
  shown: number;
}

export class MarkdownStream {
  #text = "";
  /** The text with `\n` line ends only, so that offsets and lines agree with the parser's. */
  #source = "";
  /** A last character that means nothing alone: half of `\r\n` or of a surrogate pair. */
  #half = "";
  #frozenChars = 0;
  #frozenNodes = 0;
  /** Definitions of the frozen text; those of the open part may still change. */
  #references: References = {};
  #fence: OpenFence | null = null;
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
    this.#source += lineEnds(whole.slice(0, whole.length - this.#half.length));
    this.#isDirty = true;
    this.root.classList.add("tc-live");
    this.#schedule();
  }

  /** Shows everything, resolves late link definitions and colours the last block. Repeating it does nothing. */
  end(): void {
    if (this.#isEnded) return;
    this.#source += lineEnds(this.#half);
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
    if (this.#fence !== null) this.#growFence(this.#fence);
    // Freezing a fence leaves an open part, and an open part may end in the next fence.
    while (this.#fence === null && this.#renderOpen()) {
      if (this.#fence !== null) this.#growFence(this.#fence);
    }
    if (this.#isEnded) this.#finish();
    const now = performance.now();
    this.#notBefore = now + Math.min(4 * (now - started), MAX_WAIT_MS);
    this.options.onFlush?.();
  }

  #schedule(): void {
    if (this.#cancelFlush !== null) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let frame = 0;
    const flush = (): void => this.flush();
    // A hidden tab has no frames; what has gathered is shown the moment it is looked at again.
    const onVisible = (): void => {
      if (!document.hidden) this.flush();
    };
    document.addEventListener("visibilitychange", onVisible);
    this.#cancelFlush = () => {
      this.#cancelFlush = null;
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      document.removeEventListener("visibilitychange", onVisible);
    };
    const wait = this.#notBefore - performance.now();
    if (wait <= 0) frame = requestAnimationFrame(flush);
    else
      timer = setTimeout(() => {
        frame = requestAnimationFrame(flush);
      }, wait);
  }

  /** Parses and shows the open part, freezes what is safe. True when there may be more to do behind it. */
  #renderOpen(): boolean {
    const open = this.#source.slice(this.#frozenChars);
    const references = { ...this.#references };
    const blocks = parse(open, references);
    this.#hasDefinitions ||= Object.keys(references).length > 0;
    const lines = lineStarts(open);
    const frozen = this.#safeEnd(blocks, lines, open);
    const last = blocks[blocks.length - 1];
    const nodes = blocks.map((block) => build(block, this.#build));
    this.#patchFrom(this.#frozenNodes, nodes);

    if (last?.type === "fence" && frozen === blocks.length - 1 && hasBegun(last, lines, open)) {
      const start = lines[last.start] ?? 0;
      const lineEnd = (lines[last.start + 1] ?? open.length + 1) - 1;
      const opening = /^(?:`{3,}|~{3,})/.exec(open.slice(start, lineEnd));
      if (opening !== null) {
        this.#freeze(frozen, start, references);
        this.#openFence(opening[0], fenceLanguage(last.tokens[0]), this.#frozenChars + lineEnd + 1 - start);
        return true;
      }
    }
    const boundary = blocks[frozen];
    if (frozen > 0 && boundary !== undefined) this.#freeze(frozen, lines[boundary.start] ?? 0, references);
    const rest = this.#source.length - this.#frozenChars;
    if (rest <= MAX_OPEN_CHARS) return false;
    const cut = this.#source.lastIndexOf("\n", this.#frozenChars + MAX_OPEN_CHARS) + 1;
    const end = cut > this.#frozenChars ? cut : this.#frozenChars + MAX_OPEN_CHARS;
    const piece = parse(this.#source.slice(this.#frozenChars, end), { ...this.#references });
    this.#patchFrom(
      this.#frozenNodes,
      piece.map((block) => build(block, this.#build)),
    );
    this.#freeze(piece.length, end - this.#frozenChars, references);
    return true;
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
      if (!hasBegun(block, lines, open)) continue;
      const isText = block.type === "paragraph_open" || block.type === "heading_open";
      const above = open.slice(lines[block.start - 1], lines[block.start]);
      if (isText && before.end < block.start && above.trim() !== "") continue;
      return index;
    }
    return 0;
  }

  /** Freezes the first `count` open blocks, which are the first `chars` characters of the open part. */
  #freeze(count: number, chars: number, references: References): void {
    const text = this.#source.slice(this.#frozenChars, this.#frozenChars + chars);
    // `references` is of the whole open part; when it learnt something, ask what the frozen text alone defines.
    if (Object.keys(references).length > Object.keys(this.#references).length) parse(text, this.#references);
    const { childNodes } = this.root;
    for (let index = this.#frozenNodes; index < this.#frozenNodes + count; index++)
      this.#highlight(childNodes[index]);
    this.#frozenNodes += count;
    this.#frozenChars += chars;
  }

  #openFence(marker: string, language: string, content: number): void {
    const { block, code } = codeBlock(language);
    this.#patchFrom(this.#frozenNodes, [block]);
    const shown = this.root.childNodes[this.#frozenNodes] as HTMLElement;
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
    const source = this.#source;
    for (;;) {
      const newline = source.indexOf("\n", fence.line);
      const isComplete = newline >= 0 || this.#isEnded;
      const end = newline >= 0 ? newline : source.length;
      const line = source.slice(fence.line, end);
      if (isComplete && fence.closes.test(line)) {
        this.#writeFence(fence, fence.line);
        this.#fence = null;
        this.#freeze(1, Math.min(end + 1, source.length) - this.#frozenChars, {});
        return;
      }
      if (newline < 0) {
        // At the end spaces alone are no line, as for the parser.
        const isHeld = this.#isEnded ? line.trim() === "" : fence.mayClose.test(line);
        this.#writeFence(fence, isHeld ? fence.line : end);
        return;
      }
      fence.line = newline + 1;
    }
  }

  #writeFence(fence: OpenFence, end: number): void {
    if (end <= fence.shown) return;
    fence.writer.append(this.#source.slice(fence.shown, end).replaceAll("\0", "\ufffd"));
    fence.shown = end;
  }

  #finish(): void {
    // Only a definition has an effect on text before it.
    if (this.#hasDefinitions) {
      this.#patchFrom(
        0,
        parse(this.#source, {}).map((block) => build(block, this.#build)),
      );
    }
    this.#fence = null;
    for (const node of this.root.childNodes) this.#highlight(node);
  }

  #patchFrom(index: number, nodes: readonly Node[]): void {
    patchChildren(this.root, index, nodes);
  }

  #highlight(node: Node | undefined): void {
    if (this.options.highlight === false || !(node instanceof Element)) return;
    for (const code of node.querySelectorAll<HTMLElement>("pre > code[class^='language-']")) {
      if (!this.#highlights.has(code)) this.#highlights.set(code, highlightLater(code));
    }
  }
}

function lineEnds(text: string): string {
  return text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
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

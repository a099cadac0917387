/**
 * Formulas: `$a$`, `$$a$$`, `\(a\)` and `\[a\]`, as models write them. In the page they stand as they were written, and the
 * host typesets them where it can: JupyterLab and Notebook 7, by their MathJax. `frames/formulas.py` is the same in Python.
 */
import type { StateInline } from "markdown-it";
import type { Model } from "./link";

/**
 * A dollar opens a formula before anything but a space, and closes it behind anything but a space and not before a letter or
 * digit: two prices in a sentence, or two variables of a shell, are no formula. None holds another one, so that reading stays
 * linear; none is longer than a paragraph.
 */
const FORMULA =
  /\$\$[^$]*[^\s$][^$]*\$\$|\$(?![\s$]|\d[\d.,]*\s+[a-z]{2})[^$]*[^\s$\\]\$(?!\w)|\\\((?=\s*\\?[\w({|-])(?:(?!\\[()])[\s\S])+\\\)|\\\[(?=\s*\\?[\w({|-])(?:(?!\\[[\]])[\s\S])+\\\]/iy;
/** What makes links, loads, defines or shows something else than it is. Such a formula stays text. */
const NOT_MATH =
  /\\(?:href|url|require|class|style|cssid|data|csname|[gex]?def|let|(?:re)?newc|newe|unicode|mmltoken|toggle|t(?:ext|ool)tip|html)/i;

/** A rule of the parser: a formula becomes a token of its own. */
export function formula(state: StateInline, silent: boolean): boolean {
  FORMULA.lastIndex = state.pos;
  const content = FORMULA.exec(state.src)?.[0];
  if (content === undefined || state.pos + content.length > state.posMax || NOT_MATH.test(content))
    return false;
  if (!silent) state.push("math", "", 0).content = content;
  state.pos += content.length;
  return true;
}

interface Host {
  readonly rendermime?: { readonly latexTypesetter?: { typeset(node: HTMLElement): unknown } };
}

/** Typesets the formulas in a block of the page; undefined where the host cannot. */
export function typesetter(model: Model): ((block: Element) => void) | undefined {
  const mathjax = (model as { widget_manager?: Host }).widget_manager?.rendermime?.latexTypesetter;
  if (!mathjax) return undefined;
  const typeset = async (node: HTMLElement): Promise<void> => {
    node.className = "";
    try {
      await mathjax.typeset(node);
    } catch {
      return; // it stays as it was written
    }
    for (const link of node.querySelectorAll("a")) link.replaceWith(...link.childNodes);
  };
  return (block) => {
    for (const node of block.querySelectorAll<HTMLElement>(".tc-math")) void typeset(node);
  };
}

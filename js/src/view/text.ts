/** Blocks of prose: the answer, and what the model thought aloud. */
import { h, type Scope, suppress } from "../dom";
import { isEnded, isStreaming } from "../fold";
import { MarkdownStream } from "../markdown";
import { typesetter } from "../math";
import type { BlockView, StepView } from "../wire";
import type { Context } from "./context";
import { RING, SPARK } from "./icons";
import { Step } from "./step";
import { roughly } from "./words";

function isLive({ store }: Context, step: StepView, block: BlockView): boolean {
  const { blocks } = store.read(step);
  return isStreaming(step) && !isEnded(store.read(store.run)) && blocks.at(-1) === block;
}

/** Keeps `root` showing the block's text; growing text is appended, anything else begins anew. */
function stream(
  context: Context,
  step: StepView,
  block: BlockView,
  scope: Scope,
  root: HTMLElement,
  onFlush?: () => void,
): void {
  let markdown: MarkdownStream | null = null;
  let shown = "";
  let hasEnded = false;
  scope.add(() => markdown?.dispose());
  scope.effect(() => {
    const { text } = context.store.read(block);
    const isOver = !isLive(context, step, block);
    // Much happens to a step that does not concern its text, and a person may be selecting in it.
    if (hasEnded && text === shown) return;
    if (markdown === null || hasEnded || !text.startsWith(shown)) {
      markdown?.dispose();
      root.replaceChildren();
      shown = "";
      markdown = new MarkdownStream(root, {
        highlight: block.kind === "text",
        typeset: typesetter(context.link.model),
        ...(onFlush && { onFlush }),
      });
    }
    markdown.append(text.slice(shown.length));
    shown = text;
    hasEnded = isOver;
    if (isOver) markdown.end();
  });
}

/** Prose of the answer or between calls. */
export function textView(context: Context, step: StepView, block: BlockView, scope: Scope): HTMLElement {
  const root = h("div", { class: "tc-md" });
  stream(context, step, block, scope, root);
  return root;
}

const SCROLLER = { tabindex: "0", role: "group", "aria-label": "Thought" };

/** A thought: open and fading while it streams, then one line. */
export function thoughtView(context: Context, step: StepView, block: BlockView, scope: Scope): Step {
  const { store } = context;
  const view = new Step(scope, "span", () => {
    const live = scope.child();
    stream(context, step, block, live, prose, () => {
      if (view.body.classList.contains("tc-live")) view.body.scrollTop = view.body.scrollHeight;
    });
  });
  const prose = h("div");
  suppress(view.body);
  view.body.classList.add("tc-reasoning");
  view.body.append(prose);
  scope.effect(() => {
    const live = isLive(context, step, block);
    view.setIcon(live ? RING : SPARK, live ? "run" : "");
    view.name.replaceChildren(live ? h("span", { class: "tc-shimmer" }, "Thinking") : "Thought");
    view.body.classList.toggle("tc-live", live && !view.isTouched);
    view.suggest(live);
    // What scrolls needs the keyboard and a name; while it fades it does not scroll.
    for (const [name, value] of Object.entries(SCROLLER)) {
      if (live) view.body.removeAttribute(name);
      else view.body.setAttribute(name, value);
    }
  });
  scope.effect(() => {
    view.line.textContent = isLive(context, step, block) ? "" : firstLine(store.read(block).text);
  });
  scope.effect(() => {
    if (isLive(context, step, block)) context.clock.value;
    const seconds = store.thoughtFor(block);
    view.time.textContent = seconds === null ? "" : roughly(seconds);
  });
  return view;
}

function firstLine(text: string): string {
  const line = /\S.*/.exec(text)?.[0] ?? "";
  return line.replace(/^[#>\-*\s]+|\*\*|`/g, "").slice(0, 200);
}

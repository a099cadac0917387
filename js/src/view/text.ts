/** Blocks of prose: the answer, and what the model thought aloud. */
import { h, Scope } from "../dom";
import { MarkdownStream } from "../markdown";
import { isEnded, isStreaming } from "../store";
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
function stream(context: Context, step: StepView, block: BlockView, scope: Scope, root: HTMLElement, onFlush?: () => void): void {
  let markdown: MarkdownStream | null = null;
  let shown = "";
  scope.add(() => markdown?.dispose());
  scope.effect(() => {
    const { text } = context.store.read(block);
    if (markdown === null || !text.startsWith(shown)) {
      markdown?.dispose();
      root.replaceChildren();
      shown = "";
      markdown = new MarkdownStream(root, { highlight: block.kind === "text", ...(onFlush && { onFlush }) });
    }
    markdown.append(text.slice(shown.length));
    shown = text;
    if (isLive(context, step, block)) return;
    markdown.end();
    // A stream that has ended takes no more; should the text still change, a new one is made.
    shown = `${text}\0`;
  });
}

/** Prose of the answer or between calls. */
export function textView(context: Context, step: StepView, block: BlockView, scope: Scope): HTMLElement {
  const root = h("div", { class: "tc-md" });
  stream(context, step, block, scope, root);
  return root;
}

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
  view.body.classList.add("tc-reasoning");
  view.body.append(prose);
  scope.effect(() => {
    const live = isLive(context, step, block);
    view.setIcon(live ? RING : SPARK, live ? "run" : "");
    view.name.replaceChildren(live ? h("span", { class: "tc-shimmer" }, "Thinking") : "Thought");
    view.body.classList.toggle("tc-live", live && !view.isTouched);
    view.suggest(live);
    // A scroller needs the keyboard; while it fades it does not scroll.
    if (live) view.body.removeAttribute("tabindex");
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
  return line.replace(/^[#>\-*\s]+|[*_`]{1,3}/g, "").slice(0, 200);
}

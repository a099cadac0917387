/** The last line: model, time, tokens, cost, steps, Copy. */
import { copyButton, h, type Scope } from "../dom";
import { isEnded } from "../fold";
import { readable } from "../urls";
import type { RunView } from "../wire";
import type { Context } from "./context";
import { budget, cost, duration, stepsOf, tokens, totalCost } from "./words";

/** A turn as Markdown: the prompt as a quotation, then the answer as the model wrote it. */
function turnOf(run: RunView): string {
  return `${run.prompt.replace(/^/gm, "> ")}\n\n${answerOf(run)}\n`;
}

/** The answer as the model wrote it. */
export function answerOf(run: RunView): string {
  if (run.closing !== null) return run.closing;
  for (const step of [...run.steps].reverse()) {
    const text = step.blocks.map((block) => (block.kind === "text" ? block.text : "")).join("");
    if (text !== "") return text;
  }
  return "";
}

export function footView(context: Context, scope: Scope): HTMLElement {
  const { store } = context;
  const copy = copyButton(() => answerOf(store.run));
  const whole = copyButton(() => turnOf(store.run), "Copy turn");
  const foot = h("div", { class: "tc-foot" });
  scope.effect(() => {
    const run = store.read(store.run);
    foot.hidden = !isEnded(run);
    if (foot.hidden) return;
    for (const step of run.steps) store.read(step);
    const time = duration((run.ended_at ?? 0) - run.started_at);
    const took = run.status === "cancelled" ? `stopped after ${time}` : time;
    const words = [
      ...(run.is_imported ? ["held elsewhere"] : [readable(run.model), took]),
      ...tokens([...run.steps, ...run.summaries].map((one) => one.usage)),
      ...(run.steps.length > 0 ? [cost(totalCost(run)), stepsOf(run)] : []),
      ...budget(run),
    ];
    const items = words.filter((word) => word !== "").map((word) => h("span", { class: "tc-item" }, word));
    foot.replaceChildren(...items, h("span", { class: "tc-grow" }), whole, copy);
    copy.hidden = answerOf(run) === "";
    whole.hidden = copy.hidden;
  });
  return foot;
}

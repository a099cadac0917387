/** What was said and what happened between the steps: messages of the person, words to the model, notes. */
import { h, icon, reveal, type Scope } from "../dom";
import { visible } from "../urls";
import type { AddedView, NoteView } from "../wire";
import { outputView } from "./output";
import { Step } from "./step";

const DOT = ["M8 7.5a.5.5 0 1 0 0 1a.5.5 0 0 0 0-1z"];

const KINDS: Readonly<Record<NoteView["kind"], string>> = {
  retry: "Retry",
  hook: "Hook",
  notice: "For the next message",
  guard: "Guard",
  rule: "Remembered",
  output: "Output check",
  context: "Context",
};

/** A message of the person in the midst of the run. */
export function messageView(text: string, mark: string): HTMLElement {
  return h(
    "div",
    { class: "tc-said" },
    h("div", { class: "tc-label" }, `You, ${mark}`),
    h("p", null, reveal(text)),
  );
}

/** One quiet line on the rail. */
export function lineView(text: string): HTMLElement {
  const words = h("span", { class: "tc-what" }, reveal(text));
  return h(
    "li",
    { class: "tc-step" },
    h("div", { class: "tc-line" }, h("span", { class: "tc-icon" }, icon(DOT)), words),
  );
}

export function noteView({ kind, message }: NoteView): HTMLElement {
  return lineView(`${KINDS[kind] ?? kind}: ${message}`);
}

/** What a hook, a check or the runtime told the model: a line that opens. */
export function toldView({ by, text }: AddedView, scope: Scope): HTMLElement {
  const view = new Step(scope, "span", () =>
    view.body.append(outputView("What the model was told", text, "What the model was told")),
  );
  view.name.textContent = WHO[by] ?? "The model was told";
  view.line.textContent = visible(text.slice(0, 300));
  view.setIcon(DOT, "");
  return view.item;
}

const WHO: Readonly<Partial<Record<AddedView["by"], string>>> = {
  hook: "A hook told the model",
  output: "The output check told the model",
  limit: "At the limit",
};

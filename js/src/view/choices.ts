/** The answers to a question: options to choose from, a field for any other. */
import { type ReadonlySignal, signal } from "@preact/signals-core";
import { h, reveal, type Scope } from "../dom";
import type { AnswerRequest, RequestState } from "../wire";
import type { Context } from "./context";

export interface Choices {
  readonly element: HTMLElement;
  /** Null while there is no answer to send. */
  readonly value: ReadonlySignal<AnswerRequest["result"]>;
}

export function choicesView(context: Context, request: RequestState, titleId: string, scope: Scope): Choices {
  const { options, allows_text, allows_many } = request;
  const value = signal<AnswerRequest["result"]>(null);
  const isFree = options.length === 0;
  const type = allows_many ? "checkbox" : "radio";
  // Buttons of one name are one choice: the name is this view's own.
  const name = context.id(`choice-${request.request_id}`);
  const boxes = options.map(() => h("input", { type, name }));
  const rows: HTMLElement[] = options.map(({ label, description }, index) => {
    const words = h("span", null, reveal(label), description !== "" && h("small", null, reveal(description)));
    return h("label", { class: "tc-option" }, boxes[index], words);
  });
  const other = h("input", { type, name, "aria-label": "Another answer" });
  const field = h("textarea", {
    ...{ class: "tc-field", rows: isFree ? 3 : 1, "aria-label": isFree ? "Your answer" : "Another answer" },
    placeholder: isFree ? null : "Another answer",
  });
  if (allows_text) rows.push(isFree ? field : h("div", { class: "tc-option" }, other, field));
  const role = isFree || allows_many ? "group" : "radiogroup";
  const element = h("div", { class: "tc-options", role, "aria-labelledby": titleId }, ...rows);
  scope.listen(element, "input", ({ target }) => {
    const text = field.value.trim();
    if (target === field) other.checked = text !== "";
    const chosen = options.flatMap(({ label }, index) => (boxes[index]?.checked ? [label] : []));
    if (other.checked) chosen.push(text);
    const isWhole = chosen.length > 0 && !chosen.includes("");
    value.value = isWhole ? (allows_many ? chosen : (chosen[0] ?? null)) : null;
  });
  return { element, value };
}

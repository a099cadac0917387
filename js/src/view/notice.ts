/** What went wrong with the run as a whole, in a card (failed) or a sentence (a limit, a kernel that is gone). */
import { h, icon, reveal, type Scope } from "../dom";
import { isEnded } from "../fold";
import type { RunView } from "../wire";
import type { Context } from "./context";
import { WARNING } from "./icons";
import { plural } from "./words";

const KINDS: ReadonlyMap<string | null, string> = new Map([
  ["auth", "The key is missing, or the provider refused it"],
  ["not_found", "The provider does not know this model"],
  ["bad_request", "The provider refused the request"],
  ["context_length", "The conversation is too long for the model"],
  ["rate_limit", "The provider's rate limit is reached"],
  ["overloaded", "The model is overloaded"],
  ["connection", "The provider could not be reached"],
  ["timeout", "The model did not answer in time"],
  ["protocol", "The provider's answer broke off or made no sense"],
  ["filter", "The provider's filter stopped the answer"],
  ["empty_reply", "The model ended without an answer"],
  ["output", "The answer does not fit the type that was asked for"],
  ["hook", "A hook failed"],
]);

/** The title of the card of a failed run. */
export function failure(run: RunView): string {
  return KINDS.get(run.error_kind) ?? "The run failed";
}

export function noticeView(context: Context, scope: Scope): HTMLElement {
  const { store, link } = context;
  const place = h("div");
  scope.effect(() => {
    const run = store.read(store.run);
    if (!isEnded(run)) {
      const text = lost(link.state.value);
      place.replaceChildren(...(text === "" ? [] : [h("p", { class: "tc-note tc-dim" }, text)]));
      return;
    }
    const words = limit(run).map((text) => h("p", { class: "tc-note" }, reveal(text)));
    place.replaceChildren(...(run.status === "failed" ? [errorCard(run)] : words));
    if (run.status !== "completed" && link.isRetryable) place.append(again(link));
  });
  return place;
}

function again(link: Context["link"]): HTMLElement {
  const button = h("button", { type: "button", class: "tc-outline" }, "Try again");
  button.addEventListener("click", () => {
    button.setAttribute("aria-disabled", "true");
    link.retry();
  });
  return button;
}

function lost(state: string): string {
  if (state === "disconnected")
    return "The kernel was restarted while this run was open. What is here is what had arrived; %agent resume goes on with it.";
  if (state === "restored")
    return "This run was open when the notebook was left, and no kernel answers for it.";
  return "";
}

function errorCard(run: RunView): HTMLElement {
  const title = h("p", { class: "tc-title" }, failure(run));
  const words = h("div", null, title);
  if (run.error !== null && run.error !== "") words.append(h("p", { class: "tc-sub" }, reveal(run.error)));
  if (run.error_kind !== null && !KINDS.has(run.error_kind))
    title.append(": ", h("code", null, reveal(run.error_kind)));
  const kept = run.steps.filter((step) => step.error_kind === null && step.duration_s !== null).length;
  if (kept > 0)
    words.append(
      h("p", { class: "tc-sub" }, `${plural(kept, "finished step")} ${kept === 1 ? "is" : "are"} kept.`),
    );
  const head = h("div", { class: "tc-ask-head" }, h("span", { class: "tc-icon" }, icon(WARNING)), words);
  return h("div", { class: "tc-ask tc-bad tc-error" }, head);
}

/** Why the run is over although nothing failed. */
function limit(run: RunView): string[] {
  const message = run.error ?? "";
  switch (run.status) {
    case "max_steps":
      // Where a step policy decides there is no number.
      return run.max_steps > 0
        ? [`The run has used its ${plural(run.max_steps, "step")} without coming to an end.`]
        : [message];
    case "truncated":
      return ["The model reached its output limit; the answer breaks off."];
    case "budget":
      return [message || "The budget of this run is used up."];
    case "timeout":
      return [message || "The time limit of this run is over."];
    default:
      return [];
  }
}

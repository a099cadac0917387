/** The one card of all requests that are open. */
import { untracked } from "@preact/signals-core";
import { h, type Scope } from "../dom";
import { isEnded, openRequests } from "../fold";
import type { CallState } from "../wire";
import { RequestView } from "./ask";
import type { Context } from "./context";
import { focusIn, place } from "./place";
import { Steady } from "./steady";
import type { Work } from "./work";

export function asksView(context: Context, scope: Scope, work: Work | null): HTMLElement {
  const { store } = context;
  const card = h("div", { class: "tc-ask" });
  const views = new Map<string, { view: RequestView; scope: Scope }>();
  const count = h("span", { class: "tc-dim" });
  const decide = (text: string, decision: "approve" | "deny"): HTMLButtonElement => {
    const button = h("button", { type: "button", class: "tc-outline" }, text);
    scope.listen(button, "click", (event) => {
      // Each is decided as by its own button: by what stands there, for this call only, and not while one moves.
      if (steady.allows(event)) for (const { view } of views.values()) view.decide(decision);
    });
    return button;
  };
  const buttons = [decide("Approve all", "approve"), decide("Deny all", "deny")];
  const all = h("div", { class: "tc-acts tc-all" }, count, h("span", { class: "tc-grow" }), ...buttons);
  const steady = new Steady(scope, all);
  scope.effect(() => {
    const { state, sent } = context.link;
    const isSent = [...views.keys()].every((id) => sent.value.has(id));
    const isOff = !steady.ready.value || state.value !== "live" || isSent;
    for (const button of buttons) button.setAttribute("aria-disabled", String(isOff));
  });
  const show = (open: readonly CallState[]): void => {
    const wanted = new Set(open.map((call) => call.request?.request_id));
    let focused: string | null = null;
    for (const [requestId, { view, scope: own }] of views) {
      if (wanted.has(requestId)) continue;
      if (focusIn(view.element)) focused = view.call.call_id;
      own.dispose();
      view.element.remove();
      views.delete(requestId);
    }
    const nodes = open.flatMap((call) => {
      if (call.request === null) return [];
      const { request_id } = call.request;
      let known = views.get(request_id);
      if (known === undefined) {
        const own = scope.child();
        known = { view: new RequestView(context, call, call.request, own), scope: own };
        views.set(request_id, known);
        steady.reset();
      }
      return [known.view.element];
    });
    const approvals = [...views.values()].filter(({ view }) => view.request.kind === "approval");
    count.textContent = `${approvals.length} calls wait`;
    place(card, approvals.length > 1 ? [...nodes, all] : nodes);
    card.hidden = nodes.length === 0;
    card.classList.toggle(
      "tc-info",
      open.every((call) => call.request?.kind === "question"),
    );
    // Only where the focus was lost with a card, and never on to a button.
    if (focused !== null && nodes[0] !== undefined) nodes[0].focus({ preventScroll: true });
    else if (focused !== null) work?.focusCall(focused);
  };
  scope.effect(() => {
    const run = store.read(store.run);
    const step = run.steps.at(-1);
    for (const call of step === undefined ? [] : store.read(step).calls) store.read(call);
    const open = isEnded(run) ? [] : openRequests(run);
    untracked(() => show(open));
  });
  return card;
}

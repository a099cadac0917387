/**
 * One view of a run.
 *
 *   head      while the run is open
 *   work      calls and thoughts as lines on a rail, text between them; folds into one line when the run is done
 *   answer    the text of the last step, as text of the document
 *   asks      the card of what waits for the person
 *   notice    what went wrong
 *   foot      when the run is over
 *
 * Views of blocks are made once and kept: they move from the answer into the work when a call follows the text.
 */
import { signal } from "@preact/signals-core";
import { cellInserter } from "../cells";
import { h, type Scope } from "../dom";
import { openRequests } from "../fold";
import type { Link } from "../link";
import { watchTheme } from "../theme";
import { visible } from "../urls";
import { announcements } from "./announce";
import { asksView } from "./asks";
import type { Context } from "./context";
import { footView } from "./foot";
import { activity, headView, isOpen } from "./head";
import { noticeView } from "./notice";
import { Work } from "./work";

const TICK_MS = 200;
let views = 0;

/** Shows the run of `link` in `el` until the scope ends. */
export function mountRun(el: HTMLElement, link: Link, scope: Scope): void {
  const context = contextOf(link, scope);
  const work = new Work(context, scope);
  const root = frame(el, context, scope, [
    ...[headView(context, scope), work.fold, work.answer, asksView(context, scope, work)],
    ...[noticeView(context, scope), footView(context, scope), announcements(context, scope)],
  ]);
  root.setAttribute("role", "article");
  const insert = cellInserter(link.model, el);
  root.classList.toggle("tc-no-cells", insert === null);
  scope.listen(root, "tc-insert", (event) => insert?.(String((event as CustomEvent<unknown>).detail)));
}

/** A run inside a call: what waits for the person stands on the card of the run around it. */
function mountInner(el: HTMLElement, link: Link, scope: Scope): void {
  const context = contextOf(link, scope);
  const work = new Work(context, scope);
  const nodes = [headView(context, scope), work.fold, work.answer, noticeView(context, scope)];
  frame(el, context, scope, [...nodes, footView(context, scope)]).setAttribute("role", "group");
}

/** Only what waits for the person. */
export function mountAsks(el: HTMLElement, link: Link, scope: Scope): void {
  const context = contextOf(link, scope);
  frame(el, context, scope, [asksView(context, scope, null)]).setAttribute("role", "group");
}

function contextOf(link: Link, scope: Scope): Context {
  const { store } = link;
  const number = ++views;
  const clock = signal(store.now());
  const ids = new Map<string, string>();
  const id = (name: string): string => {
    // Ids of requests come from outside; as part of an id they are counted instead.
    const known = ids.get(name) ?? `tc-${number}-${ids.size}`;
    ids.set(name, known);
    return known;
  };
  const context = { link, store, clock, id, mount: mountInner };
  scope.effect(() => {
    if (!isOpen(context)) return;
    clock.value = store.now();
    const timer = setInterval(() => {
      clock.value = store.now();
    }, TICK_MS);
    return () => clearInterval(timer);
  });
  return context;
}

function frame(el: HTMLElement, context: Context, scope: Scope, nodes: readonly Node[]): HTMLElement {
  const { store } = context;
  const root = h("div", { class: "tc" }, ...nodes);
  scope.effect(() => {
    const run = store.read(store.run);
    root.dataset.state = activity(context).tone;
    const isAsked = openRequests(run).every((call) => call.request?.kind === "question");
    root.dataset.tone = isAsked ? "info" : "";
    root.setAttribute("aria-label", visible(run.prompt).slice(0, 200) || "Agent run");
    root.setAttribute("aria-busy", String(isOpen(context) && run.status === "running"));
    // Before the first event there is nothing to show, and a head without words would only flicker.
    root.hidden = run.run_id === "" && context.link.state.value !== "live";
  });
  el.append(root);
  scope.add(watchTheme(root));
  scope.add(() => root.remove());
  return root;
}

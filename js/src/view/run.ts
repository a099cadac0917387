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
import { signal, untracked } from "@preact/signals-core";
import { h, icon, Scope } from "../dom";
import type { Link } from "../link";
import { isEnded, openRequests } from "../store";
import { watchTheme } from "../theme";
import { visible } from "../urls";
import type { BlockView, CallState, StepView } from "../wire";
import { announcements } from "./announce";
import { RequestView } from "./ask";
import { callView } from "./call";
import type { Context } from "./context";
import { footView } from "./foot";
import { activity, headView, isOpen } from "./head";
import { CHECK, CHEVRON } from "./icons";
import { noticeView } from "./notice";
import type { Step } from "./step";
import { textView, thoughtView } from "./text";
import { summary } from "./words";

const TICK_MS = 200;
let views = 0;

/** Shows the run of `link` in `el` until the scope ends. */
export function mountRun(el: HTMLElement, link: Link, scope: Scope): void {
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
  const context: Context = { link, store, clock, id };

  const root = h("div", { class: "tc", role: "article" });
  const work = new Work(context, scope);
  root.append(
    ...[headView(context, scope), work.fold, work.answer, asksView(context, scope, work)],
    ...[noticeView(context, scope), footView(context, scope), announcements(context, scope)],
  );
  scope.effect(() => {
    const run = store.read(store.run);
    root.dataset.state = activity(context).tone;
    root.setAttribute("aria-label", visible(run.prompt).slice(0, 200) || "Agent run");
    root.setAttribute("aria-busy", String(isOpen(context) && run.status === "running"));
    // Before the first event there is nothing to show, and a head without words would only flicker.
    root.hidden = run.run_id === "";
  });
  scope.effect(() => {
    if (!isOpen(context)) return;
    clock.value = store.now();
    const timer = setInterval(() => {
      clock.value = store.now();
    }, TICK_MS);
    return () => clearInterval(timer);
  });
  el.append(root);
  scope.add(watchTheme(root));
  scope.add(() => root.remove());
}

/** The blocks of all steps, in their places. */
class Work {
  readonly fold: HTMLDetailsElement;
  readonly answer = h("div");
  readonly #flow = h("div");
  readonly #summary: HTMLElement;
  readonly #label = h("span");
  readonly #texts = new Map<BlockView, { node: HTMLElement; scope: Scope }>();
  readonly #items = new Map<BlockView, { step: Step; scope: Scope; callId: string }>();
  #hasEnded: boolean | null = null;

  constructor(
    readonly context: Context,
    readonly scope: Scope,
  ) {
    const done = h("span", { class: "tc-icon tc-good" }, icon(CHECK));
    this.#summary = h("summary", null, done, this.#label, icon(CHEVRON, "tc-chevron"));
    this.fold = h("details", { class: "tc-fold", open: true }, this.#summary, this.#flow);
    scope.effect(() => {
      const { store } = context;
      const run = store.read(store.run);
      for (const step of run.steps) store.read(step);
      untracked(() => this.#layOut());
    });
  }

  /** Puts the focus on the line of a call: its card is gone, and the focus with it. */
  focusCall(callId: string): void {
    for (const { step, callId: each } of this.#items.values()) {
      if (each === callId) step.summary.focus({ preventScroll: true });
    }
  }

  #layOut(): void {
    const { store } = this.context;
    const { steps } = store.run;
    const flow: Node[] = [];
    const answer: Node[] = [];
    const alive = new Set<BlockView>();
    let rail: Node[] | null = null;
    const endRail = (): void => {
      if (rail !== null) flow.push(this.#list(rail));
      rail = null;
    };
    this.#lists = 0;
    for (const step of steps) {
      const lastCall = lastIndexOfCall(step);
      const isLastStep = step === steps.at(-1);
      step.blocks.forEach((block, index) => {
        // Blank text between calls is the model clearing its throat.
        if (block.kind === "text" && block.text.trim() === "" && index < step.blocks.length - 1) return;
        alive.add(block);
        if (block.kind !== "text") {
          rail ??= [];
          rail.push(this.#item(step, block));
        } else if (isLastStep && index > lastCall) answer.push(this.#text(step, block));
        else {
          endRail();
          flow.push(this.#text(step, block));
        }
      });
    }
    endRail();
    place(this.#flow, flow);
    place(this.answer, answer);
    for (const [block, { scope, node }] of this.#texts) if (!alive.has(block)) this.#drop(this.#texts, block, scope, node);
    for (const [block, { scope, step }] of this.#items)
      if (!alive.has(block)) this.#drop(this.#items, block, scope, step.item);
    this.#foldUp(flow.length > 0);
  }

  readonly #rails: HTMLUListElement[] = [];
  #lists = 0;

  /** The lists are kept as well: a line that is taken out and put back loses the focus. */
  #list(items: readonly Node[]): HTMLUListElement {
    const list = this.#rails[this.#lists] ?? h("ul", { class: "tc-steps" });
    this.#rails[this.#lists] = list;
    this.#lists += 1;
    place(list, items);
    return list;
  }

  #item(step: StepView, block: BlockView): Node {
    const known = this.#items.get(block);
    if (known !== undefined) return known.step.item;
    const scope = this.scope.child();
    const call = step.calls.find((each) => each.call_id === block.call_id);
    const view =
      block.kind === "call" && call !== undefined
        ? callView(this.context, call, scope)
        : thoughtView(this.context, step, block, scope);
    this.#items.set(block, { step: view, scope, callId: block.call_id });
    return view.item;
  }

  #text(step: StepView, block: BlockView): Node {
    const known = this.#texts.get(block);
    if (known !== undefined) return known.node;
    const scope = this.scope.child();
    const node = textView(this.context, step, block, scope);
    this.#texts.set(block, { node, scope });
    return node;
  }

  #drop<V>(map: Map<BlockView, V>, block: BlockView, scope: Scope, node: HTMLElement): void {
    scope.dispose();
    node.remove();
    map.delete(block);
  }

  /** While the run is open the fold has no line of its own. When it is done it closes, unless someone looks inside. */
  #foldUp(hasWork: boolean): void {
    const { store } = this.context;
    const isOver = isEnded(store.run);
    this.fold.hidden = !hasWork;
    this.#summary.hidden = !isOver;
    this.#label.textContent = isOver ? summary(store.run, store) : "";
    if (this.#hasEnded === isOver) return;
    this.#hasEnded = isOver;
    const focused = focusIn(this.fold);
    const isBeingRead = focused || [...this.#items.values()].some(({ step }) => step.isTouched && step.isOpen);
    this.fold.open = !(isOver && store.run.status === "completed" && this.answer.hasChildNodes() && !isBeingRead);
  }
}

function asksView(context: Context, scope: Scope, work: Work): HTMLElement {
  const { store } = context;
  const card = h("div", { class: "tc-ask" });
  const views = new Map<string, { view: RequestView; scope: Scope }>();
  scope.effect(() => {
    const run = store.read(store.run);
    const step = run.steps.at(-1);
    for (const call of step === undefined ? [] : store.read(step).calls) store.read(call);
    const open = isEnded(run) ? [] : openRequests(run);
    untracked(() => show(open));
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
      }
      return [known.view.element];
    });
    place(card, nodes);
    card.hidden = nodes.length === 0;
    // Only where the focus was lost with a card, and never on to a button.
    if (focused !== null && nodes[0] !== undefined) nodes[0].focus({ preventScroll: true });
    else if (focused !== null) work.focusCall(focused);
  };
  return card;
}

function focusIn(element: HTMLElement): boolean {
  const root = element.getRootNode();
  const active = root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
  return active !== null && element.contains(active);
}

/** Makes the children of `parent` these, moving as few as possible: what is moved loses scroll and focus. */
function place(parent: HTMLElement, nodes: readonly Node[]): void {
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  let next: ChildNode | null = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

function lastIndexOfCall(step: StepView): number {
  return step.blocks.reduce((last, block, index) => (block.kind === "call" ? index : last), -1);
}

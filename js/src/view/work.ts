/** The blocks of all steps, each in its place. */
import { untracked } from "@preact/signals-core";
import { h, icon, reveal, type Scope } from "../dom";
import { isEnded } from "../fold";
import { readable } from "../urls";
import type { BlockView, StepView } from "../wire";
import { callView } from "./call";
import type { Context } from "./context";
import { imagesView } from "./display";
import { CHECK, CHEVRON } from "./icons";
import { focusIn, place } from "./place";
import { lineView, messageView, noteView, toldView } from "./said";
import type { Step } from "./step";
import { textView, thoughtView } from "./text";
import { summary } from "./words";

export class Work {
  readonly fold: HTMLDetailsElement;
  readonly answer = h("div");
  readonly #flow = h("div");
  readonly #summary: HTMLElement;
  readonly #label = h("span");
  readonly #texts = new Map<BlockView, { node: HTMLElement; scope: Scope }>();
  readonly #items = new Map<BlockView, { step: Step; scope: Scope; callId: string }>();
  readonly #once = new Map<string, Node>();
  #hasAnswer = false;
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
    const { run } = this.context.store;
    const { steps, notes, run_id } = run;
    const flow: Node[] = [];
    const answer: Node[] = [];
    const alive = new Set<BlockView>();
    let rail: Node[] | null = null;
    const endRail = (): void => {
      if (rail !== null) flow.push(this.#list(rail));
      rail = null;
    };
    this.#lists = 0;
    /** What never changes once it is there is known by its place. */
    const once = (key: string, make: () => Node): Node => {
      const node = this.#once.get(`${run_id} ${key}`) ?? make();
      this.#once.set(`${run_id} ${key}`, node);
      return node;
    };
    const onRail = (key: string, make: () => Node): void => {
      rail ??= [];
      rail.push(once(key, make));
    };
    const note = (step: number, isBefore: boolean): void =>
      notes.forEach((each, at) => {
        // A model call is tried again before it says anything.
        const comesFirst = each.kind === "retry" && each.call_id === null;
        if (each.step === step && comesFirst === isBefore) onRail(`note ${at}`, () => noteView(each));
      });
    note(0, false);
    let model = run.model;
    for (const step of steps) {
      note(step.step, true);
      if (run.summaries.some((each) => each.step === step.step))
        onRail(`summary ${step.step}`, () => lineView("Earlier messages were summarised to make room"));
      if (step.model !== model) {
        const tier = step.tier === null ? "" : ` (${readable(step.tier)})`;
        const text = `Model: ${readable(step.model)}${tier}`;
        onRail(`model ${step.step} ${text}`, () => lineView(text));
      }
      model = step.model;
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
      if (step.images.length > 0) {
        const made = once(`images ${step.step} ${step.images.length}`, () => imagesView(step.images));
        if (isLastStep && lastCall < 0) answer.push(made);
        else {
          endRail();
          flow.push(made);
        }
      }
      note(step.step, false);
      step.after.forEach((added, at) => {
        const key = `after ${step.step} ${at}`;
        if (added.by === "steering") {
          endRail();
          flow.push(once(key, () => messageView(added.text, "while it was running")));
        } else if (added.by === "restart") onRail(key, () => lineView("The program was restarted"));
        else onRail(key, () => toldView(added, this.scope));
      });
    }
    endRail();
    const { closing } = run;
    if (closing !== null)
      answer.push(once("closing", () => h("p", { class: "tc-closing" }, reveal(closing))));
    this.#hasAnswer = answer.length > 0;
    const mark = isEnded(run) ? "not read any more" : "not read yet";
    for (const { input_id, text } of run.queued)
      answer.push(once(`queued ${mark} ${input_id}`, () => messageView(text, mark)));
    place(this.#flow, flow);
    place(this.answer, answer);
    for (const [block, { scope, node }] of this.#texts)
      if (!alive.has(block)) this.#drop(this.#texts, block, scope, node);
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
    // What ended in another way has to be read line by line.
    const isDone = store.run.status === "completed" && this.#hasAnswer;
    this.#summary.hidden = !isDone;
    this.#label.textContent = isDone ? summary(store.run, store) : "";
    if (this.#hasEnded === isOver) return;
    this.#hasEnded = isOver;
    const focused = focusIn(this.fold);
    const isBeingRead =
      focused || [...this.#items.values()].some(({ step }) => step.isTouched && step.isOpen);
    this.fold.open = !isDone || isBeingRead;
  }
}

function lastIndexOfCall(step: StepView): number {
  return step.blocks.reduce((last, block, index) => (block.kind === "call" ? index : last), -1);
}

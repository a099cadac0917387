/** The head of an open run: what it does, who works, how long, Stop. */
import { h, icon, type Scope } from "../dom";
import { isEnded, isStreaming, isWarmingUp, retriesAt } from "../fold";
import { readable } from "../urls";
import type { RunView } from "../wire";
import type { Context } from "./context";
import { STOP } from "./icons";
import { budget, duration, ending, roughly, type Tone, usedUp } from "./words";

/** What the run does at the moment, in a word, and the tone of its dot. */
export function activity({ store, link, clock }: Context): { who: string; tone: Tone } {
  const run = store.read(store.run);
  const state = link.state.value;
  if (isEnded(run)) return ending(run);
  if (state === "disconnected") return { who: "The kernel was restarted", tone: "stopped" };
  if (state === "restored") return { who: "No kernel answers", tone: "stopped" };
  if (run.status !== "running") return ending(run);
  if (run.run_id === "") return { who: "Waiting for its turn", tone: "stopped" };
  const wait = retriesAt(run) - store.now();
  if (wait > 0) {
    clock.value;
    return { who: `Trying again in ${roughly(wait)}`, tone: "waiting" };
  }
  return { who: doing(run, store.read.bind(store)), tone: "running" };
}

function doing(run: RunView, read: Context["store"]["read"]): string {
  const step = run.steps.at(-1);
  if (step === undefined) return "Working";
  const kind = read(step).blocks.at(-1)?.kind;
  if (!isStreaming(step)) return "Working";
  // Thoughts that can be read have a line of their own that says so.
  if (kind === undefined) return isWarmingUp(step) ? "Warming up" : "Thinking";
  return kind === "text" ? "Writing" : "Working";
}

export function isOpen({ store, link }: Context): boolean {
  const state = link.state.value;
  return !isEnded(store.read(store.run)) && state !== "disconnected" && state !== "restored";
}

export function headView(context: Context, scope: Scope): HTMLElement {
  const { store, link, clock } = context;
  const who = h("span", { class: "tc-who" });
  const model = h("span", { class: "tc-model" });
  const time = h("span", { class: "tc-time" });
  const spent = h("span", { class: "tc-time tc-spent" });
  const fill = h("span");
  // The words beside it say the same to those who do not see it.
  const bar = h("span", { class: "tc-used", "aria-hidden": "true" }, fill);
  const label = h("span", null, "Stop");
  const stop = h("button", { type: "button", class: "tc-outline" }, icon(STOP, "tc-solid"), label);
  const head = h(
    "div",
    { class: "tc-head" },
    ...[
      h("span", { class: "tc-dot", "aria-hidden": "true" }),
      who,
      model,
      h("span", { class: "tc-grow" }),
      bar,
      spent,
      time,
      stop,
    ],
  );
  scope.text(who, () => activity(context).who);
  scope.text(model, () => readable(store.read(store.run).model));
  scope.text(spent, () => {
    const run = store.read(store.run);
    for (const step of run.steps) store.read(step);
    return budget(run).join(", ");
  });
  scope.effect(() => {
    const run = store.read(store.run);
    for (const step of run.steps) store.read(step);
    const share = usedUp(run);
    bar.hidden = share === null;
    bar.classList.toggle("tc-wait", (share ?? 0) >= 0.8);
    fill.style.inlineSize = `${Math.round(100 * Math.min(1, share ?? 0))}%`;
  });
  scope.text(time, () => {
    const run = store.read(store.run);
    if (run.started_at === 0 || run.is_imported) return "";
    if (isEnded(run)) return duration((run.ended_at ?? 0) - run.started_at);
    // Of a run that nobody follows any more we do not know how long it took.
    return isOpen(context) ? duration(clock.value - run.started_at) : "";
  });
  scope.effect(() => {
    stop.hidden = !isOpen(context) || link.isForReading;
    const isReady = link.state.value === "live" && !link.isStopping.value;
    stop.setAttribute("aria-disabled", String(!isReady));
    label.textContent = link.isStopping.value ? "Stopping…" : "Stop";
  });
  scope.effect(() => {
    head.hidden = store.read(store.run).status === "completed";
  });
  scope.listen(stop, "click", () => link.stop());
  return head;
}

/**
 * For those who listen: a status line fed when the run changes, at most every two seconds, and an alert for what needs
 * the person. The answer itself is no live region; it would be read aloud in pieces.
 */
import { h, type Scope } from "../dom";
import { isEnded, openRequests } from "../fold";
import { visible } from "../urls";
import type { Context } from "./context";
import { answerOf } from "./foot";
import { activity } from "./head";
import { failure } from "./notice";
import { plural } from "./words";

const EVERY_MS = 2000;

export function announcements(context: Context, scope: Scope): HTMLElement {
  const status = h("span", { role: "status" });
  const alert = h("span", { role: "alert" });
  speakStatus(context, scope, status);
  speakAlerts(context, scope, alert);
  return h("div", { class: "tc-hidden" }, status, alert);
}

function speakStatus(context: Context, scope: Scope, status: HTMLElement): void {
  let next = "";
  let spokenAt = Number.NEGATIVE_INFINITY;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const speak = (): void => {
    timer = undefined;
    spokenAt = performance.now();
    if (status.textContent !== next) status.textContent = next;
  };
  // A view of a run that is over has nothing to report.
  let isFirst = true;
  scope.effect(() => {
    next = words(context);
    if (isFirst) {
      isFirst = false;
      return;
    }
    timer ??= setTimeout(speak, Math.max(0, spokenAt + EVERY_MS - performance.now()));
  });
  scope.add(() => clearTimeout(timer));
}

function words(context: Context): string {
  const { store } = context;
  const run = store.read(store.run);
  if (run.status === "completed") {
    const answer = answerOf(run).match(/\S+/g)?.length ?? 0;
    return `Answer ready, ${plural(answer, "word")}`;
  }
  for (const call of run.steps.at(-1)?.calls ?? []) {
    if (!isEnded(run) && store.read(call).status === "running") return `Running ${visible(call.name)}`;
  }
  return activity(context).who;
}

function speakAlerts(context: Context, scope: Scope, alert: HTMLElement): void {
  const { store, link } = context;
  const said = new Set<string>();
  const say = (key: string, text: string): void => {
    if (said.has(key)) return;
    said.add(key);
    alert.textContent = text;
  };
  let isFirst = true;
  scope.effect(() => {
    const run = store.read(store.run);
    const step = run.steps.at(-1);
    for (const call of step === undefined ? [] : store.read(step).calls) store.read(call);
    const open = openRequests(run);
    const asks = open.flatMap(({ name, request }) => (request === null ? [] : [{ ...request, tool: name }]));
    const named = (title: string, of: string): string[] => {
      const names = asks.filter(({ kind }) => kind === of).map((each) => visible(each.name || each.tool));
      return names.length > 0 ? [`${title}: ${names.join(", ")}`] : [];
    };
    const questions = asks.filter(({ kind }) => kind === "question").map((each) => visible(each.question));
    const text = [
      ...named("Approval needed", "approval"),
      ...named("In doubt", "in_doubt"),
      ...questions.map((question) => `Question: ${question}`),
    ];
    if (asks.length > 0) say(asks.map((each) => each.request_id).join(), text.join(". "));
    // A failure that is found, not met, is no alarm.
    if (run.status === "failed" && !isFirst) say("failed", `${failure(run)}. ${run.error ?? ""}`);
    isFirst = false;
  });
  scope.effect(() => {
    for (const [id, problem] of link.problems.value)
      say(`${id} ${problem}`, `Answer not taken: ${visible(problem)}`);
  });
}

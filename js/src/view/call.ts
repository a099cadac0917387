/** One call: a line on the rail that opens to its arguments and output. */
import { h, reveal, type Scope } from "../dom";
import { isEnded, isOpenCall } from "../fold";
import type { Inner } from "../link";
import { visible } from "../urls";
import type { CallState } from "../wire";
import { argumentsLine, argumentsView, streamingLine, streamingView } from "./args";
import type { Context } from "./context";
import { displayView, filesView } from "./display";
import { BAN, CHECK, CLOCK, CROSS, RING, SHIELD, WARNING } from "./icons";
import { outputView } from "./output";
import { type IconTone, Step } from "./step";
import { answered, answerText, duration, plural, refusal } from "./words";

/** Arguments longer than this are worth watching while they stream. */
const LONG_ARGUMENTS = 160;

interface Look {
  readonly icon: readonly string[];
  readonly tone: IconTone;
  readonly tag?: string;
  readonly spoken?: string;
}

const RUNNING: Look = { icon: RING, tone: "run", spoken: "running" };
const LOOKS: Readonly<Record<CallState["status"], Look>> = {
  streaming: { icon: RING, tone: "run", spoken: "being written" },
  proposed: { icon: CLOCK, tone: "", spoken: "not started" },
  waiting: { icon: SHIELD, tone: "wait", tag: "Needs approval" },
  allowed: { icon: CLOCK, tone: "", spoken: "not started" },
  running: RUNNING,
  in_doubt: { icon: WARNING, tone: "wait", tag: "In doubt" },
  ok: { icon: CHECK, tone: "good", spoken: "done" },
  error: { icon: CROSS, tone: "bad", tag: "Failed" },
  denied: { icon: BAN, tone: "", tag: "Denied" },
  invalid: { icon: CROSS, tone: "bad", tag: "Invalid" },
  cancelled: { icon: BAN, tone: "", tag: "Cancelled" },
  skipped: { icon: BAN, tone: "", tag: "Skipped" },
  timeout: { icon: CROSS, tone: "bad", tag: "Timed out" },
};

export function callView(context: Context, call: CallState, scope: Scope): Step {
  const { store, clock } = context;
  const view = new Step(scope, "code", () => scope.effect(() => fill(view.body, context, store.read(call))));
  view.line.classList.add("tc-mono");
  scope.effect(() => {
    const { name, status } = store.read(call);
    // A call that the end of the run has cut off is not running any more.
    const isCut = isEnded(store.read(store.run)) && isOpenCall(call);
    const look = isCut ? LOOKS.cancelled : LOOKS[status];
    view.name.replaceChildren(reveal(name || "…"));
    view.setIcon(look.icon, look.tone);
    // A question, or a call of a sub-agent's, is asked while the call itself goes on.
    const isAsking = status === "waiting" && call.started_at !== null && !isCut;
    const tag = isAsking
      ? "Waiting for you"
      : (look.tag ?? (call.proposed_arguments !== null ? "Edited" : ""));
    view.tag.textContent = tag;
    view.tag.className = look.tone === "bad" || look.tone === "wait" ? `tc-tag tc-${look.tone}` : "tc-tag";
    view.spoken.textContent = look.spoken === undefined ? "" : `, ${look.spoken}`;
    view.suggest(status === "streaming" && !isCut && call.arguments_text.length > LONG_ARGUMENTS);
    // It stands on the approval card instead; who only reads has none.
    const isOnCard =
      !context.link.isForReading && (call.started_at === null || call.request?.kind === "in_doubt");
    view.item.hidden = status === "waiting" && isOnCard;
  });
  scope.effect(() => {
    const { status, progress } = store.read(call);
    view.line.classList.toggle("tc-italic", status === "running" && progress !== "");
    view.line.textContent =
      status === "running" && progress !== "" ? visible(progress.slice(-300)) : line(call);
  });
  scope.effect(() => {
    const { status, started_at, duration_s } = store.read(call);
    const isRunning = status === "running" && started_at !== null && !isEnded(store.read(store.run));
    const seconds = isRunning ? clock.value - (started_at ?? 0) : duration_s;
    // Not a word about the time of what never ran, nor of what has only just begun.
    const isWorth = seconds !== null && (isRunning ? seconds >= 1 : started_at !== null);
    view.time.textContent = isWorth ? duration(seconds) : "";
  });
  innerRuns(context, call, view, scope);
  return view;
}

/** Under the line of a call: the runs that were started inside it, a line each. */
function innerRuns(context: Context, call: CallState, view: Step, scope: Scope): void {
  const list = h("ul", { class: "tc-steps tc-inner" });
  const shown = new Set<Inner>();
  scope.effect(() => {
    const { inner } = context.link;
    for (const each of inner.value.values()) {
      if (shown.has(each) || each.told.peek().call_id !== call.call_id) continue;
      shown.add(each);
      list.append(innerView(context, each, scope).item);
      view.item.append(list);
    }
  });
}

function innerView(context: Context, inner: Inner, scope: Scope): Step {
  const view = new Step(scope, "span", () => {
    inner.open();
    context.mount(view.body, inner.link, scope);
  });
  scope.effect(() => {
    const { agent, prompt, status, steps } = inner.told.value;
    const look = RUNS[status] ?? LOOKS.cancelled;
    view.setIcon(look.icon, look.tone);
    view.name.replaceChildren(reveal(agent || "Agent"));
    view.line.textContent = visible(prompt);
    view.tag.textContent = look.tag ?? "";
    view.tag.className = `tc-tag tc-${look.tone}`;
    view.spoken.textContent = look.spoken === undefined ? "" : `, ${look.spoken}`;
    view.time.textContent = steps === 0 ? "" : plural(steps, "step");
  });
  return view;
}

const RUNS: Readonly<Partial<Record<string, Look>>> = {
  running: RUNNING,
  waiting: { icon: SHIELD, tone: "wait", tag: "Waiting for you" },
  completed: { icon: CHECK, tone: "good", spoken: "done" },
  failed: { icon: CROSS, tone: "bad", tag: "Failed" },
};

function line(call: CallState): string {
  return call.arguments === null ? streamingLine(call.arguments_text) : argumentsLine(call.arguments);
}

function section(title: string, content: Node): HTMLElement {
  return h("div", null, h("div", { class: "tc-label" }, title), content);
}

function fill(body: HTMLElement, context: Context, call: CallState): void {
  const parts: Node[] = [];
  const why = refusal(call);
  if (why !== null) {
    // A person's words are quoted; a rule's or a parser's are no speech.
    const isSaid = call.status === "denied" && call.request?.by === "person";
    const reason = why.reason === "" ? "." : isSaid ? h("q", null, reveal(why.reason)) : reveal(why.reason);
    parts.push(h("p", { class: "tc-note" }, reveal(why.text), why.reason !== "" && ": ", reason));
  }
  if (call.arguments !== null) {
    const by = call.request?.answer === "edit" ? "you edited" : "a hook changed";
    const isEdited = call.proposed_arguments !== null;
    parts.push(section(isEdited ? `Arguments, as ${by} them` : "Arguments", argumentsView(call.arguments)));
    if (call.proposed_arguments !== null)
      parts.push(section("What the model had asked for", argumentsView(call.proposed_arguments)));
  } else if (call.arguments_text !== "") {
    const isLive = call.status === "streaming" && !isEnded(context.store.read(context.store.run));
    const raw = h("pre", {
      class: "tc-out",
      tabindex: 0,
      role: "group",
      "aria-label": `Arguments of ${visible(call.name)}`,
    });
    raw.append(reveal(call.arguments_text));
    parts.push(section("Arguments", isLive ? streamingView(call.arguments_text) : raw));
  }
  parts.push(...asked(call));
  if (call.status === "running" && call.progress !== "")
    parts.push(outputView("Progress", call.progress, `Progress of ${visible(call.name)}`));
  if (call.status === "running") parts.push(...displayView(call.progress_data, call.name));
  if (call.content !== null && call.content !== "" && why === null) {
    const isBad = call.status === "error" || call.status === "timeout";
    parts.push(
      outputView(isBad ? "Error" : "Output", call.content, `Output of ${visible(call.name)}`, isBad),
    );
  }
  parts.push(...call.display.flatMap((bundle) => displayView(bundle, call.name)));
  if (call.files.length > 0) parts.push(section("Files", filesView(call.files)));
  parts.push(...detailsOf(call));
  if (parts.length === 0) parts.push(h("p", { class: "tc-note tc-dim" }, "Nothing to show yet."));
  body.replaceChildren(...parts);
}

/** The question of a running call, or the call of its sub-agent, and what became of it; or of a doubt. */
function asked(call: CallState): Node[] {
  const { request } = call;
  if (request?.kind === "in_doubt") {
    if (request.answer === null || call.status === "skipped") return [];
    return [h("p", { class: "tc-note" }, `${answered(request)}.`)];
  }
  if (request === null || call.started_at === null || (request.kind !== "question" && request.name === ""))
    return [];
  const what =
    request.kind === "question"
      ? section("Question", h("p", { class: "tc-note" }, reveal(request.question)))
      : section(`Call of ${visible(request.name)}`, argumentsView(request.arguments ?? {}));
  if (request.answer === null) return [what];
  const words = request.result === null ? request.reason : answerText(request, request.result);
  const quoted = words === "" ? "." : h("q", null, reveal(words));
  return [what, h("p", { class: "tc-note" }, reveal(answered(request)), words !== "" && ": ", quoted)];
}

/** What a tool has said for people alone, unless it is the output once more. */
function detailsOf(call: CallState): Node[] {
  const details: unknown = call.details;
  if (typeof details !== "object" || details === null || Array.isArray(details)) return [];
  if (isSame(details, call.content)) return [];
  const { traceback, ...rest } = details as Record<string, unknown>;
  const parts: Node[] = [];
  if (typeof traceback === "string")
    parts.push(outputView("Traceback", traceback, `Traceback of ${visible(call.name)}`));
  else if (traceback !== undefined) rest.traceback = traceback;
  if (Object.keys(rest).length > 0) parts.push(section("Details", argumentsView(rest)));
  return parts;
}

function isSame(details: object, content: string | null): boolean {
  try {
    return JSON.stringify(JSON.parse(content ?? "")) === JSON.stringify(details);
  } catch {
    return false;
  }
}

/**
 * The run as the page knows it: the same fold as `core/fold.py`, held equal by the tests over shared journals.
 *
 * The values are changed in place and keep their identity: a view is bound to "this call" and "this block" once, so what
 * a person has opened, selected or typed survives every event and every new snapshot.
 *
 * Text grows by `+=`, which engines keep as a rope: a delta costs its own length, whoever reads the text pays for it.
 */
import type {
  ArgumentsDelta,
  BlockView,
  CallState,
  Events,
  Message,
  MessageAdded,
  RequestAnswered,
  RequestOpened,
  RunStarted,
  RunView,
  StepFailed,
  StepFinished,
  StepView,
  Usage,
} from "./wire";

export type Event = Events["events"][number];
export type CallStatus = CallState["status"];

/** The values that have a version of their own. */
export type Part = RunView | StepView | BlockView | CallState;
/** Told about each value that an event has changed. */
export type Touch = (part: Part) => void;

const NOTHING: Touch = () => {};

export function emptyRun(): RunView {
  return {
    run_id: "",
    session_id: "",
    seq: 0,
    status: "running",
    model: "",
    mode: "ask",
    max_steps: 40,
    tools: [],
    is_attended: true,
    previous: null,
    root_run_id: "",
    parent_run_id: null,
    depth: 0,
    cell_id: null,
    agent: "",
    is_imported: false,
    prompt: "",
    steps: [],
    queued: [],
    notes: [],
    summaries: [],
    budget: null,
    is_tainted: false,
    closing: null,
    started_at: 0,
    ended_at: null,
    error_kind: null,
    error: null,
  };
}

function emptyUsage(): Usage {
  return {
    input_tokens: null,
    output_tokens: null,
    cache_read_tokens: null,
    cache_write_tokens: null,
    reasoning_tokens: null,
    is_estimated: false,
  };
}

function emptyStep(step: number, model: string, startedAt: number): StepView {
  return {
    step,
    model,
    started_at: startedAt,
    tier: null,
    finish_reason: null,
    usage: emptyUsage(),
    cost_usd: null,
    cost_basis: "none",
    answered_by: null,
    duration_s: null,
    first_token_s: null,
    reasoning_s: null,
    longest_gap_s: null,
    error_kind: null,
    error: null,
    blocks: [],
    images: [],
    calls: [],
    after: [],
  };
}

/** The generated type of any JSON value knows no null, the wire does. */
const NO_JSON = null as unknown as CallState["details"];

function newCall(callId: string, step: number, name: string, argumentsText: string): CallState {
  return {
    call_id: callId,
    step,
    name,
    arguments_text: argumentsText,
    arguments: null,
    proposed_arguments: null,
    digest: null,
    effect: "write",
    status: "streaming",
    problem: null,
    verdict: null,
    judged_by: "",
    reason: "",
    request: null,
    requests: 0,
    waited_s: 0,
    is_trusted: false,
    terminates: false,
    content: null,
    details: NO_JSON,
    files: [],
    display: [],
    progress: "",
    progress_data: NO_JSON,
    proposed_at: null,
    started_at: null,
    ended_at: null,
    duration_s: null,
  };
}

/** When a model call that failed is tried again, by the kernel's clock. Of use for seconds, so no snapshot tells it. */
const retries = new WeakMap<RunView, number>();

export function retriesAt(run: RunView): number {
  return retries.get(run) ?? 0;
}

/** Steps whose model has to be imported first. Of use for seconds, too. */
const cold = new WeakSet<StepView>();

export function isWarmingUp(step: StepView): boolean {
  return cold.has(step) && step.blocks.length === 0 && isStreaming(step);
}

/** The calls that wait for a person. */
export function openRequests(run: RunView): CallState[] {
  return (run.steps.at(-1)?.calls ?? []).filter((call) => call.status === "waiting");
}

export function isEnded(run: RunView): boolean {
  return run.ended_at !== null;
}

/** Steps whose message has come: deltas that are still under way are too late for them. */
const closed = new WeakSet<StepView>();

/** Whether the model is still at this step. A snapshot does not tell about the message, but about the time it took. */
export function isStreaming(step: StepView): boolean {
  return step.duration_s === null && !closed.has(step);
}

/** The run after one more event: the same object, changed. Unknown events change nothing. */
export function applyEvent(run: RunView, event: Event, touch: Touch = NOTHING): RunView {
  if (!change(run, event, touch) || !("seq" in event)) return run;
  run.seq = event.seq;
  if (!isEnded(run)) {
    const status = openRequests(run).length > 0 ? "waiting" : "running";
    if (status !== run.status) {
      run.status = status;
      touch(run);
    }
  }
  return run;
}

function change(run: RunView, e: Event, touch: Touch): boolean {
  const step = run.steps.at(-1);
  const onCall = (callId: string, values: Partial<CallState>): void => {
    const call = step?.calls.find((each) => each.call_id === callId);
    if (call === undefined) return;
    Object.assign(call, values);
    touch(call);
  };
  const onStep = (values: Partial<StepView>): void => {
    if (step === undefined) return;
    Object.assign(step, values);
    touch(step);
  };
  switch (e.type) {
    case "RunStarted":
      Object.assign(run, started(e));
      touch(run);
      break;
    case "MessageAdded":
      if (e.message.role === "user") {
        hear(run, e);
        touch(run);
      } else if (step !== undefined) addMessage(step, e, touch);
      break;
    case "Steered":
      run.queued = [...run.queued, { input_id: e.input_id, text: textOf(e.message) }];
      touch(run);
      break;
    case "ModelChosen":
      onStep({ model: e.model, tier: e.tier });
      break;
    case "Noted":
      if (e.kind === "retry" && e.call_id === null) retries.set(run, e.at + Number(e.data?.wait_s ?? 0));
      run.notes = [...run.notes, { kind: e.kind, message: e.message, step: e.step, call_id: e.call_id }];
      touch(run);
      break;
    case "Retrieved":
      if (!e.passages.every((passage) => passage.is_trusted)) run.is_tainted = true;
      break;
    case "Pruned":
      break;
    case "Compacted":
      if (e.model || Object.values(e.usage).some((count) => typeof count === "number")) {
        const { step, usage, cost_usd } = e;
        run.summaries = [...run.summaries, { step, usage, cost_usd }];
        touch(run);
      }
      break;
    case "BudgetChanged":
      run.budget = e.budget;
      touch(run);
      break;
    case "RulesChanged":
      break;
    case "StepStarted":
      run.steps.push(emptyStep(e.step, e.model, e.at));
      touch(run);
      break;
    case "StepFinished":
      onStep({ ...settled(e), finish_reason: e.finish_reason, answered_by: e.answered_by });
      break;
    case "StepFailed":
      onStep({ ...settled(e), error_kind: e.kind, error: e.message });
      break;
    case "CallProposed": {
      const { digest, effect, problem, is_trusted } = e;
      const text = step?.calls.find((each) => each.call_id === e.call_id)?.arguments_text ?? "";
      const replaced = e.is_replaced ? { proposed_arguments: objectOf(text) } : {};
      onCall(e.call_id, { arguments: e.arguments, digest, effect, problem, is_trusted, ...replaced });
      break;
    }
    case "CallJudged": {
      const status = e.verdict === "allow" ? "allowed" : "proposed";
      onCall(e.call_id, { verdict: e.verdict, judged_by: e.by, reason: e.reason, status });
      break;
    }
    case "RequestOpened":
      onCall(e.call_id, opened(step, e));
      break;
    case "RequestAnswered":
      onCall(e.call_id, answered(step, e));
      break;
    case "CallStarted":
      onCall(e.call_id, { status: "running", started_at: e.at });
      break;
    case "CallFinished": {
      const { status, content, details, duration_s, files, display, terminates } = e;
      const call = step?.calls.find((each) => each.call_id === e.call_id);
      if (call !== undefined && call.started_at !== null && !call.is_trusted) run.is_tainted = true;
      const ended = { status, content, details, duration_s, files, display, terminates, ended_at: e.at };
      onCall(e.call_id, { ...ended, progress: "", progress_data: NO_JSON });
      break;
    }
    case "PartialSaved":
      if (step !== undefined && isStreaming(step))
        savePartial(step, e.block, e.kind, e.offset, e.text, touch);
      break;
    case "Resumed":
      if (!isEnded(run)) for (const call of step?.calls ?? []) onCall(call.call_id, atRest(call));
      break;
    case "RunEnded":
      Object.assign(run, { status: e.status, ended_at: e.at, error_kind: e.kind, error: e.message });
      run.closing = e.text;
      touch(run);
      break;
    case "TextDelta":
    case "ReasoningDelta":
      if (step !== undefined && isStreaming(step))
        grow(step, e.block, e.type === "TextDelta" ? "text" : "reasoning", e.text, touch);
      break;
    case "ArgumentsDelta":
      if (step !== undefined && isStreaming(step)) growArguments(step, e, touch);
      break;
    case "WarmingUp":
      if (step !== undefined) {
        cold.add(step);
        touch(step);
      }
      break;
    case "CallProgress":
      onCall(e.call_id, { progress: e.text, progress_data: e.data });
      break;
    default:
      return false;
  }
  return true;
}

function started(e: RunStarted): RunView {
  const { run_id, session_id, seq, model, mode, max_steps, tools, is_attended, previous } = e;
  const { parent_run_id, depth, cell_id, agent, is_imported, budget } = e;
  const known = { run_id, session_id, seq, model, mode, max_steps, tools: [...tools], is_attended, previous };
  const place = {
    root_run_id: e.root_run_id || run_id,
    parent_run_id,
    depth,
    cell_id,
    agent,
    is_imported,
    budget,
    started_at: e.at,
  };
  return { ...emptyRun(), ...known, ...place };
}

/** A message to the model: the first is the prompt, the others come after a step. */
function hear(run: RunView, e: MessageAdded): void {
  const text = textOf(e.message);
  // Until it comes there is no step.
  const step = run.steps.at(-1);
  if (step === undefined && run.prompt === "") run.prompt = text;
  if (e.input_id !== null) run.queued = run.queued.filter((each) => each.input_id !== e.input_id);
  if (step !== undefined) step.after = [...step.after, { by: e.by, text }];
}

/** What the end of a model call says in either case. */
function settled(e: StepFinished | StepFailed): Partial<StepView> {
  const { usage, cost_usd, cost_basis, duration_s, first_token_s, reasoning_s, longest_gap_s } = e;
  return { usage, cost_usd, cost_basis, duration_s, first_token_s, reasoning_s, longest_gap_s };
}

function objectOf(text: string): NonNullable<CallState["arguments"]> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch {}
  return { unreadable_arguments: text };
}

function textOf(message: Message): string {
  return message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");
}

/** The message takes the place of what was streamed; blocks and calls that stay the same keep their identity. */
function addMessage(step: StepView, e: MessageAdded, touch: Touch): void {
  const blocks: BlockView[] = [];
  const calls: CallState[] = [];
  step.images = e.message.parts.flatMap((part) =>
    part.type === "image" ? [{ media_type: part.media_type, data: part.data }] : [],
  );
  for (const part of e.message.parts) {
    if (part.type === "tool_call") {
      blocks.push({ kind: "call", text: "", call_id: part.call_id });
      const call = newCall(part.call_id, e.step, part.name, part.arguments_text);
      calls.push({ ...call, status: "proposed", proposed_at: e.at });
    } else if (part.type === "text" || part.type === "reasoning") {
      blocks.push({ kind: part.type, text: part.text, call_id: "" });
    }
  }
  closed.add(step);
  mergeBlocks(step, blocks, touch);
  mergeCalls(step, calls, touch);
  touch(step);
}

const OPEN = new Set<CallStatus>(["streaming", "proposed", "waiting", "allowed", "running", "in_doubt"]);

/** Whether the call may still go on. */
export function isOpenCall(call: CallState): boolean {
  return OPEN.has(call.status);
}

/** What the end of its program has left of a call. */
function atRest(call: CallState): Partial<CallState> {
  if (!isOpenCall(call)) return {};
  const { request } = call;
  // What was in doubt is so until somebody has said.
  const isUndecided = call.status === "in_doubt" || (request?.kind === "in_doubt" && request.answer === null);
  if (call.started_at === null && !isUndecided) return {};
  const rest = { progress: "", progress_data: NO_JSON };
  if (call.effect === "write") return { ...rest, status: "in_doubt" };
  return { ...rest, status: isUndecided ? "in_doubt" : "allowed", started_at: null };
}

function opened(step: StepView | undefined, e: RequestOpened): Partial<CallState> {
  const { request_id, digest, kind, question, options, allows_text, allows_many, name, description } = e;
  const asked = { request_id, digest, kind, question, options, allows_text, allows_many, name, description };
  const { preview, expires_at, default_result } = e;
  const rest = { arguments: e.arguments, preview, expires_at, default_result, opened_at: e.at };
  const open = {
    answer: null,
    by: null,
    reason: "",
    result: null,
    scope: "once",
    answered_at: null,
  } as const;
  const before = step?.calls.find((each) => each.call_id === e.call_id)?.requests ?? 0;
  return { request: { ...asked, ...rest, ...open }, requests: before + 1, status: "waiting" };
}

function answered(step: StepView | undefined, e: RequestAnswered): Partial<CallState> {
  const call = step?.calls.find((each) => each.call_id === e.call_id);
  if (call?.request == null) return {};
  const { answer, by, reason, result, scope } = e;
  const request = { ...call.request, answer, by, reason, result, scope, answered_at: e.at };
  const waited_s = call.waited_s + Math.max(0, e.at - request.opened_at);
  if (request.kind === "in_doubt")
    return { request, waited_s, started_at: null, status: answer === "approve" ? "allowed" : "proposed" };
  // Asked by the running call: it goes on.
  if (call.started_at !== null) return { request, waited_s, status: "running" };
  const status = answer === "approve" || answer === "edit" ? "allowed" : "proposed";
  const decided = { request, waited_s, status } as const;
  if (answer !== "edit") return decided;
  return {
    ...decided,
    arguments: e.arguments,
    digest: e.digest,
    proposed_arguments: call.proposed_arguments ?? call.arguments,
  };
}

/** Code points per block, as Python counts characters; kept so that a saved piece need not count the whole text. */
const lengths = new WeakMap<BlockView, number>();

function codePoints(text: string): number {
  let count = text.length;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit >= 0xd800 && unit < 0xdc00 && at + 1 < text.length) count -= 1;
  }
  return count;
}

function lengthOf(block: BlockView): number {
  const known = lengths.get(block) ?? codePoints(block.text);
  lengths.set(block, known);
  return known;
}

function grow(step: StepView, number: number, kind: BlockView["kind"], text: string, touch: Touch): void {
  const block = step.blocks[number];
  if (block === undefined) {
    step.blocks.push({ kind, text, call_id: "" });
    touch(step);
    return;
  }
  lengths.set(block, lengthOf(block) + codePoints(text));
  block.text += text;
  touch(block);
}

function savePartial(
  step: StepView,
  number: number,
  kind: BlockView["kind"],
  offset: number,
  text: string,
  touch: Touch,
): void {
  const block = step.blocks[number];
  const surplus = Math.max(0, (block === undefined ? 0 : lengthOf(block)) - offset);
  const missing = surplus === 0 ? text : Array.from(text).slice(surplus).join("");
  if (missing !== "") grow(step, number, kind, missing, touch);
}

function growArguments(step: StepView, e: ArgumentsDelta, touch: Touch): void {
  const call = step.calls.find((each) => each.call_id === e.call_id);
  if (call === undefined) {
    step.calls.push(newCall(e.call_id, e.step, e.name, e.text));
    step.blocks.push({ kind: "call", text: "", call_id: e.call_id });
    touch(step);
    return;
  }
  call.name = e.name;
  call.arguments_text += e.text;
  touch(call);
}

// Merging: what is there takes on the values of what came, by place and kind or by id.

function mergeBlocks(step: StepView, blocks: readonly BlockView[], touch: Touch): void {
  step.blocks = blocks.map((block, index) => {
    const old = step.blocks[index];
    if (old === undefined || old.kind !== block.kind || old.call_id !== block.call_id) return block;
    if (old.text !== block.text) {
      old.text = block.text;
      lengths.delete(old);
      touch(old);
    }
    return old;
  });
}

function mergeCalls(step: StepView, calls: readonly CallState[], touch: Touch): void {
  step.calls = calls.map((call) => {
    const old = step.calls.find((each) => each.call_id === call.call_id);
    if (old === undefined) return call;
    // A view is drawn anew for a change only: a person may be reading or selecting in it.
    if (JSON.stringify(old) !== JSON.stringify({ ...old, ...call })) {
      Object.assign(old, call);
      touch(old);
    }
    return old;
  });
}

/** Takes over a snapshot. */
export function mergeRun(run: RunView, from: RunView, touch: Touch): void {
  const steps = from.steps.map((step, index) => {
    const old = run.steps[index];
    if (old === undefined || old.step !== step.step || run.run_id !== from.run_id) return step;
    closed.delete(old);
    mergeBlocks(old, step.blocks, touch);
    mergeCalls(old, step.calls, touch);
    Object.assign(old, step, { blocks: old.blocks, calls: old.calls });
    touch(old);
    return old;
  });
  Object.assign(run, from, { steps });
  // Nobody knows how long a step took that was held elsewhere.
  if (from.is_imported) for (const step of steps) closed.add(step);
  touch(run);
}

/** Runs for looking at: events of a run, written as a play. Times are those of a kernel that has just been asked. */
import type { Event } from "../src/fold";
import type {
  CallFinished,
  MessageAdded,
  Noted,
  RequestAnswered,
  RequestOpened,
  RunEnded,
} from "../src/wire";

const USAGE = {
  input_tokens: 3100,
  output_tokens: 300,
  cache_read_tokens: 2450,
  cache_write_tokens: 0,
  reasoning_tokens: 90,
};

/** What a request says when nothing else is said. */
const REQUEST: Partial<RequestOpened> = {
  ...{ kind: "approval", question: "", options: [], allows_text: false, allows_many: false },
  ...{ name: "", arguments: null, description: "", preview: null, expires_at: null },
  ...{ default: "deny", default_result: null },
};

export class Script {
  readonly events: Event[] = [];
  #seq = 0;
  #step = 0;
  #at = 1_700_000_000;
  #block = -1;
  #parts: object[] = [];
  #calls: { call_id: string; name: string; values: object }[] = [];

  constructor(prompt: string, model = "claude-sonnet-5") {
    this.#add({
      type: "RunStarted",
      model,
      mode: "ask",
      max_steps: 40,
      instructions: "",
      tools: [],
      is_attended: true,
      previous: null,
      replaces: null,
      copy_of: null,
      root_run_id: "",
      parent_run_id: null,
      depth: 0,
      cell_id: null,
      agent: "",
      notices: [],
      budget: null,
    });
    this.told(prompt, "person");
  }

  wait(seconds: number): this {
    this.#at += seconds;
    return this;
  }

  /** A message to the model: the prompt, or one that comes after a step. */
  told(text: string, by: MessageAdded["by"], input_id: string | null = null): this {
    return this.#add({
      type: "MessageAdded",
      message: { role: "user", parts: [{ type: "text", text }] },
      by,
      input_id,
    });
  }

  steer(text: string, input_id = "inp_1"): this {
    const message = { role: "user", parts: [{ type: "text", text }] };
    return this.#add({ type: "Steered", input_id, message });
  }

  note(kind: Noted["kind"], message: string, call_id: string | null = null): this {
    return this.#add({ type: "Noted", kind, message, call_id, data: null });
  }

  /** A model call that failed and is tried again in some seconds. */
  retry(wait_s: number): this {
    const message = `overloaded: 529; trying again in ${wait_s} s`;
    return this.#add({ type: "Noted", kind: "retry", message, call_id: null, data: { wait_s } });
  }

  limit(budget: Record<string, number>): this {
    return this.#add({ type: "BudgetChanged", budget });
  }

  summarised(): this {
    return this.#add({ type: "Compacted", model: "claude-haiku-5", usage: USAGE, cost_usd: 0.001 });
  }

  /** What the model has drawn: base64 with its type, or an address without one. */
  draw(data: string, media_type: string | null = "image/png"): this {
    this.#parts.push({ type: "image", data, media_type });
    return this;
  }

  choose(model: string, tier: string | null = null): this {
    return this.#add({ type: "ModelChosen", model, tier, reason: "" });
  }

  step(): this {
    this.#step += 1;
    this.#block = -1;
    this.#parts = [];
    this.#calls = [];
    return this.#add({ type: "StepStarted", model: "claude-sonnet-5" });
  }

  think(text: string, seconds = 2): this {
    return this.#stream("ReasoningDelta", "reasoning", text, seconds);
  }

  say(text: string, seconds = 1): this {
    return this.#stream("TextDelta", "text", text, seconds);
  }

  /** A call as it streams; `cut` leaves it unfinished. */
  call(name: string, values: object, cut?: number): this {
    this.#block += 1;
    const call_id = `call-${this.#step}-${this.#calls.length}`;
    const text = JSON.stringify(values);
    this.#parts.push({ type: "tool_call", call_id, name, arguments_text: text, provider_id: null });
    this.#calls.push({ call_id, name, values });
    for (const piece of (cut === undefined ? text : text.slice(0, cut)).match(/[\s\S]{1,24}/g) ?? [])
      this.#pass({ type: "ArgumentsDelta", block: this.#block, text: piece, call_id, name });
    return this.wait(0.4);
  }

  finish(finish_reason = "tool_calls", cost_usd: number | null = 0.0103): this {
    this.#add({
      type: "MessageAdded",
      message: { role: "assistant", parts: this.#parts, is_partial: false },
      ...{ by: "person", input_id: null },
    });
    const rest = {
      ...{ answered_by: "claude-sonnet-5", duration_s: 2, first_token_s: 0.4 },
      ...{ reasoning_s: null, longest_gap_s: null },
    };
    const usage = { ...USAGE, is_estimated: false };
    return this.#add({ type: "StepFinished", finish_reason, usage, cost_usd, cost_basis: "prices", ...rest });
  }

  propose(effect: "read" | "write" = "read", verdict: "allow" | "ask" | "deny" = "allow", reason = ""): this {
    for (const { call_id, name, values } of this.#calls) {
      this.#add({
        type: "CallProposed",
        call_id,
        name,
        arguments: values,
        digest: `d-${call_id}`,
        effect,
        problem: null,
        is_replaced: false,
        is_trusted: false,
      });
      this.#add({ type: "CallJudged", call_id, verdict, by: "rule “no network”", reason });
    }
    return this;
  }

  ask(description: string, preview: string | null = null, forSeconds = 3600): this {
    for (const { call_id } of this.#calls) {
      const expires_at = this.#at + forSeconds;
      const request_id = `ask-${call_id}`;
      this.#add({
        type: "RequestOpened",
        request_id,
        call_id,
        digest: `d-${call_id}`,
        ...REQUEST,
        ...{ description, preview, expires_at },
      });
    }
    return this;
  }

  /** The program ended and another one goes on; a write that had begun is in doubt. */
  restart(number?: number): this {
    this.wait(60).#add({ type: "Resumed" }).told("[The program was restarted.]", "restart");
    if (number === undefined) return this;
    const call_id = this.#calls[number]?.call_id;
    const description = "It had begun when the program ended; whether it has happened is not known.";
    const request = { request_id: `doubt-${call_id}`, call_id, digest: "d-doubt", ...REQUEST };
    return this.#add({ ...request, type: "RequestOpened", kind: "in_doubt", description });
  }

  /** The running call asks. */
  question(question: string, values: Partial<RequestOpened> = {}, number = 0): this {
    return this.#inner({ kind: "question", question, ...values }, number);
  }

  /** A call of the sub-agent that the running call is. */
  inner(name: string, values: Record<string, unknown>, description = "", number = 0): this {
    return this.#inner({ name, arguments: values, description }, number);
  }

  #inner(values: Partial<RequestOpened>, number: number): this {
    const call_id = this.#calls[number]?.call_id;
    const request_id = `ask-${call_id}`;
    return this.#add({
      type: "RequestOpened",
      request_id,
      call_id,
      digest: "d-inner",
      ...REQUEST,
      ...values,
    });
  }

  answer(
    answer: RequestAnswered["answer"],
    reason = "",
    values: object | null = null,
    by = "person",
    number = 0,
    result: string | null = null,
  ): this {
    const call_id = this.#calls[number]?.call_id;
    const request_id = `ask-${call_id}`;
    this.#add({
      type: "RequestAnswered",
      request_id,
      call_id,
      answer,
      by,
      reason,
      arguments: values,
      digest: "d",
      result,
      scope: "once",
    });
    return this;
  }

  start(number = 0): this {
    return this.#add({
      type: "CallStarted",
      call_id: this.#calls[number]?.call_id,
      digest: "d",
      effect: "read",
    });
  }

  progress(text: string, number = 0, data: unknown = null): this {
    return this.#pass({ type: "CallProgress", call_id: this.#calls[number]?.call_id, text, data });
  }

  returned(
    content: string,
    status: CallFinished["status"] = "ok",
    duration_s = 0.2,
    details: unknown = null,
    number = 0,
    shown: Partial<Pick<CallFinished, "files" | "display">> = {},
  ): this {
    this.wait(duration_s);
    const call_id = this.#calls[number]?.call_id;
    const made = { files: [], display: [], ...shown };
    return this.#add({ type: "CallFinished", call_id, status, content, details, duration_s, ...made });
  }

  fail(kind: string, message: string): this {
    const answer = { role: "assistant", parts: this.#parts, is_partial: true };
    this.#add({ type: "MessageAdded", message: answer, by: "person", input_id: null });
    const usage = { ...USAGE, output_tokens: 0, is_estimated: false };
    return this.#add({
      type: "StepFailed",
      kind,
      message,
      usage,
      cost_usd: 0.009,
      cost_basis: "prices",
      duration_s: 2,
      ...{ first_token_s: null, reasoning_s: null, longest_gap_s: null },
    });
  }

  end(
    status: RunEnded["status"] = "completed",
    kind: string | null = null,
    message: string | null = null,
    text: string | null = null,
  ): this {
    return this.#add({ type: "RunEnded", status, kind, message, text });
  }

  #stream(
    type: "TextDelta" | "ReasoningDelta",
    kind: "text" | "reasoning",
    text: string,
    seconds: number,
  ): this {
    this.#block += 1;
    this.#parts.push({ type: kind, text });
    const pieces = text.match(/[\s\S]{1,40}/g) ?? [];
    for (const piece of pieces)
      this.wait(seconds / pieces.length).#pass({ type, block: this.#block, text: piece });
    return this;
  }

  #pass(event: object): this {
    this.events.push({ run_id: "run_1", step: this.#step, ...event } as Event);
    return this;
  }

  #add(event: object): this {
    this.#seq += 1;
    const at = Math.round(this.#at * 1000) / 1000;
    const envelope = { seq: this.#seq, session_id: "ses_1", run_id: "run_1", step: this.#step, at };
    this.events.push({ ...envelope, ...event } as Event);
    return this;
  }

  get now(): number {
    return this.#at;
  }
}

// Made by wire.mjs from src/turncell/notebook/wire.py. Do not edit: `make wire`.

export interface Wire {
  from_page: Hello | Ready | Resync | AnswerRequest | StopRun;
  to_page: Snapshot | Events | Refused;
}
/**
 * A page is there, and what it sends arrives.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Hello".
 */
export interface Hello {
  type: "hello";
}
/**
 * A view stands; `have` is the last `seq` that it knows (-1: none). Sent again every few seconds while the run is open.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Ready".
 */
export interface Ready {
  have: number;
  type: "ready";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Resync".
 */
export interface Resync {
  have: number;
  type: "resync";
}
/**
 * A person's answer. `digest` is that of the arguments on the screen, `arguments` the edited ones as JSON text.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "AnswerRequest".
 */
export interface AnswerRequest {
  arguments: string | null;
  decision: "approve" | "edit" | "deny";
  digest: string;
  reason: string;
  request_id: string;
  type: "answer";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StopRun".
 */
export interface StopRun {
  type: "stop";
}
/**
 * The whole run. `now` is the kernel's clock, so that the page can count seconds with its own.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Snapshot".
 */
export interface Snapshot {
  now: number;
  run: RunView;
  seq: number;
  type: "snapshot";
}
/**
 * What `core.fold.snapshot` makes of a RunState.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RunView".
 */
export interface RunView {
  cell_id: string | null;
  depth: number;
  ended_at: number | null;
  error: string | null;
  error_kind: string | null;
  is_attended: boolean;
  max_steps: number;
  mode: string;
  model: string;
  parent_run_id: string | null;
  previous: string | null;
  prompt: string;
  root_run_id: string;
  run_id: string;
  seq: number;
  session_id: string;
  started_at: number;
  status:
    | ("running" | "waiting" | "interrupted" | "in_doubt")
    | ("completed" | "failed" | "cancelled" | "max_steps" | "budget" | "timeout" | "truncated");
  steps: StepView[];
  tools: string[];
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StepView".
 */
export interface StepView {
  answered_by: string | null;
  blocks: BlockView[];
  calls: CallState[];
  cost_basis: "provider" | "prices" | "user" | "none";
  cost_usd: number | null;
  duration_s: number | null;
  error: string | null;
  error_kind: string | null;
  finish_reason: ("stop" | "length" | "tool_calls" | "filter" | "other") | null;
  first_token_s: number | null;
  model: string;
  reasoning_s: number | null;
  started_at: number;
  step: number;
  usage: Usage;
}
/**
 * A block of a step: text to show, or the place of a call.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "BlockView".
 */
export interface BlockView {
  call_id: string;
  kind: "text" | "reasoning" | "call";
  text: string;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallState".
 */
export interface CallState {
  arguments: {
    [k: string]: unknown;
  } | null;
  arguments_text: string;
  call_id: string;
  content: string | null;
  details: {
    [k: string]: unknown;
  };
  digest: string | null;
  duration_s: number | null;
  effect: "read" | "write" | "idempotent";
  ended_at: number | null;
  judged_by: string;
  name: string;
  problem: string | null;
  progress: string;
  proposed_arguments: {
    [k: string]: unknown;
  } | null;
  proposed_at: number | null;
  reason: string;
  request: RequestState | null;
  started_at: number | null;
  status:
    | ("streaming" | "proposed" | "waiting" | "allowed" | "running" | "in_doubt")
    | ("ok" | "error" | "denied" | "invalid" | "cancelled" | "skipped" | "timeout");
  step: number;
  verdict: ("allow" | "deny" | "ask") | null;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RequestState".
 */
export interface RequestState {
  answer: ("approve" | "edit" | "deny" | "result") | null;
  answered_at: number | null;
  by: ("person" | "unattended" | "time limit" | "rule" | "cancel") | null;
  description: string;
  digest: string;
  expires_at: number | null;
  opened_at: number;
  preview: string | null;
  reason: string;
  request_id: string;
}
/**
 * Tokens of one model call. `None` is "not said by the provider", which is not zero.
 *
 * `input_tokens` includes what was read from and written to the provider's cache; `output_tokens` includes
 * `reasoning_tokens`. `is_estimated` marks numbers that were counted here.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Usage".
 */
export interface Usage {
  cache_read_tokens: number | null;
  cache_write_tokens: number | null;
  input_tokens: number | null;
  is_estimated: boolean;
  output_tokens: number | null;
  reasoning_tokens: number | null;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Events".
 */
export interface Events {
  events: (
    | RunStarted
    | MessageAdded
    | StepStarted
    | StepFinished
    | StepFailed
    | CallProposed
    | CallJudged
    | RequestOpened
    | RequestAnswered
    | CallStarted
    | CallFinished
    | PartialSaved
    | RunEnded
    | TextDelta
    | ReasoningDelta
    | ArgumentsDelta
    | CallProgress
  )[];
  now: number;
  seq: number;
  type: "events";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RunStarted".
 */
export interface RunStarted {
  at: number;
  cell_id: string | null;
  depth: number;
  instructions: string;
  is_attended: boolean;
  max_steps: number;
  mode: string;
  model: string;
  parent_run_id: string | null;
  previous: string | null;
  root_run_id: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  tools: string[];
  type: "RunStarted";
  version: number;
}
/**
 * A message of a person or of the model. Tool results are not messages here: see CallFinished.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "MessageAdded".
 */
export interface MessageAdded {
  at: number;
  message: Message;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "MessageAdded";
}
/**
 * One message of a conversation. `is_partial` marks an answer that was cut off.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Message".
 */
export interface Message {
  is_partial: boolean;
  parts: (Text | Reasoning | Image | ToolCall | ToolResult)[];
  role: "system" | "user" | "assistant" | "tool";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Text".
 */
export interface Text {
  text: string;
  type: "text";
}
/**
 * What the model thought aloud. `signature` is the provider's seal, given back unchanged.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Reasoning".
 */
export interface Reasoning {
  signature: string | null;
  text: string;
  type: "reasoning";
}
/**
 * An image: `data` is base64 when `media_type` is set, otherwise an https URL.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Image".
 */
export interface Image {
  data: string;
  media_type: string | null;
  type: "image";
}
/**
 * What the model asked for, as it wrote it.
 *
 * `call_id` is ours and unique in the store; `provider_id` is the model's own name for the call, kept because
 * some providers want it back to the letter.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ToolCall".
 */
export interface ToolCall {
  arguments_text: string;
  call_id: string;
  name: string;
  provider_id: string | null;
  type: "tool_call";
}
/**
 * The answer to one call, as the model reads it.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ToolResult".
 */
export interface ToolResult {
  call_id: string;
  content: string;
  is_error: boolean;
  name: string;
  provider_id: string | null;
  type: "tool_result";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StepStarted".
 */
export interface StepStarted {
  at: number;
  model: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "StepStarted";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StepFinished".
 */
export interface StepFinished {
  answered_by: string | null;
  at: number;
  cost_basis: "provider" | "prices" | "user" | "none";
  cost_usd: number | null;
  duration_s: number;
  finish_reason: "stop" | "length" | "tool_calls" | "filter" | "other";
  first_token_s: number | null;
  reasoning_s: number | null;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "StepFinished";
  usage: Usage;
}
/**
 * The model call ended without an answer; what had arrived is kept as a partial message.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StepFailed".
 */
export interface StepFailed {
  at: number;
  cost_basis: "provider" | "prices" | "user" | "none";
  cost_usd: number | null;
  duration_s: number;
  first_token_s: number | null;
  kind: string;
  message: string;
  reasoning_s: number | null;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "StepFailed";
  usage: Usage;
}
/**
 * A call, parsed and validated. `problem` says why it cannot run; then there are no arguments.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallProposed".
 */
export interface CallProposed {
  arguments: {
    [k: string]: unknown;
  } | null;
  at: number;
  call_id: string;
  digest: string | null;
  effect: "read" | "write" | "idempotent";
  name: string;
  problem: string | null;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "CallProposed";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallJudged".
 */
export interface CallJudged {
  at: number;
  by: string;
  call_id: string;
  reason: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "CallJudged";
  verdict: "allow" | "deny" | "ask";
}
/**
 * A person is asked about one call. All requests of a step stand on one card.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RequestOpened".
 */
export interface RequestOpened {
  at: number;
  call_id: string;
  default: "approve" | "edit" | "deny" | "result";
  description: string;
  digest: string;
  expires_at: number | null;
  preview: string | null;
  request_id: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "RequestOpened";
}
/**
 * The one answer that counted. `arguments` and `digest` are those that run; what was asked stands in CallProposed.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RequestAnswered".
 */
export interface RequestAnswered {
  answer: "approve" | "edit" | "deny" | "result";
  arguments: {
    [k: string]: unknown;
  } | null;
  at: number;
  by: "person" | "unattended" | "time limit" | "rule" | "cancel";
  call_id: string;
  digest: string | null;
  reason: string;
  request_id: string;
  result: string | null;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "RequestAnswered";
}
/**
 * The intent. For a write it is on disk before the effect.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallStarted".
 */
export interface CallStarted {
  at: number;
  call_id: string;
  digest: string;
  effect: "read" | "write" | "idempotent";
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "CallStarted";
}
/**
 * `content` is what the model reads, `details` what people and programs may see besides.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallFinished".
 */
export interface CallFinished {
  at: number;
  call_id: string;
  content: string;
  details: {
    [k: string]: unknown;
  };
  duration_s: number | null;
  run_id: string;
  seq: number;
  session_id: string;
  status: "ok" | "error" | "denied" | "invalid" | "cancelled" | "skipped" | "timeout";
  step: number;
  type: "CallFinished";
}
/**
 * Text that is on the screen but in no message yet: the piece from `offset` (characters) on.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "PartialSaved".
 */
export interface PartialSaved {
  at: number;
  block: number;
  kind: "text" | "reasoning";
  offset: number;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  text: string;
  type: "PartialSaved";
}
/**
 * The one terminal event of a run.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RunEnded".
 */
export interface RunEnded {
  at: number;
  kind: string | null;
  message: string | null;
  run_id: string;
  seq: number;
  session_id: string;
  status: "completed" | "failed" | "cancelled" | "max_steps" | "budget" | "timeout" | "truncated";
  step: number;
  type: "RunEnded";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "TextDelta".
 */
export interface TextDelta {
  block: number;
  run_id: string;
  step: number;
  text: string;
  type: "TextDelta";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ReasoningDelta".
 */
export interface ReasoningDelta {
  block: number;
  run_id: string;
  step: number;
  text: string;
  type: "ReasoningDelta";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ArgumentsDelta".
 */
export interface ArgumentsDelta {
  block: number;
  call_id: string;
  name: string;
  run_id: string;
  step: number;
  text: string;
  type: "ArgumentsDelta";
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "CallProgress".
 */
export interface CallProgress {
  call_id: string;
  run_id: string;
  step: number;
  text: string;
  type: "CallProgress";
}
/**
 * An answer was not taken, and why. Nothing has changed.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Refused".
 */
export interface Refused {
  problem: string;
  request_id: string;
  type: "refused";
}

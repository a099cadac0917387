// Made by wire.mjs from src/turncell/notebook/wire.py. Do not edit: `make wire`.

export interface Wire {
  from_kit: Of | Send | Resume | Branch | FetchCode;
  from_page: Hello | Ready | Resync | AnswerRequest | StopRun | FetchCode | Retry | Of;
  to_page: Snapshot | Events | Refused | Code | Parameters | Child | Of;
}
/**
 * What the view of one run says or is told; `content` is a message of the wire above, validated where it arrives.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Of".
 */
export interface Of {
  content: {
    [k: string]: unknown;
  };
  run_id: string;
  type: "of";
}
/**
 * A person's message to the agent of a chat.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Send".
 */
export interface Send {
  text: string;
  type: "send";
}
/**
 * Go on with what was interrupted in this session.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Resume".
 */
export interface Resume {
  session_id: string;
  type: "resume";
}
/**
 * Let the conversation end with this run; nothing is erased.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Branch".
 */
export interface Branch {
  run_id: string;
  session_id: string;
  type: "branch";
}
/**
 * A view that cannot look up its library asks for it. Changes nothing, so a restored view may send it.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "FetchCode".
 */
export interface FetchCode {
  library: string;
  type: "fetch_code";
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
 * A person's answer. `digest` is that of what is on the screen, `arguments` the edited ones as JSON text.
 *
 * `result` goes with the decision "result": the answer to a question, a list where it allows many.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "AnswerRequest".
 */
export interface AnswerRequest {
  arguments: string | null;
  decision: "approve" | "edit" | "deny" | "result";
  digest: string;
  reason: string;
  request_id: string;
  result: string | string[] | null;
  scope: "once" | "session" | "always";
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
 * Ask again what this run was asked. Taken only from a view that offers it, when the run is over.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Retry".
 */
export interface Retry {
  type: "retry";
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
  agent: string;
  budget: {
    [k: string]: unknown;
  } | null;
  cell_id: string | null;
  closing: string | null;
  depth: number;
  ended_at: number | null;
  error: string | null;
  error_kind: string | null;
  is_attended: boolean;
  is_imported: boolean;
  is_tainted: boolean;
  max_steps: number;
  mode: string;
  model: string;
  notes: NoteView[];
  parent_run_id: string | null;
  previous: string | null;
  prompt: string;
  queued: QueuedView[];
  root_run_id: string;
  run_id: string;
  seq: number;
  session_id: string;
  started_at: number;
  status:
    | ("running" | "waiting" | "interrupted" | "in_doubt")
    | ("completed" | "failed" | "cancelled" | "max_steps" | "budget" | "timeout" | "truncated");
  steps: StepView[];
  summaries: SummaryView[];
  tools: string[];
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "NoteView".
 */
export interface NoteView {
  call_id: string | null;
  kind: "retry" | "hook" | "notice" | "guard" | "rule" | "output" | "context";
  message: string;
  step: number;
}
/**
 * A message of the person that the model has not read yet.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "QueuedView".
 */
export interface QueuedView {
  input_id: string;
  text: string;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "StepView".
 */
export interface StepView {
  after: AddedView[];
  answered_by: string | null;
  blocks: BlockView[];
  calls: CallState[];
  cost_basis: "provider" | "prices" | "user" | "none";
  cost_usd: number | null;
  duration_s: number | null;
  error: string | null;
  error_kind: string | null;
  finish_reason: ("stop" | "length" | "tool_calls" | "filter" | "paused" | "other") | null;
  first_token_s: number | null;
  images: ImageView[];
  longest_gap_s: number | null;
  model: string;
  reasoning_s: number | null;
  started_at: number;
  step: number;
  tier: string | null;
  usage: Usage;
}
/**
 * What was said to the model after a step, and by whom.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "AddedView".
 */
export interface AddedView {
  by: "person" | "steering" | "hook" | "output" | "limit" | "restart";
  text: string;
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
  display: {
    [k: string]: unknown;
  }[];
  duration_s: number | null;
  effect: "read" | "write" | "idempotent";
  ended_at: number | null;
  files: File[];
  is_trusted: boolean;
  judged_by: string;
  name: string;
  problem: string | null;
  progress: string;
  progress_data: {
    [k: string]: unknown;
  };
  proposed_arguments: {
    [k: string]: unknown;
  } | null;
  proposed_at: number | null;
  reason: string;
  request: RequestState | null;
  requests: number;
  started_at: number | null;
  status:
    | ("streaming" | "proposed" | "waiting" | "allowed" | "running" | "in_doubt")
    | ("ok" | "error" | "denied" | "invalid" | "cancelled" | "skipped" | "timeout");
  step: number;
  terminates: boolean;
  verdict: ("allow" | "deny" | "ask") | null;
  waited_s: number;
}
/**
 * A file that a call has produced; `bytes` is its size.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "File".
 */
export interface File {
  bytes: number | null;
  media_type: string;
  path: string;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RequestState".
 */
export interface RequestState {
  allows_many: boolean;
  allows_text: boolean;
  answer: ("approve" | "edit" | "deny" | "result") | null;
  answered_at: number | null;
  arguments: {
    [k: string]: unknown;
  } | null;
  by: ("person" | "unattended" | "time limit" | "cancel" | "steering" | "memory" | "limit" | "file") | null;
  default_result: string | null;
  description: string;
  digest: string;
  expires_at: number | null;
  kind: "approval" | "question" | "in_doubt";
  name: string;
  opened_at: number;
  options: Option[];
  preview: string | null;
  question: string;
  reason: string;
  request_id: string;
  result: string | null;
  scope: "once" | "session" | "always";
}
/**
 * One answer that a question offers.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Option".
 */
export interface Option {
  description: string;
  label: string;
}
/**
 * An image that the model made: base64 where it has a media type, else an address, which nobody loads by themselves.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ImageView".
 */
export interface ImageView {
  data: string;
  media_type: string | null;
}
/**
 * Tokens of one model call. None is unknown, which is not zero.
 *
 * `input_tokens` includes what was read from and written to the provider's cache; `output_tokens` includes
 * `reasoning_tokens`. `is_estimated`: some of the counts were estimated here, not said by the provider.
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
 * A model call that has summarised the conversation before a step.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "SummaryView".
 */
export interface SummaryView {
  cost_usd: number | null;
  step: number;
  usage: Usage;
}
/**
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Events".
 */
export interface Events {
  events: (
    | RunStarted
    | Steered
    | MessageAdded
    | StepStarted
    | ModelChosen
    | StepFinished
    | StepFailed
    | CallProposed
    | CallJudged
    | RequestOpened
    | RequestAnswered
    | CallStarted
    | CallFinished
    | PartialSaved
    | Noted
    | BudgetChanged
    | RulesChanged
    | Retrieved
    | Pruned
    | Compacted
    | Arranged
    | Resumed
    | RunEnded
    | TextDelta
    | ReasoningDelta
    | ArgumentsDelta
    | CallProgress
    | WarmingUp
    | Latency
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
  agent: string;
  at: number;
  budget: {
    [k: string]: unknown;
  } | null;
  cell_id: string | null;
  copy_of: string | null;
  depth: number;
  instructions: string;
  is_attended: boolean;
  is_imported: boolean;
  max_steps: number;
  mode: string;
  model: string;
  needs: string[] | null;
  notices: string[];
  parent_call_id: string | null;
  parent_run_id: string | null;
  previous: string | null;
  replaces: string | null;
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
 * A message came while the run was going on. It is read at the next boundary, as a MessageAdded of this `input_id`.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Steered".
 */
export interface Steered {
  at: number;
  input_id: string;
  message: Message;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "Steered";
}
/**
 * One message of a conversation.
 *
 * `role` is "user", "assistant", "tool" or "system"; `parts` are Text, Image, reasoning, tool calls and tool results;
 * `is_partial` marks an answer that was cut off.
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
 * A piece of text in a message.
 *
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
 * An image: `data` is base64 when `media_type` is set, otherwise a URL.
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
 * The answer to one call, as the model reads it, and the images that it sees with it.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ToolResult".
 */
export interface ToolResult {
  call_id: string;
  content: string;
  images: Image[];
  is_error: boolean;
  name: string;
  provider_id: string | null;
  type: "tool_result";
}
/**
 * A message to the model or of the model. Tool results are not messages here: see CallFinished.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "MessageAdded".
 */
export interface MessageAdded {
  at: number;
  by: "person" | "steering" | "hook" | "output" | "limit" | "restart";
  input_id: string | null;
  message: Message;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "MessageAdded";
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
 * Another model than the run's first answers this step: a tier that a rule chose, or a fallback.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "ModelChosen".
 */
export interface ModelChosen {
  at: number;
  model: string;
  reason: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  tier: string | null;
  type: "ModelChosen";
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
  finish_reason: "stop" | "length" | "tool_calls" | "filter" | "paused" | "other";
  first_token_s: number | null;
  longest_gap_s: number | null;
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
  longest_gap_s: number | null;
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
  is_replaced: boolean;
  is_trusted: boolean;
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
 * A person is asked. All requests of a step stand on one card.
 *
 * An approval is about the call itself, or, where `name` is set, about a call of a sub-agent that runs inside it. A
 * question is asked by the running call.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RequestOpened".
 */
export interface RequestOpened {
  allows_many: boolean;
  allows_text: boolean;
  arguments: {
    [k: string]: unknown;
  } | null;
  at: number;
  call_id: string;
  default: "approve" | "edit" | "deny" | "result";
  default_result: string | null;
  description: string;
  digest: string;
  expires_at: number | null;
  kind: "approval" | "question" | "in_doubt";
  name: string;
  options: Option[];
  preview: string | null;
  question: string;
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
  by: "person" | "unattended" | "time limit" | "cancel" | "steering" | "memory" | "limit" | "file";
  call_id: string;
  digest: string | null;
  reason: string;
  request_id: string;
  result: string | null;
  run_id: string;
  scope: "once" | "session" | "always";
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
 * `content` is what the model reads; `details`, `files` and `display` are what people and programs may see besides.
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
  display: {
    [k: string]: unknown;
  }[];
  duration_s: number | null;
  files: File[];
  run_id: string;
  seq: number;
  session_id: string;
  status: "ok" | "error" | "denied" | "invalid" | "cancelled" | "skipped" | "timeout";
  step: number;
  terminates: boolean;
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
 * Something that people should be able to read later; it changes nothing by itself.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Noted".
 */
export interface Noted {
  at: number;
  call_id: string | null;
  data: {
    [k: string]: unknown;
  };
  kind: "retry" | "hook" | "notice" | "guard" | "rule" | "output" | "context";
  message: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "Noted";
}
/**
 * The limits from now on, all of them.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "BudgetChanged".
 */
export interface BudgetChanged {
  at: number;
  budget: {
    [k: string]: unknown;
  };
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "BudgetChanged";
}
/**
 * What people have asked to remember for this session from now on, all of it, the latest last.
 *
 * Between runs, `run_id` is the run that began last.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "RulesChanged".
 */
export interface RulesChanged {
  at: number;
  rules: Rule[];
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "RulesChanged";
}
/**
 * What happens to calls of some tools: `Rule("send_*", "deny", {"to": "*@rival.example"})`.
 *
 * tool     a glob over tool names
 * verdict  "allow", "deny" or "ask"
 * where    names of arguments and globs over their text (other values as JSON writes them); all must match. Upper and
 *          lower case differ
 * reason   what the person and the model are told
 * tainted  whether an allow holds also after the model has read untrusted output
 *
 * UsageError for anything else.
 *
 * >>> Rule("mail", "alow")
 * Traceback (most recent call last):
 *     ...
 * turncell.errors.UsageError: rule for 'mail': verdict is 'alow'; use 'allow', 'deny' or 'ask'
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Rule".
 */
export interface Rule {
  reason: string;
  tainted: boolean;
  tool: string;
  verdict: "allow" | "deny" | "ask";
  where: {
    [k: string]: string;
  };
}
/**
 * What the sources have found; it stands in front of the run's prompt. `tokens` are estimated.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Retrieved".
 */
export interface Retrieved {
  at: number;
  passages: Passage[];
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  tokens: number;
  type: "Retrieved";
}
/**
 * A piece of text that a source has found for a prompt.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Passage".
 */
export interface Passage {
  is_trusted: boolean;
  priority: number;
  score: number | null;
  source: string;
  text: string;
}
/**
 * From this step on the results of these calls are told as their head, and these passages not at all.
 *
 * A passage is named by its run and its number there, 0 ... Tokens are estimated, of all that is sent.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Pruned".
 */
export interface Pruned {
  at: number;
  call_ids: string[];
  head_chars: number;
  passages: [unknown, unknown][];
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  tokens_after: number;
  tokens_before: number;
  type: "Pruned";
}
/**
 * From this step on all up to and with the unit (`upto_run_id`, `upto_step`) but the floor is told as the summary.
 *
 * It holds where the runs of the conversation up to there are those of `covers`. Without a `model` the summary only
 * says what was left out. Usage and cost are of all model calls that were made for it.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Compacted".
 */
export interface Compacted {
  at: number;
  cost_basis: "provider" | "prices" | "user" | "none";
  cost_usd: number | null;
  covers: string[];
  model: string;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  summary: string;
  tokens_after: number;
  tokens_before: number;
  type: "Compacted";
  upto_run_id: string;
  upto_step: number;
  usage: Usage1;
}
/**
 * Tokens of one model call. None is unknown, which is not zero.
 *
 * `input_tokens` includes what was read from and written to the provider's cache; `output_tokens` includes
 * `reasoning_tokens`. `is_estimated`: some of the counts were estimated here, not said by the provider.
 */
export interface Usage1 {
  cache_read_tokens: number | null;
  cache_write_tokens: number | null;
  input_tokens: number | null;
  is_estimated: boolean;
  output_tokens: number | null;
  reasoning_tokens: number | null;
}
/**
 * From now on the conversation consists of the runs of `path`; nothing is erased. `run_id` is the run it is about.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Arranged".
 */
export interface Arranged {
  at: number;
  path: string[];
  reason: "undo" | "redo" | "branch";
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "Arranged";
}
/**
 * The run goes on after its program ended: what was open is at rest, and in doubt where a write had begun.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Resumed".
 */
export interface Resumed {
  at: number;
  run_id: string;
  seq: number;
  session_id: string;
  step: number;
  type: "Resumed";
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
  text: string | null;
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
  data: {
    [k: string]: unknown;
  };
  run_id: string;
  step: number;
  text: string;
  type: "CallProgress";
}
/**
 * The model cannot be called yet: the library that calls it is being imported, once in a process, for seconds.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "WarmingUp".
 */
export interface WarmingUp {
  run_id: string;
  step: number;
  type: "WarmingUp";
}
/**
 * How long something took, as it happens; only where it was asked for (`debug_latency`).
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Latency".
 */
export interface Latency {
  call_id: string;
  kind: "first_token" | "gap" | "model" | "call" | "waiting";
  run_id: string;
  seconds: number;
  step: number;
  type: "Latency";
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
/**
 * The code of a library, for a page that has no other way to it.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Code".
 */
export interface Code {
  code: string;
  library: string;
  sheet: string;
  type: "code";
}
/**
 * The JSON Schema of what an approval is about, for the form that edits it. Not for each: a large one is not sent.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Parameters".
 */
export interface Parameters {
  request_id: string;
  schema: {
    [k: string]: unknown;
  };
  type: "parameters";
}
/**
 * A run that was started inside a call, and again when its status or its step changes.
 *
 * Who wants to see all of it says `ready` in an envelope (`Of`), and is told it there.
 *
 * This interface was referenced by `Wire`'s JSON-Schema
 * via the `definition` "Child".
 */
export interface Child {
  agent: string;
  call_id: string;
  prompt: string;
  run_id: string;
  status:
    | ("running" | "waiting" | "interrupted" | "in_doubt")
    | ("completed" | "failed" | "cancelled" | "max_steps" | "budget" | "timeout" | "truncated");
  steps: number;
  type: "child";
}

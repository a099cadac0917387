/** How a run is put into words: times, tokens, costs, states. Pure functions. */
import type { Store } from "../store";
import type { CallState, RequestState, RunView, Usage } from "../wire";

/** "0.4 s", "14.2 s", "1 min 5 s", "2 h 3 min". */
export function duration(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 59.95) return `${s.toFixed(1)} s`;
  return long(Math.round(s));
}

/** The same in whole seconds, for what was timed by eye: "6 s". */
export function roughly(seconds: number): string {
  const s = Math.max(1, Math.round(seconds));
  return s < 60 ? `${s} s` : long(s);
}

function long(s: number): string {
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export function count(n: number): string {
  if (n < 1000) return String(n);
  if (n < 999_500) return `${trim((n / 1000).toFixed(1))}k`;
  return `${trim((n / 1_000_000).toFixed(1))}M`;
}

function trim(text: string): string {
  return text.replace(/\.0$/, "");
}

/** "840 B", "12.5 kB", "3.1 MB". */
export function bytes(n: number): string {
  if (n < 1000) return `${n} B`;
  return n < 999_950 ? `${trim((n / 1e3).toFixed(1))} kB` : `${trim((n / 1e6).toFixed(1))} MB`;
}

/** An answer to a question as it is read: those to one that allows many are a JSON list on the wire. */
export function answerText({ allows_many }: RequestState, result: string): string {
  if (!allows_many) return result;
  try {
    const answers: unknown = JSON.parse(result);
    return Array.isArray(answers) ? answers.join(", ") : result;
  } catch {
    return result;
  }
}

/** Who gave an answer and what, as a sentence without its end; of a request that was taken back, why. */
export function answered(request: RequestState): string {
  const { by, answer } = request;
  if (by === "cancel" || by === "steering") return "Taken back before anybody answered";
  const who = (by !== null && BY[by]) || "Somebody";
  if (request.kind === "in_doubt") return `${who} ${(answer && IN_DOUBT[answer]) || "skipped this call"}`;
  const did = answer === "result" ? "answered" : (answer && DID[answer]) || "declined";
  const what = request.kind === "question" || request.name === "" ? "" : ` ${request.name}`;
  return `${who} ${request.kind === "question" && answer === "deny" ? "declined to answer" : `${did}${what}`}`;
}

const BY: Readonly<Partial<Record<NonNullable<RequestState["by"]>, string>>> = {
  person: "You",
  unattended: "The unattended policy",
  "time limit": "The time limit",
  memory: "An earlier answer",
  limit: "The limit of questions",
  file: "A person, as the imported file says,",
};
const IN_DOUBT: Readonly<Partial<Record<string, string>>> = {
  approve: "had this call run again",
  result: "said that it had happened",
};
const DID = { approve: "approved", edit: "edited", deny: "denied", result: "answered" };

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** How many; the model call that only sums up, because the limit of steps was reached, is told by itself. */
export function stepsOf(run: RunView): string {
  const hasSummary = run.steps.some((step) => step.after.some(({ by }) => by === "limit"));
  return plural(run.steps.length - Number(hasSummary), "step") + (hasSummary ? " and a summary" : "");
}

export function cost(usd: number | null): string {
  if (usd === null) return "cost unknown";
  if (usd === 0) return "$0";
  return usd < 0.001 ? `$${usd.toPrecision(1)}` : `$${usd.toFixed(usd < 10 ? 3 : 2)}`;
}

/** "12.4k in (9.8k cached)", "1.2k out"; nothing for what no provider has said. */
export function tokens(usages: readonly Usage[]): string[] {
  const sum = (name: "input_tokens" | "output_tokens" | "cache_read_tokens"): number | null => {
    const known = usages.map((usage) => usage[name]).filter((n) => n !== null);
    return known.length === 0 ? null : known.reduce((a, b) => a + b, 0);
  };
  const about = usages.some((usage) => usage.is_estimated) ? "about " : "";
  const [input, output, cached] = [sum("input_tokens"), sum("output_tokens"), sum("cache_read_tokens")];
  const words: string[] = [];
  if (input !== null) words.push(`${about}${count(input)} in${cached ? ` (${count(cached)} cached)` : ""}`);
  if (output !== null) words.push(`${about}${count(output)} out`);
  return words;
}

/** US dollars of all steps and summaries; null as soon as one is unknown. */
export function totalCost(run: RunView): number | null {
  let total = 0;
  for (const { cost_usd } of [...run.steps, ...run.summaries]) {
    if (cost_usd === null) return null;
    total += cost_usd;
  }
  return run.steps.length === 0 ? null : total;
}

interface Limit {
  readonly text: string;
  /** Spent of the limit; 0 where nobody knows what was spent. */
  readonly share: number;
}

/** What is spent of what was allowed: "$0.040 of $0.50", "4 of 10 steps". */
export function budget(run: RunView): string[] {
  return limits(run).map(({ text }) => text);
}

/** How much of the limit that is nearest, 1 for all of it; null where there is none. */
export function usedUp(run: RunView): number | null {
  const shares = limits(run).map(({ share }) => share);
  return shares.length === 0 ? null : Math.max(...shares);
}

function limits(run: RunView): Limit[] {
  const limit = (name: string): number | null => {
    const value: unknown = run.budget?.[name];
    return typeof value === "number" ? value : null;
  };
  const [usd, most, steps] = [limit("usd"), limit("tokens"), limit("steps")];
  // What a step costs is known when it has ended; until then it is not unknown.
  const costs = [...run.steps.filter((step) => step.duration_s !== null), ...run.summaries].map(
    (one) => one.cost_usd,
  );
  const spent = costs.includes(null) ? null : costs.reduce<number>((sum, usd) => sum + (usd ?? 0), 0);
  const used = [...run.steps, ...run.summaries].reduce(
    (sum, { usage }) => sum + (usage.input_tokens ?? 0) + (usage.output_tokens ?? 0),
    0,
  );
  const of = (text: string, part: number, whole: number): Limit => ({
    text,
    share: whole > 0 ? part / whole : 1,
  });
  return [
    usd !== null && of(`${cost(spent)} of ${usd < 0.01 ? cost(usd) : `$${usd.toFixed(2)}`}`, spent ?? 0, usd),
    most !== null && of(`${count(used)} of ${count(most)} tokens`, used, most),
    steps !== null && of(`${run.steps.length} of ${plural(steps, "step")}`, run.steps.length, steps),
  ].filter((limit) => limit !== false);
}

/** "Thought for 6 s, used 3 tools, 1 approved by you", or "" for a run without steps to speak of. */
export function summary(run: RunView, store: Store): string {
  const calls = run.steps.flatMap((step) => step.calls);
  const thoughts = run.steps.flatMap((step) => step.blocks.filter((block) => block.kind === "reasoning"));
  const times = thoughts.map((block) => store.thoughtFor(block));
  const thought = times.some((time) => time === null)
    ? null
    : times.reduce<number>((a, b) => a + (b ?? 0), 0);
  const used = calls.filter((call) => call.started_at !== null || call.status === "ok").length;
  const steered = run.steps.flatMap((step) => step.after).filter(({ by }) => by === "steering").length;
  const mine = calls.flatMap(({ request }) => (request?.by === "person" ? [request] : []));
  const settled = mine.filter(({ kind }) => kind === "in_doubt").length;
  const byYou = (answer: string): number =>
    mine.filter((request) => request.kind !== "in_doubt" && request.answer === answer).length;
  const denied = calls.filter((call) => call.status === "denied" && call.request?.by === "person").length;
  const words = [
    thoughts.length > 0 && (thought === null ? "thought" : `thought for ${roughly(thought)}`),
    used > 0 && `used ${plural(used, "tool")}`,
    byYou("approve") > 0 && `${byYou("approve")} approved by you`,
    byYou("edit") > 0 && `${byYou("edit")} edited by you`,
    byYou("result") > 0 && `${byYou("result")} answered by you`,
    settled > 0 && `${settled} in doubt settled by you`,
    // A question is declined, which is no denial.
    denied > 0 && `${denied} denied by you`,
    steered > 0 && `${plural(steered, "message")} from you`,
    calls.some((call) => isFailure(call)) && `${plural(calls.filter(isFailure).length, "call")} failed`,
  ].filter((word) => word !== false);
  // Text between steps alone is worth a fold, too.
  const text = words.length > 0 ? words.join(", ") : plural(run.steps.length, "step");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function isFailure(call: CallState): boolean {
  return call.status === "error" || call.status === "invalid" || call.status === "timeout";
}

export type Tone = "running" | "waiting" | "done" | "error" | "stopped";

/** How an ended (or suspended) run reads in the head, and in which tone. */
export function ending(run: RunView): { who: string; tone: Tone } {
  switch (run.status) {
    case "completed":
      return { who: "Done", tone: "done" };
    case "failed":
      return { who: "Stopped by an error", tone: "error" };
    case "cancelled":
      return { who: run.is_imported ? "No answer" : "Stopped", tone: "stopped" };
    case "max_steps":
      return { who: "Stopped at the step limit", tone: "stopped" };
    case "budget":
      return { who: "Stopped at the budget", tone: "stopped" };
    case "timeout":
      return { who: "Stopped at the time limit", tone: "stopped" };
    case "truncated":
      return { who: "Cut off", tone: "error" };
    case "interrupted":
      return { who: "Interrupted", tone: "stopped" };
    case "in_doubt":
      return { who: "In doubt", tone: "waiting" };
    case "waiting":
      return { who: "Waiting for you", tone: "waiting" };
    default:
      return { who: "Working", tone: "running" };
  }
}

/** Why a call did not run: a sentence, and the reason that was given. Null for calls that ran. */
export function refusal(call: CallState): { text: string; reason: string } | null {
  if (call.status === "invalid") return { text: "This call could not run", reason: call.problem ?? "" };
  const { request } = call;
  if (call.status === "skipped") {
    const text = request?.kind === "in_doubt" ? answered(request) : "This call was not run";
    return { text, reason: (call.content ?? "").replace(/^skipped: /, "") };
  }
  if (call.status !== "denied") return null;
  if (request === null || request.by === null)
    return { text: `Denied by ${call.judged_by || "a rule"}`, reason: call.reason };
  if (request.by === "person") return { text: "You denied this call", reason: request.reason };
  if (request.by === "unattended")
    return { text: "Denied, because nobody was there to ask", reason: request.reason };
  if (request.by === "time limit")
    return { text: "Denied, because nobody answered in time", reason: request.reason };
  return { text: "Denied", reason: request.reason };
}

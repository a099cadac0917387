/** A page with every state of a run; `node test/gallery.mjs` makes pictures of it. Not part of the bundle. */
import type { Event } from "../src/fold";
import { journals } from "./journals";
import { KitModel, showPart } from "./kit";
import { FakeModel, show } from "./model";
import { scenes } from "./scenes";
import { Script } from "./script";

function cell(title: string): HTMLElement {
  const head = document.createElement("h6");
  head.textContent = title;
  const out = document.createElement("div");
  out.className = "out";
  document.body.append(head, out);
  return out;
}

function play(title: string, events: readonly Event[], now: number): HTMLElement {
  const model = new FakeModel();
  const { root } = show(cell(title), [], model);
  model.emit({ type: "parameters", request_id: "ask-call-1-0", schema });
  const time = (event: Event): number | null => ("at" in event ? event.at : null);
  let at = 1_700_000_000;
  // Passing events have no time of their own; they come at even paces until the next one that has.
  events.forEach((event, index) => {
    const known = time(event);
    if (known !== null) at = known;
    else {
      const rest = events.slice(index);
      const next = rest.findIndex((each) => time(each) !== null);
      const until = next < 0 ? now : (time(rest[next] as Event) ?? now);
      at += (until - at) / ((next < 0 ? rest.length : next) + 1);
    }
    model.events([event], at);
  });
  model.events([], now);
  return root;
}

const click = (root: HTMLElement, text: string): void => {
  for (const button of root.querySelectorAll("button"))
    if (button.textContent?.startsWith(text)) button.click();
};
const open = (root: HTMLElement): void => {
  for (const details of root.querySelectorAll("details")) details.open = true;
};

const asks = new Script("How were the sales?").step().call("query_duckdb", {
  ...{
    sql: "select region, sum(amount)\nfrom sales -- all\ngroup by 1",
    limit: 20,
    format: "csv",
    columns: ["region"],
  },
});
asks.finish().propose("read", "ask").ask("Reads the database of the shop.");
const sql = { type: "string", description: "One statement of DuckDB." };
const schema = {
  ...{ type: "object", required: ["sql", "limit"] },
  properties: {
    ...{ sql, limit: { type: "integer", minimum: 1 }, format: { enum: ["csv", "json"] } },
    ...{ columns: { type: "array" }, title: { type: "string", default: "Sales" } },
  },
};

/** A run inside a call, opened; and a tool's HTML. */
function inner(): void {
  const script = new Script("What do the papers say?").step().call("research", { topic: "refunds" });
  const model = new FakeModel();
  const { root } = show(cell("A run inside a call, opened"), script.finish().propose().start().events, model);
  const told = { type: "child", call_id: "call-1-0", run_id: "run_2", agent: "librarian", steps: 2 };
  model.emit({ ...told, prompt: "Find what the papers of 2025 say about refunds.", status: "running" });
  model.emit({ ...told, run_id: "run_3", prompt: "The same for 2024.", status: "completed" });
  root.querySelector<HTMLElement>(".tc-inner summary")?.click();
  setTimeout(() => {
    const { events, now } = scenes.Done?.() ?? new Script("x");
    model.emit({ type: "of", run_id: "run_2", content: { type: "events", seq: 0, events, now } });
  }, 100);
  const html = "<h2>Report</h2><table border=1><tr><td>a<td>b</table>";
  const plot = new Script("Plot").step().call("plot", {}).finish().propose().start();
  const shown = play(
    "HTML of a tool",
    plot.returned("done", "ok", 1, null, 0, { display: [{ "text/html": html }] }).events,
    plot.now,
  );
  open(shown);
  click(shown, "Show HTML");
}

const page = new URLSearchParams(location.search).get("page") ?? "scenes";
if (page === "kit") {
  const run = (name: string): readonly Event[] => scenes[name]?.().events ?? [];
  const figures = { input_tokens: 12400, output_tokens: 1200, cached_tokens: 9800, cost_usd: 0.47, steps: 4 };
  const status = {
    runs_count: 2,
    pending: 2,
    status: "waiting",
    budget: { usd: 0.5, steps: 10, tokens: 200_000 },
    spent: { usd: 0.47, steps: 4, tokens: 13_600 },
  };
  const model = new KitModel({ runs: ["a", "b"], placeholder: "Ask the agent", ...figures, ...status });
  for (const name of ["Chat", "UsageMeter", "Approvals"]) showPart(cell(name), name, model);
  model.play("a", run("Done"));
  model.play("b", run("Two requests"));
  const session = (session_id: string, title: string, left = ""): object => ({
    ...{ session_id, title, left, runs: 3, updated_at: 1_763_700_000 },
  });
  const of = (run_id: string, depth: number, prompt: string, is_told = true): object => ({
    ...{ run_id, depth, prompt, is_told, status: "completed" },
  });
  const sessions = [session("s1", "West sales"), session("s2", "Clean up", "interrupted"), session("s3", "")];
  const tree = [of("a", 0, "Why did West sales drop in Q3?"), of("b", 1, "Only store 114?", false)];
  const chosen = { selected: "s1", selected_run: "a", has_chat: true };
  const browser = new KitModel({ sessions, tree: [...tree, of("c", 1, "Mail both")], ...chosen });
  showPart(cell("SessionBrowser"), "SessionBrowser", browser);
  const rows = [
    ["Why did West sales drop in Q3?", "completed", "1,204", "0.0031"],
    ["Clean up the export folder", "waiting", "388", ""],
    ["Mail both", "failed", "", ""],
  ];
  const columns = ["prompt", "status", "tokens", "cost_usd"];
  const review = new KitModel({ columns, rows, rows_count: 3, selected: 0, shown: 0, runs: ["a"] });
  showPart(cell("Review"), "Review", review);
  review.play("a", scenes.Done?.().events ?? []);
} else if (page === "journals") {
  for (const [name, { events }] of Object.entries(journals)) {
    const last = events.reduce((at, event) => ("at" in event ? event.at : at), 0);
    play(
      name,
      events.map((event) => structuredClone(event)),
      last,
    );
    if (name === "streaming" || name === "waiting") continue;
    const half = events.slice(0, Math.ceil(events.length / 2)).map((event) => structuredClone(event));
    play(`${name}, half way`, half, last);
  }
} else {
  for (const [name, script] of Object.entries(scenes)) {
    const { events, now } = script();
    const root = play(name, events, now);
    if (name.startsWith("Steps") || name.startsWith("Edited") || name.startsWith("Answered")) open(root);
    if (name !== "Approval") continue;
    const edit = play("Approval, editing the arguments", script().events, now);
    const deny = play("Approval, denying with a reason", script().events, now);
    const form = play("Approval, editing in fields", asks.events, now);
    inner();
    setTimeout(() => {
      click(edit, "Edit");
      click(form, "Edit");
      click(deny, "Deny");
      const reason = deny.querySelector("textarea");
      if (reason !== null) reason.value = "Keep the 2025 files, finance still needs them.";
    }, 700);
  }
}

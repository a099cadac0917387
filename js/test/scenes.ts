/** The states of a run that the design shows, for the gallery and for the tests of accessibility. */
import { Script } from "./script";

const CSV = [
  "order_id,store,region,order_date,amount",
  ...Array.from({ length: 1481 }, (_, i) => `${100234 + i},114,West,2025-08-14,${i % 3 ? "" : "48.20"}`),
];
const THOUGHT =
  "The sales file has a `region` column, but the question asks for quarters, so I need to parse `order_date` first.\n\nThere are 312 rows with an empty `amount`. Dropping them would bias the West region, because 280 of them come from one store. I will check whether the refunds table explains the gap before";
const ANSWER = `West fell **18%** against Q2, and one store explains most of it. Store 114 has 280 orders without an \`amount\`. All of them were refunded after the payment outage on [14 August](https://example.com/incident).

| Region | Q2 | Q3 | Change |
|---|--:|--:|--:|
| North | 412,300 | 431,900 | +4.8% |
| South | 388,120 | 391,400 | +0.8% |
| West | 295,640 | 242,310 | −18.0% |

### Reproduce it

\`\`\`python
import duckdb
west = duckdb.sql("select * from 'data/sales.csv' where region = 'West'").df()
west["amount"].isna().groupby(west.store).sum().nlargest(3)  # store 114 leads
\`\`\`

- Without store 114 the region is flat (−0.6%).
- The refunds are dated, so Q4 is not affected.

![chart](https://cdn.example.net/west.png)
`;
const QUERY =
  "SELECT region, date_trunc('quarter', order_date) AS q, sum(amount)\nFROM sales LEFT JOIN refunds USING (order_id)\nWHERE region = 'West' AND order_date >= '2025-01-01'\nGROUP BY ALL";

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAHgAAAAwAQMAAADgoSyQAAAABlBMVEX///8LV9AqviXYAAAAJklEQVR42mNgIAX8/0MzPphJUz7//wPk8aFGDSAfzBwYPoI5LPkA9rhkIHzRxV4AAAAASUVORK5CYII=";

export const asking = (): Script =>
  new Script("Write the report").step().call("ask_user", { question: "…" }).finish().propose().start();
const why = (): Script => new Script("Why did West sales drop in Q3?").wait(1).step();
const read = (script: Script): Script =>
  script
    .call("read_file", { path: "data/sales.csv", limit: 2000 })
    .finish()
    .propose()
    .start()
    .returned(CSV.join("\n"));
const clean = (): Script => {
  const script = new Script("Clean up the export folder")
    .wait(2)
    .step()
    .call("list_dir", { path: "exports/" });
  return script.finish().propose().start().returned("tmp\nfinal.csv").wait(2).step();
};
const shell = (): Script => {
  const script = clean().call("run_shell", {
    command: "rm -rf exports/tmp && du -sh exports",
    cwd: "/home/ana/report",
  });
  return script.finish().propose("write", "ask").ask("Runs a command on this computer and can change files.");
};
const steps = (): Script => {
  const script = read(why().think(THOUGHT, 6))
    .step()
    .call("query_duckdb", { query: "SELECT region, date, amt FROM sales" });
  script.finish().propose().start();
  script.returned(
    'Binder Error: Referenced column "amt" not found in FROM clause!\nCandidate bindings: "sales.amount"',
    "error",
    0.4,
    {
      traceback:
        'Traceback (most recent call last):\n  File "<cell>", line 1\n\u001b[31mBinderError\u001b[0m: amt',
    },
  );
  script
    .step()
    .call("run_shell", { command: "rm -rf exports/tmp" })
    .finish()
    .propose("write", "ask")
    .ask("Runs a command.");
  return script
    .answer("deny", "Keep the 2025 files, finance still needs them.")
    .returned("denied", "denied", 0);
};

export const inDoubt = (): Script => {
  const script = new Script("Mail Ana").step().say("I will write to her.");
  script.call("mail", { to: "ana@example.org", body: "The numbers are in." }).finish();
  return script.propose("write", "ask").ask("Sends a mail.").answer("approve").start().restart(0);
};

export const scenes: Readonly<Record<string, () => Script>> = {
  Thinking: () => why().think(THOUGHT, 6),
  "Streaming a tool call": () =>
    read(why().think(THOUGHT, 6))
      .step()
      .say(
        "The amounts are missing for one store only. I will join the refunds to see whether they explain it.\n",
      )
      .call("list_tables", {})
      .call("query_duckdb", { query: QUERY }, 190),
  "Streaming the answer": () =>
    read(why().think(THOUGHT, 6))
      .step()
      .say(
        "West fell 18% against Q2. Most of it comes from store 114, where 280 orders have no amount and the refunds table shows",
      ),
  "Running with progress": () =>
    why()
      .call("train_model", { epochs: 20, data: "sales" })
      .finish()
      .propose()
      .start()
      .wait(12)
      .progress("epoch 7 of 20, loss 0.231"),
  Approval: shell,
  "Approval with a preview and hidden characters": () =>
    clean()
      .call("write_file", {
        path: "notes/\u202egpj.exe",
        text: "Dear Ana,\n\nthe\u200b numbers are in.\n",
        overwrite: true,
        mode: "0644",
      })
      .finish()
      .propose("write", "ask")
      .ask(
        "Writes a file.",
        "--- notes/a.md\n+++ notes/a.md\n@@ -1 +1,3 @@\n-Hello\n+Dear Ana,\n+\n+the numbers are in.",
        240,
      ),
  "Two requests": () =>
    new Script("Mail both")
      .step()
      .say("I will write to both of them.")
      .call("mail", { to: "ana@example.org", body: "The numbers are in." })
      .call("mail", { to: "bo@example.org", body: "The numbers are in." })
      .finish()
      .propose("write", "ask")
      .ask("Sends a mail."),
  Done: () => {
    const script = steps()
      .step()
      .call("run_shell", { command: "du -sh exports" })
      .finish()
      .propose("write", "ask")
      .ask("x");
    script.answer("approve").start().returned("12M\texports").step().say(ANSWER, 4);
    return script.finish("stop").end();
  },
  "Steps, with an error and a denial": () =>
    steps().step().fail("cancelled", "stopped by you").end("cancelled", null, "stopped by you"),
  "Edited, unattended, denied by a rule": () => {
    const script = clean()
      .call("run_shell", { command: "rm -rf exports" })
      .finish()
      .propose("write", "ask")
      .ask("Runs a command.");
    script.answer("edit", "", { command: "rm -rf exports/tmp" }).start().returned("done", "ok", 1.3);
    script.step().call("mail", { to: "ana@example.org" }).finish().propose("write", "ask").ask("Sends.");
    script.answer("deny", "", null, "unattended").returned("denied", "denied", 0);
    script
      .step()
      .call("fetch", { url: "https://example.org" })
      .finish()
      .propose("read", "deny", "no network in this project");
    return script.returned("denied", "denied", 0).step().say("Cleaned.").finish("stop", null).end();
  },
  "Provider error": () =>
    read(why())
      .step()
      .fail("overloaded", "The provider answered 529 after 3 tries.")
      .end("failed", "overloaded", "The provider answered 529 after 3 tries."),
  "Stopped by the user": () =>
    new Script("Tell me about the log")
      .step()
      .say("The log has three phases. In the first, the scheduler")
      .fail("cancelled", "stopped")
      .end("cancelled", null, "stopped by you"),
  "Out of steps": () => read(why()).end("max_steps"),
  "In doubt": inDoubt,
  "A question": () =>
    asking().question("Which quarter should the report cover?", {
      options: [
        { label: "Q3 2025", description: "The last one that is complete." },
        { label: "Q4 2025", description: "Until yesterday; the numbers of December are estimates." },
        { label: "Both", description: "" },
      ],
      allows_text: true,
      expires_at: 1_700_000_240,
      default_result: "Q3 2025",
    }),
  "A question with several answers": () =>
    asking().question("Who should get the report?", {
      options: [
        { label: "Ana", description: "finance" },
        { label: "Bo\u202e", description: "on leave until Monday" },
      ],
      allows_many: true,
    }),
  "A question with a free answer": () => asking().question("What is the title?", { allows_text: true }),
  "A call of a sub-agent": () =>
    new Script("What do the papers say?")
      .step()
      .call("research", { topic: "refunds" })
      .finish()
      .propose()
      .start()
      .progress("step 2: fetch")
      .inner("fetch", { url: "https://example.org/refunds", depth: 2 }, "Loads a page."),
  "Answered and shown": () => {
    const script = asking().question("Which quarter?", { options: [{ label: "Q3", description: "" }] });
    script.answer("result", "", null, "person", 0, "Q3").returned("Q3").step();
    script.call("plot", { column: "amount" }).finish().propose("write").start();
    return script
      .returned("plotted", "ok", 1.2, null, 0, {
        files: [
          { path: "out/orders.csv", bytes: 12_480, media_type: "text/csv" },
          { path: "out/orders.png", bytes: null, media_type: "" },
        ],
        display: [
          { "image/png": PNG, "text/plain": "orders by region" },
          {
            "application/vnd.turncell.table+json": {
              columns: ["region", "orders", "share"],
              rows: [
                ["North", 431900, 0.41],
                ["South <b>", 391400, 0.37],
                ["West", 242310, null],
              ],
              shape: [3120, 3],
            },
          },
        ],
      })
      .step()
      .say("There it is.")
      .finish("stop")
      .end("completed");
  },
  "Steered, with notes": () => {
    const script = new Script("Mail both")
      .step()
      .note("retry", "overloaded: 529; trying again in 0.5 s")
      .note("retry", "overloaded: 529; trying the next model")
      .choose("gpt-5-mini", "small")
      .say("I will write to both of them.")
      .call("mail", { to: "ana@example.org" })
      .call("mail", { to: "bo@example.org" })
      .finish()
      .propose("write", "ask")
      .ask("Sends a mail.")
      .note("rule", "allow mail, session")
      .answer("approve")
      .start();
    script.steer("Not Bo, he is on leave.").answer("deny", "a new message arrived", null, "steering", 1);
    script.returned("skipped: a new message arrived", "skipped", 0, null, 1);
    script.returned("sent").note("hook", "after_step log: OSError: disk full");
    script.told("Not Bo, he is on leave.", "steering", "inp_1").step().say("Ana has it.").finish("stop");
    script.note("output", "the output is no Report: 1 field is missing");
    script.told("Answer as a Report with the field total.", "output").step();
    return script.say("Total: 1").steer("Thanks, and tell me the time.", "inp_2");
  },
  "Stopped by the budget": () =>
    read(why())
      .step()
      .say("West fell")
      .fail("budget", "used up")
      .end("budget", "budget", "0.03 USD are used up."),
  "Closed by a step policy": () =>
    read(why()).end(
      "max_steps",
      "max_steps",
      "stopped by the step policy of this run",
      "That is <b>enough</b>.",
    ),
  "Trying again, with a budget": () =>
    read(why().limit({ usd: 0.5, steps: 10 }))
      .step()
      .retry(4)
      .wait(1),
  "Images of the model, after a summary": () =>
    new Script("Draw a dashboard")
      .step()
      .summarised()
      .say("Here is the sketch, and one that is hosted elsewhere.")
      .draw(PNG)
      .draw("https://images.example.org/a.png", null)
      .finish("stop")
      .end("completed"),
};

import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import "../src/kit/style.css";
import { KitModel, showPart } from "./kit";
import { scenes } from "./scenes";
import { named, place, steady } from "./stage";

let dispose = (): void => {};
afterEach(() => dispose());

function show(name: string, traits: Record<string, unknown>): KitModel {
  const model = new KitModel(traits);
  dispose = showPart(place, name, model);
  return model;
}

const events = (name: string) => scenes[name]?.().events ?? [];
const words = (): string => place.textContent ?? "";

describe("a chat", () => {
  it("shows its runs in their order and keeps those that stay", () => {
    const model = show("Chat", { runs: ["a", "b"] });
    model.play("b", events("Approval"));
    model.play("a", events("Done"));
    const asked = (): (string | null)[] =>
      [...place.querySelectorAll(".tc-prompt")].map((p) => p.textContent);
    expect(asked()).toEqual(["Why did West sales drop in Q3?", "Clean up the export folder"]);
    const kept = place.querySelector(".tc-prompt");
    model.set("runs", ["a"]);
    expect(asked()).toEqual(["Why did West sales drop in Q3?"]);
    expect(place.querySelector(".tc-prompt")).toBe(kept);
  });

  it("sends what is typed with Enter, and a new line with Shift", async () => {
    const model = show("Chat", { runs: [], placeholder: "Ask" });
    const field = place.querySelector("textarea") as HTMLTextAreaElement;
    await userEvent.click(field);
    await userEvent.keyboard("one{Shift>}{Enter}{/Shift}two{Enter}");
    expect(model.sent).toEqual([{ type: "send", text: "one\ntwo" }]);
    expect(field.value).toBe("");
  });

  it("answers requests in the envelope of their run", async () => {
    const model = show("Chat", { runs: ["a"] });
    model.play("a", events("Approval"));
    await steady();
    await userEvent.click(named("Approve"));
    const answer = { type: "answer", decision: "approve", digest: "d-call-2-0" };
    expect(model.sent.at(-1)).toMatchObject({ type: "of", run_id: "a", content: answer });
  });

  it("says why something was not done", () => {
    const model = show("Chat", { runs: [] });
    model.set("problem", "the session is \u202ebusy");
    expect(place.querySelector("[role=alert]")?.textContent).toBe("the session is \\u202ebusy");
  });
});

it("the inbox shows what waits and nothing else of a run", () => {
  const model = show("Approvals", { runs: ["a"], pending: 2 });
  model.play("a", events("Two requests"));
  expect(words()).toContain("2 requests for you");
  expect(place.querySelectorAll(".tc-request")).toHaveLength(2);
  expect(words()).not.toContain("I will write to both of them.");
  model.set("pending", 0);
  model.set("runs", []);
  expect(words()).toBe("Nothing waits for you");
});

it("the meter says what is spent, in words and as a meter", () => {
  show("UsageMeter", {
    runs_count: 2,
    steps: 9,
    input_tokens: 900,
    cost_usd: null,
    budget: { usd: 0.5, steps: 10 },
    spent: { usd: null, steps: 4 },
  });
  expect(words()).toContain("2 runs9 steps900 incost unknown");
  const meters = [...place.querySelectorAll("[role=meter]")];
  expect(meters.map((meter) => meter.getAttribute("aria-valuetext"))).toEqual([
    "unknown of $0.500",
    "4 of 10",
  ]);
});

it("the browser chooses by its traits and asks for the rest", async () => {
  const sessions = [
    { session_id: "s1", title: "West <b>", runs: 1, updated_at: 1_763_700_000, left: "interrupted" },
  ];
  const tree = [{ run_id: "r1", depth: 0, prompt: "Why?", status: "completed", is_told: true }];
  const model = show("SessionBrowser", { sessions, tree, selected: "", selected_run: "", has_chat: true });
  expect(words()).toContain("West <b>");
  await userEvent.click(place.querySelector(".tc-entry") as HTMLElement);
  expect(model.get("selected")).toBe("s1");
  expect(document.activeElement?.getAttribute("aria-pressed")).toBe("true");
  await userEvent.click(named("Go on"));
  await userEvent.click(named("Branch here"));
  expect(model.sent).toEqual([
    { type: "resume", session_id: "s1" },
    { type: "branch", session_id: "s1", run_id: "r1" },
  ]);
});

describe("a review", () => {
  const rows = [
    ["Why?", "completed"],
    ["<b>Mail</b> \u202ethem", "failed"],
    ["Again", "cancelled"],
  ];
  const table = { columns: ["prompt", "status"], rows, rows_count: 1200, selected: -1, shown: -1, runs: [] };
  const chosen = (): (string | null)[] =>
    [...place.querySelectorAll("[aria-selected=true] td:first-child")].map((cell) => cell.textContent);

  it("shows the table as text, and the run that Python sends for the chosen row", async () => {
    const model = show("Review", table);
    expect([...place.querySelectorAll("th")].map((cell) => cell.textContent)).toEqual(["prompt", "status"]);
    expect(words()).toContain("<b>Mail</b> \\u202ethem");
    expect(words()).toContain("The first 3 of 1,200 rows");
    expect(words()).toContain("Choose a row");
    await userEvent.click(place.querySelector("td") as HTMLElement);
    expect([model.get("selected"), chosen()]).toEqual([0, ["Why?"]]);
    model.set("runs", ["a"]);
    model.play("a", events("Done"));
    const prompt = place.querySelector(".tc-prompt") as HTMLElement;
    expect(prompt.checkVisibility()).toBe(false);
    expect(words()).toContain("Its transcript comes when the kernel is free.");
    model.set("shown", 0);
    expect([prompt.textContent, prompt.checkVisibility()]).toEqual(["Why did West sales drop in Q3?", true]);
    model.set("runs", []);
    model.set("problem", "no run has begun for this row");
    expect(place.querySelector(".tc-prompt")).toBe(null);
    expect(place.querySelector("[role=alert]")?.textContent).toBe("no run has begun for this row");
  });

  it("goes through the rows by keys, and Tab stops once in them", async () => {
    const model = show("Review", table);
    const stops = (): number => place.querySelectorAll("tbody [tabindex='0']").length;
    await userEvent.tab();
    await userEvent.keyboard("{Enter}");
    expect([chosen(), stops()]).toEqual([["Why?"], 1]);
    await userEvent.keyboard("{ArrowDown}{ArrowDown}{ArrowDown}");
    expect([model.get("selected"), chosen(), stops()]).toEqual([2, ["Again"], 1]);
    expect(document.activeElement?.getAttribute("aria-selected")).toBe("true");
    await userEvent.keyboard("{Home}");
    expect(chosen()).toEqual(["Why?"]);
    model.set("selected", 1);
    expect(chosen()).toEqual(["<b>Mail</b> \\u202ethem"]);
  });
});

it.each(["Chat", "Approvals", "UsageMeter", "SessionBrowser", "Review"])(
  "%s has no fault that axe finds, and goes away without a trace",
  async (name) => {
    const model = show(name, {
      ...{ runs: ["a"], pending: 1, runs_count: 1, steps: 1, budget: { steps: 10 }, problem: "x" },
      sessions: [{ session_id: "s1", title: "West", runs: 1, updated_at: 1, left: "" }],
      tree: [{ run_id: "r1", depth: 0, prompt: "Why?", status: "completed", is_told: false }],
      ...{ columns: ["prompt"], rows: [["Why?"]], rows_count: 2 },
    });
    model.play("a", events("Approval"));
    const { violations } = await axe.run(place, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] });
    expect(violations.map(({ id, nodes }) => [id, nodes[0]?.html])).toEqual([]);
    for (const element of place.querySelectorAll("button, textarea, [tabindex]"))
      expect(element.getAttribute("data-lm-suppress-shortcuts"), element.outerHTML.slice(0, 80)).toBe("true");
    dispose();
    dispose = () => {};
    expect(place.childElementCount).toBe(0);
    expect(model.listeners).toBe(0);
  },
);

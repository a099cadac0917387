/** A run that goes on after its program ended, and the write of which nobody knows whether it has happened. */
import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import { journals } from "./journals";
import { inDoubt } from "./scenes";
import { FOR_EVER, field, HALF_A_SECOND, inertFor, named, place, play, stage, steady } from "./stage";

describe("a write in doubt", () => {
  it("stands on a card with its arguments, and with nothing that decides for longer than once", () => {
    play(inDoubt());
    const card = place.querySelector(".tc-ask");
    expect(card?.querySelector(".tc-title")?.textContent).toBe("In doubt: mail");
    expect(card?.textContent).toContain(
      "It had begun when the program ended; whether it has happened is not known.",
    );
    expect(card?.textContent).toContain("The numbers are in.");
    expect([...(card?.querySelectorAll(".tc-acts button") ?? [])].map((each) => each.textContent)).toEqual([
      "Run again",
      "It happened…",
      "Skip",
    ]);
    expect(card?.querySelector("select")).toBeNull();
    expect(place.querySelector('[role="alert"]')?.textContent).toBe("In doubt: mail");
    // Its line on the rail would say the same once more.
    const lines = [...place.querySelectorAll<HTMLElement>(".tc-step")].filter((line) => !line.hidden);
    expect(lines.map((line) => line.textContent)).toEqual(["The program was restarted"]);
  });

  it.each([
    ["Run again", { decision: "approve", result: null }],
    ["Skip", { decision: "deny", result: null }],
  ])("%s says so, after half a second", async (button, answer) => {
    inertFor(FOR_EVER);
    const { model } = play(inDoubt());
    await userEvent.click(named(button), { force: true });
    expect(model.sentOf("answer")).toEqual([]);
    inertFor(HALF_A_SECOND);
    await steady();
    await userEvent.click(named(button));
    const rest = {
      request_id: "doubt-call-1-0",
      digest: "d-doubt",
      arguments: null,
      reason: "",
      scope: "once",
    };
    expect(model.sentOf("answer")).toEqual([{ type: "answer", ...rest, ...answer }]);
  });

  it.each([
    ["  in the outbox ", "in the outbox"],
    ["", "done"],
  ])("has happened, with the result %j", async (written, result) => {
    const { model } = play(inDoubt());
    await steady();
    await userEvent.click(named("It happened…"));
    expect(document.activeElement).toBe(field());
    await userEvent.fill(field(), written);
    await steady();
    await userEvent.click(named("It happened"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "result", result, reason: "" }]);
  });

  it("that is skipped after all takes no word along from the field", async () => {
    const { model } = play(inDoubt());
    await steady();
    await userEvent.click(named("It happened…"));
    await userEvent.fill(field(), "in the outbox");
    await userEvent.keyboard("{Escape}");
    expect(document.activeElement).toBe(named("It happened…"));
    await steady();
    await userEvent.click(named("Skip"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "deny", result: null, reason: "" }]);
  });

  it.each([
    ["in_doubt_runs_again", "Used 1 tool, 1 in doubt settled by you", "You had this call run again."],
    ["in_doubt_has_happened", "Used 1 tool, 1 in doubt settled by you", "You said that it had happened."],
    ["in_doubt_is_skipped", "1 in doubt settled by you", "You skipped this call: The program ended"],
  ])("can be read later: %s", async (name, summary, words) => {
    stage(structuredClone(journals[name]?.events ?? []));
    expect(place.querySelector(".tc-fold > summary")?.textContent).toBe(summary);
    for (const details of place.querySelectorAll("details")) details.open = true;
    await expect.poll(() => place.querySelector(".tc-body")?.textContent).toContain(words);
  });
});

it("an approval that was open is asked again, as any other", async () => {
  const events = journals.interrupted_at_an_approval?.events ?? [];
  const until = events.map((event) => event.type).lastIndexOf("RequestOpened");
  const shown = stage(structuredClone(events.slice(0, until + 1)));
  await steady();
  await userEvent.click(named("Approve"));
  expect(shown.model.sentOf("answer")).toMatchObject([{ decision: "approve" }]);
});

it("what was being written stays, and what is written anew comes after it", () => {
  stage(structuredClone(journals.interrupted?.events ?? []));
  const work = place.querySelector(".tc-fold")?.textContent ?? "";
  expect(work.indexOf("Once upon a time. Once")).toBeGreaterThan(-1);
  expect(work.indexOf("The program was restarted")).toBeGreaterThan(work.indexOf("Once upon a time. Once"));
  expect(place.querySelector(".tc")?.textContent).not.toContain("Variables and open connections");
});

it.each([
  ["interrupted", "Interrupted"],
  ["in_doubt", "In doubt"],
] as const)("a run that is %s says so", (status, who) => {
  const { snapshot } = journals.in_doubt ?? {};
  if (snapshot === undefined) throw new Error("no journal");
  const shown = stage(journals.in_doubt?.events.slice(0, 1) ?? []);
  shown.model.takeOver({ ...structuredClone(snapshot), status });
  expect(place.querySelector(".tc-who")?.textContent).toBe(who);
});

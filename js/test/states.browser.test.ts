import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import { FakeModel } from "./model";
import { Script } from "./script";
import { FOR_EVER, HALF_A_SECOND, inertFor, named, place, play, scene, stage, steady } from "./stage";

const words = (): string => place.textContent ?? "";

describe("several approvals on one card", () => {
  it("are approved at once, each with its own digest and for this call only", async () => {
    inertFor(FOR_EVER);
    const { model } = scene("Two requests");
    named("Approve all").click();
    expect(model.sentOf("answer")).toEqual([]);
    inertFor(HALF_A_SECOND);
    await steady();
    await userEvent.click(named("Approve all"));
    const answers = model.sentOf("answer");
    expect(answers).toMatchObject([
      { decision: "approve", scope: "once" },
      { decision: "approve", scope: "once" },
    ]);
    expect(new Set(answers.map((answer) => answer.digest)).size).toBe(2);
  });

  it("leave out the one that is being edited", async () => {
    const { model } = scene("Two requests");
    await steady();
    await userEvent.click(named("Edit arguments"));
    await steady();
    await userEvent.click(named("Deny all"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "deny", digest: "d-call-1-1" }]);
  });

  it("are no question of all where there is one", () => {
    scene("Approval");
    expect(() => named("Approve all")).toThrow();
  });
});

it("an edit shows what it changes", async () => {
  scene("Approval");
  await steady();
  await userEvent.click(named("Edit arguments"));
  expect(words()).toContain("Nothing is changed yet");
  const editor = place.querySelector("textarea.tc-code-field") as HTMLTextAreaElement;
  await userEvent.fill(editor, '{"command": "ls", "cwd": "/home/ana/report"}');
  const lines = [...place.querySelectorAll(".tc-diff div")].map((line) => line.textContent);
  expect(lines).toEqual(["- command: rm -rf exports/tmp && du -sh exports", "+ command: ls"]);
});

describe("a run says", () => {
  it("when it tries again", async () => {
    const script = new Script("x").step();
    const { model } = stage(script.retry(50).events);
    model.events([], 1_700_000_003);
    await expect
      .poll(() => place.querySelector(".tc-who")?.textContent)
      .toMatch(/^Trying again in [1-4]\d s$/);
  });

  it("that it waits for its turn", () => {
    const { model } = stage([]);
    expect(place.querySelector(".tc")?.checkVisibility()).toBe(false);
    model.events([]);
    expect(words()).toContain("Waiting for its turn");
  });

  it("what it has spent of what it may", () => {
    scene("Trying again, with a budget");
    expect(words()).toContain("$0.010 of $0.50, 2 of 10 steps");
  });

  it("that it has summed up at the limit of its steps", () => {
    const script = new Script("Count.").step().say("1").finish().told("The limit is reached.", "limit");
    play(script.step().say("So far: 1.").finish().end("max_steps"));
    expect(words()).toContain("1 step and a summary");
  });

  it("that earlier messages were summarised, and shows what the model has drawn", () => {
    scene("Images of the model, after a summary");
    expect(words()).toContain("Earlier messages were summarised");
    const images = [...place.querySelectorAll("img")];
    expect(images.map((image) => image.src.slice(0, 22))).toEqual(["data:image/png;base64,"]);
    expect(words()).toContain("not loaded: https://images.example.org/a.png");
  });
});

describe("Try again", () => {
  class Retryable extends FakeModel {
    override get(name: string): unknown {
      return name === "retryable" ? true : super.get(name);
    }
  }
  const failed = new Script("x").step().fail("overloaded", "529").end("failed", "overloaded", "529");

  it("is there where somebody can show the new run, and asks for it", async () => {
    const { model } = stage(failed.events, new Retryable());
    await userEvent.click(named("Try again"));
    expect(model.sentOf("retry")).toEqual([{ type: "retry" }]);
  });

  it("is not there in a cell, which can be run again", () => {
    play(failed);
    expect(words()).not.toContain("Try again");
  });
});

it("code becomes a cell below, where the host has cells, and is not run", async () => {
  const inserted: [number, object][] = [];
  const insertCell = (at: number, cell: object): number => inserted.push([at, cell]);
  const model = Object.assign(new FakeModel(), {
    widget_manager: { context: { model: { sharedModel: { insertCell } } } },
  });
  place.className = "jp-Cell";
  place.dataset.windowedListIndex = "3";
  const script = new Script("x").step().say("```python\nprint(1)\n```\n").finish("stop").end("completed");
  stage(script.events, model);
  await userEvent.click(named("Insert cell"));
  expect(inserted).toEqual([[4, { cell_type: "code", source: "print(1)", metadata: {} }]]);
});

it("elsewhere code is only copied", () => {
  play(new Script("x").step().say("```python\nprint(1)\n```\n").finish("stop").end("completed"));
  expect(named("Insert cell").checkVisibility()).toBe(false);
});

import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import { applyEvent, emptyRun } from "../src/fold";
import { FakeModel, show } from "./model";
import { scenes } from "./scenes";
import { Script } from "./script";
import { FOR_EVER, HALF_A_SECOND, inertFor, named, place, scene, sleep, stage, steady } from "./stage";

describe("an approval", () => {
  it("is sent for what is on the screen, but not in the first half second", async () => {
    expect(HALF_A_SECOND).toBe(500);
    inertFor(FOR_EVER);
    const { model } = scene("Approval");
    // Without `force` the driver would wait until the button is enabled, as a person would.
    named("Approve").click();
    expect(model.sentOf("answer")).toEqual([]);
    inertFor(HALF_A_SECOND);
    await steady();
    await userEvent.click(named("Approve"));
    expect(model.sentOf("answer")).toEqual([
      {
        type: "answer",
        request_id: "ask-call-2-0",
        digest: "d-call-2-0",
        decision: "approve",
        arguments: null,
        reason: "",
        result: null,
        scope: "once",
      },
    ]);
  });

  it("says that it is on its way, once, until the event has come", async () => {
    const { model } = scene("Approval");
    await steady();
    await userEvent.dblClick(named("Approve"));
    const sent = named("Sent…");
    expect(sent.getAttribute("aria-disabled")).toBe("true");
    for (const button of place.querySelectorAll(".tc-ask button"))
      expect(button.getAttribute("aria-disabled")).toBe("true");
    expect(model.sentOf("answer")).toHaveLength(1);
    const now = { seq: 99, session_id: "ses_1", run_id: "run_1", step: 2, at: 1_700_000_020 };
    const answer = {
      answer: "approve",
      by: "person",
      reason: "",
      arguments: null,
      digest: "d",
      result: null,
      scope: "once",
    } as const;
    model.events([
      { ...now, type: "RequestAnswered", request_id: "ask-call-2-0", call_id: "call-2-0", ...answer },
    ]);
    expect(place.querySelector(".tc-request")).toBeNull();
    expect(sent.isConnected).toBe(false);
  });

  it("is not taken from buttons that have just moved", async () => {
    const { model } = scene("Approval");
    await steady();
    const push = document.createElement("div");
    push.style.height = "120px";
    place.prepend(push);
    named("Approve").dispatchEvent(new MouseEvent("click", { bubbles: true, detail: 1 }));
    expect(model.sentOf("answer")).toEqual([]);
    await steady();
    await userEvent.click(named("Approve"));
    expect(model.sentOf("answer")).toHaveLength(1);
  });

  it("never takes the focus by itself", async () => {
    const field = document.createElement("input");
    place.before(field);
    field.focus();
    scene("Two requests");
    await steady();
    expect(document.activeElement).toBe(field);
  });

  it("can be given with the keyboard alone", async () => {
    const { model } = scene("Approval");
    await steady();
    named("Approve").focus();
    await userEvent.keyboard("{Tab}");
    expect(document.activeElement).toBe(named("Deny…"));
    await userEvent.keyboard("{Enter}");
    expect(document.activeElement?.localName).toBe("textarea");
    await userEvent.keyboard("not now{Escape}");
    expect(document.activeElement).toBe(named("Deny…"));
    await steady();
    await userEvent.keyboard("{Enter}");
    // What was typed is still there.
    await steady();
    await userEvent.keyboard("{Control>}{Enter}{/Control}");
    expect(model.sentOf("answer")).toMatchObject([{ decision: "deny", reason: "not now", arguments: null }]);
  });

  it("can be denied with a reason", async () => {
    const { model } = scene("Approval");
    await steady();
    await userEvent.click(named("Deny…"));
    await userEvent.fill(place.querySelector("textarea") as HTMLElement, "Keep the 2025 files.");
    await steady();
    await userEvent.click(named("Deny"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "deny", reason: "Keep the 2025 files." }]);
  });

  it("can be given to edited arguments, if they are a JSON object", async () => {
    const { model } = scene("Approval");
    await steady();
    await userEvent.click(named("Edit arguments"));
    const editor = place.querySelector("textarea") as HTMLTextAreaElement;
    expect(JSON.parse(editor.value)).toEqual({
      command: "rm -rf exports/tmp && du -sh exports",
      cwd: "/home/ana/report",
    });
    await userEvent.fill(editor, '{"command": ');
    await steady();
    await userEvent.click(named("Run edited call"), { force: true });
    expect(editor.getAttribute("aria-invalid")).toBe("true");
    expect(model.sentOf("answer")).toEqual([]);
    await userEvent.fill(editor, '{"command": "ls"}');
    await steady(); // what the edit changes is shown now, and has moved the button
    await userEvent.click(named("Run edited call"));
    expect(model.sentOf("answer")).toMatchObject([
      { decision: "edit", arguments: '{"command": "ls"}', digest: "d-call-2-0", request_id: "ask-call-2-0" },
    ]);
  });

  it("that was refused says why and can be given again", async () => {
    const { model } = scene("Approval");
    await steady();
    await userEvent.click(named("Approve"));
    model.refuse({ request_id: "ask-call-2-0", problem: "it was for other arguments" });
    expect(place.querySelector(".tc-ask")?.textContent).toContain("Not taken: it was for other arguments");
    // The words have pushed the buttons down.
    await steady();
    await userEvent.click(named("Approve"));
    expect(model.sentOf("answer")).toHaveLength(2);
  });

  it("of one of several requests leaves the others and what was typed there", async () => {
    const { model } = scene("Two requests");
    await steady();
    await userEvent.click(named("Deny…", place, 1));
    await userEvent.fill(place.querySelector("textarea") as HTMLElement, "not to Bo");
    await steady();
    const first = place.querySelector(".tc-request") as HTMLElement;
    await userEvent.click(named("Approve", first));
    expect(model.sentOf("answer")).toMatchObject([{ request_id: "ask-call-1-0", decision: "approve" }]);
    expect(named("Deny").getAttribute("aria-disabled")).toBe("false");
    expect((place.querySelector("textarea") as HTMLTextAreaElement).value).toBe("not to Bo");
  });

  it("shows every hidden character and tells text from other values", () => {
    const values = { path: "a\u202eb\u200b", n: 12, text: "12", empty: "", tag: "x\u{e0041}", yes: true };
    const script = new Script("x")
      .step()
      .call("t\u200bool", values)
      .finish()
      .propose("write", "ask")
      .ask("Does\u202e it.");
    stage(script.events);
    const card = place.querySelector(".tc-ask") as HTMLElement;
    const cells = [...card.querySelectorAll("dd")].map((cell) => cell.textContent);
    expect(cells).toEqual(["a\\u202eb\\u200b", "12", '"12"', '""', "x\\u{e0041}", "true"]);
    expect(card.textContent).toContain("t\\u200bool");
    expect(card.textContent).toContain("Does\\u202e it.");
  });

  it("that expires cannot be given any more", async () => {
    const script = new Script("x").step().call("t", {}).finish().propose("write", "ask").ask("x", null, 1);
    stage(script.events);
    await expect.poll(() => place.querySelector(".tc-ask")?.textContent).toContain("nobody answered in time");
    expect(named("Approve").checkVisibility()).toBe(false);
  });
});

describe("the view", () => {
  it("keeps what is open, and the focus, over events and a new snapshot", async () => {
    const events = scenes["Steps, with an error and a denial"]?.().events ?? [];
    const shown = stage(events.slice(0, -2));
    const { model } = shown;
    const line = place.querySelectorAll<HTMLElement>("summary.tc-line")[1];
    if (line === undefined) throw new Error("no line");
    await userEvent.click(line);
    await expect.poll(() => place.querySelectorAll(".tc-more button").length).toBe(1);
    await userEvent.click(named("Show all"));
    const output = place.querySelector(".tc-out") as HTMLElement;
    expect(output.childElementCount).toBeGreaterThan(20);
    line.focus();
    model.takeOver(
      structuredClone(events.slice(0, -2).reduce((run, event) => applyEvent(run, event), emptyRun())),
    );
    model.events(events.slice(-2));
    expect(document.activeElement).toBe(line);
    expect(place.querySelector(".tc-out")).toBe(output);
    expect(output.childElementCount).toBeGreaterThan(20);
  });

  it("draws a text once: what is selected in the answer stays when the run ends", async () => {
    const { events } = scenes.Done?.() ?? { events: [] };
    const shown = stage(events.slice(0, -3));
    await expect.poll(() => place.querySelector(".tc-md table")).not.toBeNull();
    const nodes = [...place.querySelectorAll(".tc-md > * > *")];
    shown.model.events(events.slice(-3));
    shown.model.takeOver(structuredClone(events.reduce((run, event) => applyEvent(run, event), emptyRun())));
    await sleep(100);
    expect(nodes.length).toBeGreaterThan(4);
    // The last block is open until the end.
    for (const node of nodes.slice(0, -1)) expect(node.isConnected, node.outerHTML.slice(0, 80)).toBe(true);
  });

  it("of a saved notebook decides nothing", async () => {
    const run = (scenes.Approval?.().events ?? []).reduce((run, event) => applyEvent(run, event), emptyRun());
    const model = new FakeModel(JSON.stringify({ type: "snapshot", seq: 4, run, now: run.started_at }));
    stage([], model);
    expect(named("Approve").getAttribute("aria-disabled")).toBe("true");
    await expect.poll(() => place.querySelector(".tc-ask")?.textContent).toContain("Expired");
    for (const button of place.querySelectorAll("button")) {
      expect(button.checkVisibility() && button.textContent, button.textContent ?? "").toBe(false);
      button.click();
    }
    expect(new Set(model.sent.map((message) => message.type))).toEqual(new Set(["hello", "ready"]));
  });

  it("of a kernel that was restarted says so", async () => {
    const { model } = scene("Approval");
    model.isClosed = true;
    await steady();
    await userEvent.click(named("Approve"));
    expect(place.querySelector(".tc-who")?.textContent).toBe("The kernel was restarted");
    expect(place.querySelector(".tc-ask")?.textContent).toContain("Expired");
    expect(place.textContent).toContain("%agent resume goes on with it.");
    expect(named("Approve").checkVisibility()).toBe(false);
    const pad = place.querySelector(".tc-request > .tc-pad") as HTMLElement;
    expect(getComputedStyle(pad).paddingBlockEnd).toBe("14px");
  });

  it("folds when the run is done, unless someone looks inside", async () => {
    const script = scenes.Done;
    if (script === undefined) throw new Error("no scene");
    const { events } = script();
    let shown = stage(events.slice(0, -1));
    const fold = place.querySelector(".tc-fold") as HTMLDetailsElement;
    expect(fold.open).toBe(true);
    shown.model.events(events.slice(-1));
    expect(fold.open).toBe(false);
    expect(fold.querySelector("summary")?.textContent).toMatch(
      /^Thought.* used 3 tools, 1 approved by you, 1 denied by you/,
    );
    shown.dispose();
    shown = stage(events.slice(0, -1));
    (place.querySelectorAll("summary.tc-line")[1] as HTMLElement).click();
    shown.model.events(events.slice(-1));
    expect((place.querySelector(".tc-fold") as HTMLDetailsElement).open).toBe(true);
  });

  it("can be shown twice, in a shadow root too, and goes away without a trace", () => {
    const host = document.createElement("div");
    place.append(host);
    const shadow = host.attachShadow({ mode: "open" });
    const inner = document.createElement("div");
    shadow.append(inner);
    const shown = stage([]);
    const { model } = shown;
    const again = show(inner, scenes.Approval?.().events ?? []);
    expect(inner.querySelector(".tc-request")).not.toBeNull();
    expect(model.sent.length).toBeGreaterThan(0);
    again.dispose();
    expect(inner.childElementCount).toBe(0);
    expect(again.model.listeners).toBe(0);
  });

  it("keeps the notebook's shortcuts away from everything that can have the focus", async () => {
    const focusable = "a[href], button, summary, input, textarea, select, [tabindex]";
    for (const name of Object.keys(scenes)) {
      const shown = scene(name);
      for (const details of place.querySelectorAll("details")) details.open = true;
      await sleep(60);
      for (const element of place.querySelectorAll(focusable))
        expect(
          element.getAttribute("data-lm-suppress-shortcuts"),
          `${name}: ${element.outerHTML.slice(0, 80)}`,
        ).toBe("true");
      shown.dispose();
    }
  });

  it("has no target smaller than 24 pixels", async () => {
    for (const name of Object.keys(scenes)) {
      const shown = scene(name);
      for (const details of place.querySelectorAll("details")) details.open = true;
      await sleep(60);
      for (const target of place.querySelectorAll("button, summary")) {
        if (!target.checkVisibility()) continue;
        const { width, height } = target.getBoundingClientRect();
        expect(Math.min(width, height), `${name}: ${target.textContent}`).toBeGreaterThanOrEqual(24);
      }
      shown.dispose();
    }
  });
});

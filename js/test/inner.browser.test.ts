import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import { Script } from "./script";
import { named, place, play, stage } from "./stage";

const outer = (): Script =>
  new Script("What do the papers say?")
    .step()
    .call("research", { topic: "refunds" })
    .finish()
    .propose()
    .start();
const child = (values: object): object => ({
  ...{ type: "child", call_id: "call-1-0", run_id: "run_2", agent: "librarian", prompt: "refunds" },
  ...{ status: "running", steps: 1, ...values },
});

describe("a run inside a call", () => {
  it("is a line under the call, and asks for nothing until it is opened", () => {
    const { model } = play(outer());
    model.emit(child({}));
    model.emit(child({ status: "completed", steps: 2 }));
    const lines = place.querySelectorAll(".tc-inner summary");
    expect([...lines].map((line) => line.textContent)).toEqual(["librarianrefunds, done2 steps"]);
    expect(model.sentOf("of")).toEqual([]);
  });

  it("shows its steps and its answer when it is opened, without buttons that decide", async () => {
    const { model } = play(outer());
    model.emit(child({}));
    await userEvent.click(place.querySelector(".tc-inner summary") as HTMLElement);
    expect(model.sentOf("of").map(({ run_id, content }) => [run_id, content.type])).toEqual([
      ["run_2", "hello"],
      ["run_2", "ready"],
    ]);
    const script = new Script("refunds").step().call("fetch", { url: "x" }).finish().propose("write", "ask");
    script.ask("Loads a page.");
    const { events } = script;
    const tell = (seq: number, some: readonly object[]): void =>
      model.emit({
        type: "of",
        run_id: "run_2",
        content: { type: "events", seq, events: some, now: 1_700_000_009 },
      });
    tell(0, events);
    const asked = place.querySelector<HTMLElement>(".tc-inner .tc summary .tc-name");
    expect([asked?.innerText, asked?.checkVisibility()]).toEqual(["fetch", true]);
    expect(() => named("Approve", place.querySelector(".tc-inner") as HTMLElement)).toThrow();
    expect(
      [...place.querySelectorAll(".tc-inner .tc-head button")].filter((one) => one.checkVisibility()),
    ).toEqual([]);
    const known = events.length;
    script.answer("approve").start().returned("a page").step().say("Few refunds.").finish("stop").end();
    tell(1, script.events.slice(known));
    expect(place.querySelector(".tc-inner")?.textContent).toContain("Few refunds.");
  });

  it("stands under its own call only, also when it is told of before the call", () => {
    const { model } = stage([]);
    model.emit(child({ call_id: "call-1-1" }));
    const script = new Script("x").step().call("a", {}).call("b", {}).finish().propose().start(0).start(1);
    for (const event of script.events) model.events([event]);
    const items = [...place.querySelectorAll(":scope .tc-steps:not(.tc-inner) > .tc-step")];
    expect(items.map((item) => item.querySelectorAll(".tc-inner").length)).toEqual([0, 1]);
  });
});

describe("a tool's HTML", () => {
  const made = (html: string): Script =>
    new Script("x")
      .step()
      .call("plot", {})
      .finish()
      .propose()
      .start()
      .returned("done", "ok", 0.2, null, 0, { display: [{ "text/html": html, "text/plain": "a plot" }] });
  const open = async (): Promise<void> => {
    await userEvent.click(place.querySelector("summary.tc-line") as HTMLElement);
  };

  it("is not there before somebody asks for it, and then in a frame that can do nothing", async () => {
    let ran = 0;
    Object.assign(globalThis, { __xss: () => ran++ });
    const before = performance.getEntriesByType("resource").length;
    play(
      made(
        '<script>parent.__xss()</script><img src="https://evil.test/x.png" onerror="parent.__xss()"><meta http-equiv="refresh" content="0;url=https://evil.test/"><b>plot</b>',
      ),
    );
    await open();
    expect(place.querySelector("iframe")).toBeNull();
    expect(place.textContent).toContain("a plot");
    await userEvent.click(named("Show HTML"));
    const frame = place.querySelector("iframe") as HTMLIFrameElement;
    expect(frame.getAttribute("sandbox")).toBe("");
    expect(frame.srcdoc).toMatch(
      /^<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src 'none';/,
    );
    expect(getComputedStyle(frame).pointerEvents).toBe("none");
    await new Promise((done) => setTimeout(done, 400));
    expect(ran).toBe(0);
    expect(frame.contentDocument).toBeNull();
    const requests = performance.getEntriesByType("resource").slice(before);
    expect(
      requests.filter(({ name }) => !name.startsWith(location.origin) && !name.startsWith("about:")),
    ).toEqual([]);
  });

  it("that is too long is not shown", async () => {
    play(made("x".repeat(600_000)));
    await open();
    expect(place.textContent).toContain("too long to be shown");
  });
});

it("a model that has to be imported first is warming up, until it says something", () => {
  const script = new Script("x").step();
  const { model } = stage(script.events);
  const who = (): string | null | undefined => place.querySelector(".tc-who")?.textContent;
  expect(who()).toBe("Thinking");
  model.emit({
    type: "events",
    seq: model.seq + 1,
    now: 1,
    events: [{ type: "WarmingUp", run_id: "run_1", step: 1 }],
  });
  model.seq += 1;
  expect(who()).toBe("Warming up");
  model.events([{ type: "TextDelta", run_id: "run_1", step: 1, block: 0, text: "Hi" }]);
  expect(who()).toBe("Writing");
});

it("a budget has a bar beside its words, which changes its colour when little is left", () => {
  const script = new Script("x")
    .limit({ steps: 2 })
    .step()
    .call("a", {})
    .finish()
    .propose()
    .start()
    .returned("y");
  const { model } = play(script);
  const bar = place.querySelector(".tc-used") as HTMLElement;
  const width = (): string => (bar.firstChild as HTMLElement).style.inlineSize;
  expect([width(), bar.classList.contains("tc-wait")]).toEqual(["50%", false]);
  const known = script.events.length;
  for (const event of script.step().events.slice(known)) model.events([event]);
  expect([width(), bar.classList.contains("tc-wait")]).toEqual(["100%", true]);
});

/** Questions, calls of sub-agents, messages in between, notes, figures: what came after the first approval card. */
import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import { forbidden } from "./forbidden";
import { asking } from "./scenes";
import { Script } from "./script";
import { FOR_EVER, field, HALF_A_SECOND, inertFor, named, place, play, scene, steady } from "./stage";

const boxes = (): HTMLInputElement[] => [...place.querySelectorAll<HTMLInputElement>(".tc-ask input")];
const lines = (): (string | undefined)[] =>
  [...place.querySelectorAll(".tc-step .tc-line")].map((line) => line.textContent?.trim());

describe("a question", () => {
  it("is answered with the option that was chosen, after half a second", async () => {
    inertFor(FOR_EVER);
    const { model } = scene("A question");
    expect(place.querySelector('[role="radiogroup"]')?.getAttribute("aria-labelledby")).toBe(
      place.querySelector(".tc-title")?.id,
    );
    (boxes()[1] as HTMLElement).click();
    named("Answer").click();
    expect(model.sentOf("answer")).toEqual([]);
    inertFor(HALF_A_SECOND);
    await steady();
    await userEvent.click(named("Answer"));
    expect(model.sentOf("answer")).toEqual([
      {
        ...{ type: "answer", request_id: "ask-call-1-0", digest: "d-inner", decision: "result" },
        ...{ arguments: null, reason: "", result: "Q4 2025", scope: "once" },
      },
    ]);
  });

  it("cannot be answered with nothing", async () => {
    const { model } = scene("A question");
    await steady();
    expect(named("Answer").getAttribute("aria-disabled")).toBe("true");
    await userEvent.click(named("Answer"), { force: true });
    await userEvent.click(boxes()[3] as HTMLElement);
    await userEvent.click(named("Answer"), { force: true });
    expect(model.sentOf("answer")).toEqual([]);
  });

  it("takes another answer where that is allowed: what is typed chooses itself", async () => {
    const { model } = scene("A question");
    await steady();
    await userEvent.click(boxes()[0] as HTMLElement);
    await userEvent.fill(field(), " The whole year ");
    expect(boxes().map((box) => box.checked)).toEqual([false, false, false, true]);
    await steady();
    await userEvent.click(named("Answer"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "result", result: "The whole year" }]);
  });

  it("that allows many is answered with a list", async () => {
    const { model } = scene("A question with several answers");
    await steady();
    for (const box of boxes()) await userEvent.click(box);
    await userEvent.click(named("Answer"));
    // What is sent is the label itself, not the escape that stands for it.
    expect(model.sentOf("answer")).toMatchObject([{ result: ["Ana", "Bo\u202e"] }]);
    expect(place.querySelector(".tc-ask")?.textContent).toContain("Bo\\u202e");
  });

  it("can be answered with the keyboard alone", async () => {
    const { model } = scene("A question with a free answer");
    await steady();
    field().focus();
    await userEvent.keyboard("Refunds{Enter}in West{Control>}{Enter}{/Control}");
    expect(model.sentOf("answer")).toMatchObject([{ decision: "result", result: "Refunds\nin West" }]);
  });

  it("is moved through with the arrows", async () => {
    const { model } = scene("A question");
    await steady();
    boxes()[0]?.focus();
    await userEvent.keyboard("{ArrowDown}{ArrowDown}{Control>}{Enter}{/Control}");
    expect(model.sentOf("answer")).toMatchObject([{ result: "Both" }]);
  });

  it("can be declined", async () => {
    const { model } = scene("A question");
    await steady();
    await userEvent.click(named("Decline"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "deny", result: null }]);
    expect(named("Sent…").getAttribute("aria-disabled")).toBe("true");
  });

  it("says what is taken when nobody answers, and who asks", () => {
    scene("A question");
    const card = place.querySelector(".tc-ask")?.textContent;
    expect(card).toContain("Asked by ask_user.");
    expect(card).toMatch(/Expires in .*; the answer is then “Q3 2025”\./);
    expect(place.querySelector('[role="alert"]')?.textContent).toBe(
      "Question: Which quarter should the report cover?",
    );
  });

  it("leaves the line of its call where it is, and its answer in there", async () => {
    const script = asking().question("Which?", { options: [{ label: "Q3", description: "" }] });
    const { model } = play(script);
    const line = place.querySelector("summary.tc-line") as HTMLElement;
    expect(line.checkVisibility()).toBe(true);
    expect(line.textContent).toContain("Waiting for you");
    const before = script.events.length;
    script.answer("result", "", null, "person", 0, "Q3");
    model.events(script.events.slice(before));
    expect(place.querySelector(".tc-request")).toBeNull();
    await userEvent.click(line);
    await expect.poll(() => place.querySelector(".tc-body")?.textContent).toContain("Which?You answered: Q3");
  });

  it("asked a second time by the same call is a new request", async () => {
    const script = asking().question("First?", { allows_text: true });
    const { model } = play(script);
    const before = script.events.length;
    script.answer("deny", "").question("Second?", { allows_text: true, request_id: "again" });
    model.events(script.events.slice(before));
    expect(place.querySelector(".tc-title")?.textContent).toBe("Second?");
    expect(place.querySelector('[role="alert"]')?.textContent).toBe("Question: Second?");
  });
});

describe("a call of a sub-agent", () => {
  it("is approved by its own name and arguments", async () => {
    const { model } = scene("A call of a sub-agent");
    const card = place.querySelector(".tc-ask")?.textContent;
    expect(card).toContain("Allow fetch?");
    expect(card).toContain("Asked by research. Runs with your rights");
    expect(card).toContain("https://example.org/refunds");
    expect(card).not.toContain("topic");
    await steady();
    await userEvent.click(named("Edit arguments"));
    expect(JSON.parse(field().value)).toEqual({ url: "https://example.org/refunds", depth: 2 });
    await userEvent.click(named("Cancel"));
    await steady();
    await userEvent.click(named("Approve"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "approve", digest: "d-inner" }]);
  });

  it("with numbers that the page cannot hold cannot be edited here", () => {
    const script = new Script("x").step().call("research", {}).finish().propose().start();
    play(script.inner("fetch", { id: 2 ** 60 }));
    expect([...place.querySelectorAll(".tc-acts button")].map((button) => button.textContent)).toEqual([
      "Approve",
      "Deny…",
    ]);
  });
});

describe("between the steps", () => {
  it("a message of the person stands where it was read, and waits below until then", () => {
    scene("Steered, with notes");
    const said = [...place.querySelectorAll(".tc-said")].map((each) => each.textContent);
    expect(said).toEqual([
      "You, while it was runningNot Bo, he is on leave.",
      "You, not read yetThanks, and tell me the time.",
    ]);
    const order = place.querySelector(".tc-fold")?.textContent ?? "";
    expect(order.indexOf("Not Bo")).toBeLessThan(order.indexOf("Ana has it."));
    expect(place.querySelector(".tc-fold")?.contains(place.querySelectorAll(".tc-said")[1] ?? null)).toBe(
      false,
    );
  });

  it("notes are quiet lines, in the order in which things happened", () => {
    scene("Steered, with notes");
    expect(lines()).toEqual([
      "Retry: overloaded: 529; trying again in 0.5 s",
      "Retry: overloaded: 529; trying the next model",
      "Model: gpt-5-mini (small)",
      expect.stringContaining("ana@example.org"),
      expect.stringMatching(/bo@example.org.*Skipped/),
      "Remembered: allow mail, session",
      "Hook: after_step log: OSError: disk full",
      "Model: claude-sonnet-5",
      "Output check: the output is no Report: 1 field is missing",
      expect.stringContaining("The output check told the model"),
    ]);
  });

  it("a line stays the same node when more comes", () => {
    const script = new Script("x").step().note("hook", "failed");
    const { model } = play(script);
    const line = place.querySelector(".tc-what");
    const before = script.events.length;
    script.say("Hello.").note("guard", "again");
    model.events(script.events.slice(before));
    expect(place.querySelectorAll(".tc-what")).toHaveLength(2);
    expect(place.querySelector(".tc-what")).toBe(line);
  });

  it("why a call was skipped can be read", async () => {
    scene("Steered, with notes");
    await userEvent.click(place.querySelectorAll("summary.tc-line")[1] as HTMLElement);
    await expect
      .poll(() => place.querySelectorAll(".tc-body")[1]?.textContent)
      .toContain("This call was not run: a new message arrived");
  });
});

describe("the end of a run", () => {
  it.each([
    ["Stopped by the budget", "Stopped at the budget", "0.03 USD are used up."],
    ["Closed by a step policy", "Stopped at the step limit", "That is <b>enough</b>."],
  ])("%s says so", (name, who, text) => {
    scene(name);
    expect(place.querySelector(".tc-who")?.textContent).toBe(who);
    expect(place.querySelector(".tc")?.textContent).toContain(text);
    expect(place.querySelector("b")).toBeNull();
  });
});

describe("what a call has made", () => {
  async function opened(display: Record<string, unknown>): Promise<HTMLElement> {
    const script = new Script("x").step().call("plot", {}).finish().propose().start();
    play(script.returned("made", "ok", 1, null, 0, { display: [display], files: [] }));
    await userEvent.click(place.querySelector("summary.tc-line") as HTMLElement);
    await expect.poll(() => place.querySelector(".tc-body")?.textContent).toContain("made");
    return place.querySelector(".tc-body") as HTMLElement;
  }

  it("is there: a figure, a table with its numbers to the right, files with their sizes", async () => {
    scene("Answered and shown");
    for (const details of place.querySelectorAll("details")) details.open = true;
    await expect.poll(() => place.querySelector("img")?.naturalWidth).toBe(120);
    expect(place.querySelector("img")?.alt).toBe("orders by region");
    expect([...place.querySelectorAll("th")].map((cell) => [cell.textContent, cell.className])).toEqual([
      ["region", ""],
      ["orders", "tc-right"],
      ["share", "tc-right"],
    ]);
    expect([...place.querySelectorAll("td")].map((cell) => cell.textContent)).toContain("South <b>");
    expect(place.querySelector(".tc-body .tc-more")?.textContent).toContain("3 of 3,120 rows");
    expect([...place.querySelectorAll(".tc-files li")].map((item) => item.textContent)).toEqual([
      "out/orders.csv 12.5 kB",
      "out/orders.png",
    ]);
  });

  it.each([
    { "image/png": "https://evil.test/a.png" },
    { "image/png": 'AAAA" onerror="alert(1)' },
    { "image/svg+xml": "<svg onload=alert(1)>" },
    { "text/html": "<img src=https://evil.test/a>" },
    { "application/vnd.turncell.table+json": { columns: "x", rows: [[1]] } },
    { "application/vnd.turncell.table+json": { columns: ["x"], rows: ["<b>"] } },
  ])("is not shown when it is %j", async (display) => {
    const body = await opened(display);
    expect(body.querySelector("img, table")).toBeNull();
  });

  it("is text in a table, whatever it says", async () => {
    const evil = '<img src=x onerror="alert(1)">\u202e';
    const table = { columns: [evil], rows: [[evil], [{ a: evil }], []], shape: ["x"] };
    const body = await opened({ "application/vnd.turncell.table+json": table });
    const cells = [...body.querySelectorAll("td")].map((cell) => cell.textContent);
    expect(cells[0]).toBe('<img src=x onerror="alert(1)">\\u202e');
    expect(cells[2]).toBe("");
    expect(
      forbidden(body.querySelector("table") as HTMLElement).filter((each) => !/scope=col/.test(each)),
    ).toEqual([]);
  });
});

describe("a decision", () => {
  it("holds for this call only, unless the person says for how long", async () => {
    const { model } = scene("Approval");
    const scope = place.querySelector("select") as HTMLSelectElement;
    expect([...scope.options].map((option) => option.text)).toEqual([
      "This call only",
      "All calls of run_shell, this session",
      "All calls of run_shell, always",
    ]);
    expect(scope.value).toBe("once");
    await userEvent.selectOptions(scope, "session");
    await steady();
    await userEvent.click(named("Approve"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "approve", scope: "session" }]);
  });

  it("for other arguments is always for this call", async () => {
    const { model } = scene("Approval");
    await userEvent.selectOptions(place.querySelector("select") as HTMLSelectElement, "always");
    await steady();
    await userEvent.click(named("Edit arguments"));
    expect(place.querySelector("select")).toBeNull();
    await userEvent.fill(field(), '{"command": "ls"}');
    await steady();
    await userEvent.click(named("Run edited call"));
    expect(model.sentOf("answer")).toMatchObject([{ decision: "edit", scope: "once" }]);
  });
});

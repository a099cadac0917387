import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { applyEvent, emptyRun } from "../src/fold";
import { Link } from "../src/link";
import type { RunView } from "../src/wire";
import { journals } from "./journals";
import { FakeModel } from "./model";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const waiting = journals.waiting;
const answered = journals.answer;
if (waiting === undefined || answered === undefined) throw new Error("the journals are not there");

function open(model = new FakeModel()): { model: FakeModel; link: Link } {
  const link = new Link(model);
  link.open();
  return { model, link };
}

function saved(run: RunView): string {
  return JSON.stringify({ type: "snapshot", seq: 7, run, now: 1_700_000_002 });
}

const answer = {
  request_id: "run_1-1-1-ask",
  digest: "d",
  decision: "approve",
  arguments: null,
  reason: "",
} as const;

describe("at the start", () => {
  it("says hello and that it has nothing", () => {
    expect(open().model.sent).toEqual([{ type: "hello" }, { type: "ready", have: -1 }]);
  });

  it("is ready again every two seconds while the run is open, and not after its end", () => {
    const { model } = open();
    vi.advanceTimersByTime(4000);
    expect(model.sentOf("ready")).toHaveLength(3);
    model.events(answered.events.slice(0, 3));
    vi.advanceTimersByTime(2000);
    expect(model.sentOf("ready").at(-1)).toEqual({ type: "ready", have: 0 });
    model.events(answered.events.slice(3));
    vi.advanceTimersByTime(10_000);
    expect(model.sentOf("ready")).toHaveLength(4);
  });

  it("shows what the widget's state holds, but does not take it for the kernel's word", () => {
    const { model, link } = open(new FakeModel(saved(waiting.snapshot)));
    expect(link.store.run).toEqual(waiting.snapshot);
    expect(link.state.value).toBe("connecting");
    expect(model.sentOf("ready")).toEqual([{ type: "ready", have: -1 }]);
  });

  it.each(["{", "[]", "null", '{"type":"snapshot"}', '{"type":"snapshot","seq":1,"now":1,"run":{}}'])(
    "is not upset by %s for a snapshot",
    (text) => expect(open(new FakeModel(text)).link.store.run).toEqual(emptyRun()),
  );
});

describe("messages", () => {
  it("fold in order, repetitions left out", () => {
    const { model, link } = open();
    const { events, snapshot } = structuredClone(answered);
    model.events(events.slice(0, 4));
    model.events(events.slice(4));
    model.emit({ type: "events", seq: 0, events: events.slice(0, 4), now: 1 });
    expect(link.store.run).toEqual(snapshot);
    expect(link.state.value).toBe("live");
  });

  it("after a gap wait for the snapshot that one resync brings", () => {
    const { model, link } = open();
    const { events, snapshot } = structuredClone(answered);
    model.events(events.slice(0, 4));
    model.seq += 1;
    model.events(events.slice(5, 6));
    model.events(events.slice(6, 7));
    expect(model.sentOf("resync")).toEqual([{ type: "resync", have: 0 }]);
    expect(link.store.run.steps[0]?.blocks[0]?.text).toBe("It is ");
    model.takeOver(events.slice(0, 7).reduce(folded, emptyRun()));
    model.events(events.slice(7));
    expect(link.store.run).toEqual(snapshot);
    expect(model.sentOf("resync")).toHaveLength(1);
  });

  it("of another shape are left alone", () => {
    const { model, link } = open();
    for (const odd of [
      null,
      7,
      "x",
      [],
      {},
      { type: "events" },
      { type: "snapshot", seq: 1, now: 1, run: null },
    ])
      model.emit(odd);
    expect(link.store.run).toEqual(emptyRun());
    expect(link.state.value).toBe("connecting");
  });

  it("set the clock to the kernel's", () => {
    const { model, link } = open();
    model.events([], 5000);
    vi.advanceTimersByTime(3000);
    expect(link.store.now()).toBeCloseTo(5003, 1);
  });
});

describe("answers", () => {
  it("go out once, with what was shown", () => {
    const { model, link } = open();
    model.events(waiting.events);
    link.answer(answer);
    link.answer({ ...answer, decision: "deny" });
    expect(model.sentOf("answer")).toEqual([{ ...answer, result: null, scope: "once", type: "answer" }]);
    expect(link.sent.value.has(answer.request_id)).toBe(true);
  });

  it("that are refused can be given again, and the problem is known", () => {
    const { model, link } = open();
    model.events(waiting.events);
    link.answer(answer);
    model.refuse({ request_id: answer.request_id, problem: "the digest is another" });
    expect(link.problems.value.get(answer.request_id)).toBe("the digest is another");
    link.answer(answer);
    expect(model.sentOf("answer")).toHaveLength(2);
    expect(link.problems.value.size).toBe(0);
  });

  it("do not leave a view that no kernel has spoken to", () => {
    const { model, link } = open(new FakeModel(saved(waiting.snapshot)));
    link.answer(answer);
    link.stop();
    vi.advanceTimersByTime(3000);
    expect(link.state.value).toBe("restored");
    link.answer(answer);
    link.stop();
    expect(new Set(model.sent.map((message) => message.type))).toEqual(new Set(["hello", "ready"]));
  });
});

it("comes back when a busy kernel answers after all", () => {
  const { model, link } = open(new FakeModel(saved(waiting.snapshot)));
  vi.advanceTimersByTime(8000);
  expect(link.state.value).toBe("restored");
  model.seq = 7;
  model.takeOver(structuredClone(waiting.snapshot));
  expect(link.state.value).toBe("live");
});

it("is not restored when the run had ended", () => {
  const { link } = open(new FakeModel(saved(answered.snapshot)));
  vi.advanceTimersByTime(8000);
  expect(link.state.value).toBe("connecting");
});

it("notices a closed comm and stays quiet", () => {
  const { model, link } = open();
  model.events(waiting.events);
  model.isClosed = true;
  link.answer(answer);
  expect(link.state.value).toBe("disconnected");
  expect(link.sent.value.size).toBe(0);
  model.isClosed = false;
  vi.advanceTimersByTime(10_000);
  expect(model.sentOf("ready")).toHaveLength(1);
});

it("asks once to stop", () => {
  const { model, link } = open();
  model.events(waiting.events);
  link.stop();
  link.stop();
  expect(model.sentOf("stop")).toEqual([{ type: "stop" }]);
});

it("lets go of the model", () => {
  const { model, link } = open();
  link.close();
  vi.advanceTimersByTime(10_000);
  expect(model.listeners).toBe(0);
  expect(model.sent).toHaveLength(2);
});

function folded(run: RunView, event: Parameters<typeof applyEvent>[1]): RunView {
  return applyEvent(run, structuredClone(event));
}

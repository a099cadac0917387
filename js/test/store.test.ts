import { effect } from "@preact/signals-core";
import { describe, expect, it } from "vitest";
import { applyEvent, type Event, emptyRun, type Part } from "../src/fold";
import { Store } from "../src/store";
import type { RunView } from "../src/wire";
import { journals } from "./journals";

const PASSING = new Set([
  "TextDelta",
  "ReasoningDelta",
  "ArgumentsDelta",
  "CallProgress",
  "WarmingUp",
  "Latency",
]);

function fold(events: readonly Event[]): RunView {
  return events.reduce((run, event) => applyEvent(run, event), emptyRun());
}

const copy = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

describe.each(Object.entries(journals))("the journal %s", (_name, { events, snapshot }) => {
  it("folds to the snapshot that Python makes of it", () => {
    expect(fold(copy(events))).toEqual(snapshot);
  });

  it("folds to the same without the passing events, once it has ended", () => {
    if (snapshot.ended_at === null) return;
    expect(fold(copy(events).filter((event) => !PASSING.has(event.type)))).toEqual(snapshot);
  });

  it("goes on from a snapshot taken anywhere as if nothing had happened", () => {
    for (let cut = 0; cut <= events.length; cut++) {
      const store = new Store();
      store.replace(copy(fold(copy(events.slice(0, cut)))), 0);
      store.apply(copy(events.slice(cut)), 0);
      expect(store.run, `cut at ${cut}`).toEqual(snapshot);
    }
  });

  it("takes the same snapshot over the events without a change", () => {
    const store = new Store();
    store.apply(copy(events), 0);
    const { steps } = store.run;
    const blocks = steps.flatMap((step) => [...step.blocks, ...step.calls]);
    store.replace(copy(snapshot), 0);
    expect(store.run).toEqual(snapshot);
    expect(
      store.run.steps.flatMap((step) => [...step.blocks, ...step.calls]).every((b, i) => b === blocks[i]),
    ).toBe(true);
  });
});

const at = { session_id: "s", run_id: "r", step: 1, at: 1 };
const step: Event = { ...at, type: "StepStarted", seq: 3, model: "m" };
const text = (piece: string, block = 0): Event => ({
  type: "TextDelta",
  run_id: "r",
  step: 1,
  block,
  text: piece,
});
const partial = (offset: number, piece: string): Event => ({
  ...at,
  ...{ type: "PartialSaved", seq: 4, kind: "text", block: 0, offset, text: piece },
});

describe("text that is saved in pieces", () => {
  it("is not doubled where the deltas have brought it already", () => {
    const run = fold([
      step,
      text("Once upon"),
      partial(0, "Once upon"),
      text(" a time"),
      partial(9, " a time."),
    ]);
    expect(run.steps[0]?.blocks).toEqual([{ kind: "text", text: "Once upon a time.", call_id: "" }]);
  });

  it("counts characters as Python does", () => {
    const run = fold([step, text("🌍🌍"), partial(1, "🌍🌎"), text("!"), partial(4, "x")]);
    expect(run.steps[0]?.blocks[0]?.text).toBe("🌍🌍🌎!x");
  });
});

it("ignores what it does not know, and deltas that come before a step", () => {
  const unknown = { type: "Invented", seq: 9 } as unknown as Event;
  expect(fold([text("early"), unknown])).toEqual(emptyRun());
});

it("wakes nobody but the block's view for a text delta", () => {
  const store = new Store();
  store.apply([step, text("a"), text("b", 1)], 0);
  const woken: string[] = [];
  const { run } = store;
  const first = run.steps[0];
  const [left, right] = first?.blocks ?? [];
  if (first === undefined || left === undefined || right === undefined) throw new Error("no blocks");
  const watch = (name: string, part: Part): void => {
    store.read(part);
    woken.push(name);
  };
  effect(() => watch("run", run));
  effect(() => watch("step", first));
  effect(() => watch("left", left));
  effect(() => void woken.push(`right ${store.read(right).text}`));
  woken.length = 0;
  store.apply([text("c", 1), text("d", 1)], 0);
  expect(woken).toEqual(["right bcd"]);
});

it("grows a long text at the cost of its pieces", () => {
  const store = new Store();
  store.apply([step], 0);
  const started = performance.now();
  for (let i = 0; i < 200_000; i++) store.apply([text("0123456789")], 0);
  // Copying two million characters for each delta would take minutes.
  expect(performance.now() - started).toBeLessThan(20_000);
  expect(store.run.steps[0]?.blocks[0]?.text).toHaveLength(2_000_000);
});

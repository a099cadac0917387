/** What the page does for long answers; driven by `page.mjs`. Each frame is a delta or two, drawn and laid out. */

import * as streaming from "streaming-markdown";
import type { Event } from "../src/fold";
import widget from "../src/index";
import { MarkdownStream } from "../src/markdown";
import { show } from "../test/model";
import { Script } from "../test/script";

export interface Timed {
  readonly frames: number;
  readonly longest_ms: number;
  readonly wall_ms: number;
}

const WORDS =
  "The **sales** of `West` fell by 18 %, and [one store](https://example.com/a) explains most of it. ";
const PARAGRAPH = `${WORDS.repeat(4)}\n\n- first, a list\n- then _another_ item\n\n`;

const texts: Readonly<Record<string, (size: number) => string>> = {
  answer: (size) => PARAGRAPH.repeat(Math.ceil(size / PARAGRAPH.length)).slice(0, size),
  fence: (size) =>
    `\`\`\`python\n${"total = total + price(row)  # of it\n".repeat(Math.ceil(size / 36))}`.slice(0, size),
  table: (rows) => `| a | b | c |\n|---|--:|---|\n${"| North | 431,900 | +4.8 % |\n".repeat(rows)}`,
};

/** What takes a text piece by piece; `show` draws what it has. */
interface Renderer {
  append(text: string): void;
  show(): void;
  end(): void;
}

function ours(root: HTMLElement): Renderer {
  const made = new MarkdownStream(root, { highlight: false });
  return { append: (text) => made.append(text), show: () => made.flush(), end: () => made.end() };
}

/** `streaming-markdown`, which appends and never looks back: the quickest there is, and right in a third of CommonMark. */
function peer(root: HTMLElement): Renderer {
  const parser = streaming.parser(streaming.default_renderer(root));
  const append = (text: string) => streaming.parser_write(parser, text);
  return { append, show: () => {}, end: () => streaming.parser_end(parser) };
}

function placed(): { readonly place: HTMLElement; readonly root: HTMLElement } {
  const place = document.createElement("div");
  place.className = "tc";
  document.body.append(place);
  const root = document.createElement("div");
  root.className = "tc-md";
  place.append(root);
  return { place, root };
}

async function stream(kind: string, size: number, chunk: number, isPeer: boolean): Promise<Timed> {
  const text = texts[kind]?.(size) ?? "";
  const { place, root } = placed();
  const made = isPeer ? peer(root) : ours(root);
  let [frames, longest_ms] = [0, 0];
  const began = performance.now();
  for (let at = 0; at < text.length; at += chunk) {
    const from = performance.now();
    made.append(text.slice(at, at + chunk));
    made.show();
    root.getBoundingClientRect();
    longest_ms = Math.max(longest_ms, performance.now() - from);
    frames += 1;
    if (frames % 500 === 0) await new Promise((done) => setTimeout(done));
  }
  made.end();
  const wall_ms = performance.now() - began;
  place.remove();
  return { frames, longest_ms, wall_ms };
}

const MESSAGES_PER_S = 25;

/** A turn as the kernel sends it, so many characters a second in deltas of five, drawn as often as the view thinks right. */
async function live(kind: string, size: number, rate: number, isPeer: boolean): Promise<Timed> {
  const { place, root } = placed();
  const { take, end } = isPeer ? alone(root) : wholeView(place);
  const text = texts[kind]?.(size) ?? "";
  let [frames, longest_ms, at] = [0, 0, 0];
  const observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) longest_ms = Math.max(longest_ms, duration);
  });
  observer.observe({ type: "longtask" });
  const began = performance.now();
  while (at < text.length) {
    const until = Math.min(text.length, ((performance.now() - began) / 1000) * rate);
    const deltas: string[] = [];
    for (; at < until; at += 5) deltas.push(text.slice(at, at + 5));
    if (deltas.length > 0) take(deltas);
    frames += 1;
    await new Promise((done) => setTimeout(done, 1000 / MESSAGES_PER_S));
  }
  const wall_ms = performance.now() - began;
  observer.disconnect();
  end();
  place.remove();
  return { frames, longest_ms, wall_ms };
}

interface Taker {
  take(deltas: readonly string[]): void;
  end(): void;
}

function wholeView(place: HTMLElement): Taker {
  const { events } = new Script("Why?").step().say("-");
  const { model, dispose } = show(place, events.slice(0, -1));
  const delta = events[events.length - 1] as Event;
  return {
    take: (deltas) => model.events(deltas.map((text) => ({ ...delta, text }) as Event)),
    end: dispose,
  };
}

/** The peer, with nothing around its text. */
function alone(root: HTMLElement): Taker {
  const made = peer(root);
  return { take: (deltas) => made.append(deltas.join("")), end: () => made.end() };
}

/** So many views of ended runs, as a notebook that is opened has them. */
async function open(count: number): Promise<number> {
  const usage = { input_tokens: 3100, output_tokens: 300, cache_read_tokens: 0, is_estimated: false };
  const block = { kind: "text", text: texts.answer?.(4_000), call_id: "" };
  const step = { step: 1, model: "m", started_at: 1, usage, cost_usd: 0.01, duration_s: 2, blocks: [block] };
  const lists = { tools: [], queued: [], notes: [], summaries: [] };
  const run = {
    ...{ ...lists, run_id: "r", status: "completed", model: "m", prompt: "x", started_at: 1, ended_at: 9 },
    ...{ budget: null, closing: null, steps: [{ ...step, images: [], calls: [], after: [] }] },
  };
  const snapshot = JSON.stringify({ type: "snapshot", seq: 0, run, now: 9 });
  const nothing = (): void => {};
  const began = performance.now();
  for (let number = 0; number < count; number++) {
    const model = {
      get: (name: string) => (name === "snapshot" ? snapshot : ""),
      send: nothing,
      on: nothing,
      off: nothing,
    };
    const el = document.createElement("div");
    document.body.append(el);
    const { initialize, render } = widget();
    initialize({ model });
    render({ model, el });
  }
  document.body.getBoundingClientRect();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - began;
}

Object.assign(globalThis, { bench: { stream, live, open } });

/**
 * The wire of one model: what comes from the kernel goes into the store, what a person decides goes to the kernel.
 *
 * States
 *   connecting     nothing heard yet; what the widget's state holds is shown, nobody can decide anything
 *   live           the kernel has spoken
 *   restored       the run is open but no kernel answers: a saved notebook, or a kernel that is gone
 *   disconnected   sending failed: the kernel was restarted
 *
 * Only `live` sends answers and stops; else `ready` is all that leaves (and one `hello` at the start). `ready` goes on
 * while the run is open, so a kernel that was merely busy brings the view back.
 *
 * A message lost on the way shows as a gap in `seq`: events are then left alone until the snapshot that one `resync`
 * brings. Nothing from outside is trusted to have the right shape; what does not is dropped.
 */
import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { isEnded } from "./fold";
import { Store } from "./store";
import type { AnswerRequest, Child, Events, Of, Parameters, Refused, Snapshot, Wire } from "./wire";

export type LinkState = "connecting" | "live" | "restored" | "disconnected";

/** What we use of anywidget's model: only what every host has. */
export interface Model {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: "msg:custom", listener: (message: unknown) => void): void;
  off(event: "msg:custom", listener: (message: unknown) => void): void;
}

/** What every answer says; the rest has defaults. */
export type Answer = Pick<AnswerRequest, "request_id" | "digest" | "decision"> &
  Partial<Omit<AnswerRequest, "type">>;

/** A run inside a call: what is told of it, and its own link, which asks for nothing before it is opened. */
export interface Inner {
  readonly told: ReadonlySignal<Child>;
  readonly link: Link;
  open(): void;
}

interface Held extends Inner {
  readonly told: Signal<Child>;
  readonly hear: Set<(message: unknown) => void>;
}

const DEFAULTS = { arguments: null, reason: "", result: null, scope: "once" } as const;
const READY_EVERY_MS = 2000;
const RESTORED_AFTER_MS = 3000;

export class Link {
  readonly store = new Store();
  readonly #state = signal<LinkState>("connecting");
  /** By request id: the answer that is on its way. Shared by all views of the model. */
  readonly #sent = signal<ReadonlyMap<string, AnswerRequest>>(new Map());
  readonly #problems = signal<ReadonlyMap<string, string>>(new Map());
  readonly #isStopping = signal(false);
  readonly #schemas = new Map<string, Parameters["schema"]>();
  readonly #inner = signal<ReadonlyMap<string, Held>>(new Map());
  /** The last `seq` heard from the kernel. What the widget's state says does not count: it may be of another day. */
  #have = -1;
  #isResyncing = false;
  #timer: ReturnType<typeof setInterval> | undefined;
  #patience: ReturnType<typeof setTimeout> | undefined;

  /** Who only reads decides and stops nothing. */
  constructor(
    readonly model: Model,
    readonly isForReading = false,
  ) {}

  get state(): ReadonlySignal<LinkState> {
    return this.#state;
  }

  get sent(): ReadonlySignal<ReadonlyMap<string, AnswerRequest>> {
    return this.#sent;
  }

  /** By request id: why an answer was not taken. */
  get problems(): ReadonlySignal<ReadonlyMap<string, string>> {
    return this.#problems;
  }

  /** By request id: the JSON Schema of what is to be approved, where the kernel has sent one. */
  get schemas(): ReadonlyMap<string, Parameters["schema"]> {
    return this.#schemas;
  }

  /** By run id: the runs inside calls of this one. */
  get inner(): ReadonlySignal<ReadonlyMap<string, Inner>> {
    return this.#inner;
  }

  get isStopping(): ReadonlySignal<boolean> {
    return this.#isStopping;
  }

  open(): void {
    this.model.on("msg:custom", this.#receive);
    const saved = parseSnapshot(this.model.get("snapshot"));
    if (saved !== null) this.store.replace(saved.run, saved.now);
    this.#patience = setTimeout(() => {
      if (this.#state.value === "connecting" && !isEnded(this.store.run)) this.#state.value = "restored";
    }, RESTORED_AFTER_MS);
    if (this.#send({ type: "hello" })) this.#ready();
    this.#timer = setInterval(() => {
      if (isEnded(this.store.run) || this.#state.value === "disconnected") return;
      this.#ready();
    }, READY_EVERY_MS);
  }

  close(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#patience);
    this.model.off("msg:custom", this.#receive);
    for (const { link } of this.#inner.value.values()) link.close();
  }

  answer(answer: Answer): void {
    if (this.#state.value !== "live" || this.#sent.value.has(answer.request_id)) return;
    const message: AnswerRequest = { ...DEFAULTS, ...answer, type: "answer" };
    if (!this.#send(message)) return;
    this.#problems.value = without(this.#problems.value, answer.request_id);
    this.#sent.value = new Map(this.#sent.value).set(answer.request_id, message);
  }

  stop(): void {
    if (this.#state.value !== "live" || this.#isStopping.value) return;
    this.#isStopping.value = this.#send({ type: "stop" });
  }

  /** Whether asking again has somewhere to be shown: a cell is run again instead. */
  get isRetryable(): boolean {
    return this.#state.value === "live" && this.model.get("retryable") === true;
  }

  retry(): void {
    if (this.isRetryable) this.#send({ type: "retry" });
  }

  #ready(): void {
    this.#send({ type: "ready", have: this.#have });
  }

  #send(message: Wire["from_page"]): boolean {
    try {
      this.model.send(message);
      return true;
    } catch {
      // Hosts throw when the comm is closed ("Cannot send"); there is no other way to learn of it.
      this.#state.value = "disconnected";
      return false;
    }
  }

  readonly #receive = (message: unknown): void => {
    if (isSnapshot(message)) {
      this.#heard();
      this.#have = message.seq;
      this.#isResyncing = false;
      this.store.replace(message.run, message.now);
    } else if (isEvents(message)) {
      this.#heard();
      this.#take(message);
    } else if (isRefused(message)) {
      this.#heard();
      this.#sent.value = without(this.#sent.value, message.request_id);
      this.#problems.value = new Map(this.#problems.value).set(message.request_id, message.problem);
    } else if (isParameters(message)) this.#schemas.set(message.request_id, message.schema);
    else if (isChild(message)) this.#adopt(message);
    else if (isOf(message))
      for (const hear of this.#inner.value.get(message.run_id)?.hear ?? []) hear(message.content);
  };

  #adopt(told: Child): void {
    const known = this.#inner.value.get(told.run_id);
    if (known !== undefined) {
      known.told.value = told;
      return;
    }
    const hear: Held["hear"] = new Set();
    const { run_id } = told;
    const model: Model = {
      get: () => undefined,
      send: (content) => this.model.send({ type: "of", run_id, content }),
      on: (_, listener) => hear.add(listener),
      off: (_, listener) => hear.delete(listener),
    };
    const link = new Link(model, true);
    let isOpen = false;
    const open = (): void => {
      if (!isOpen) link.open();
      isOpen = true;
    };
    this.#inner.value = new Map(this.#inner.value).set(run_id, { told: signal(told), link, hear, open });
  }

  #take(message: Events): void {
    if (message.seq <= this.#have) return;
    if (message.seq === this.#have + 1) {
      this.#have = message.seq;
      this.store.apply(message.events, message.now);
      return;
    }
    if (this.#isResyncing) return;
    this.#isResyncing = this.#send({ type: "resync", have: this.#have });
  }

  #heard(): void {
    this.#state.value = "live";
  }
}

function without<V>(map: ReadonlyMap<string, V>, key: string): ReadonlyMap<string, V> {
  if (!map.has(key)) return map;
  const rest = new Map(map);
  rest.delete(key);
  return rest;
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function isSnapshot(value: unknown): value is Snapshot {
  const { type, seq, run, now } = record(value);
  const isWhole = typeof seq === "number" && typeof now === "number" && Array.isArray(record(run).steps);
  return type === "snapshot" && isWhole;
}

function isEvents(value: unknown): value is Events {
  const { type, seq, events, now } = record(value);
  return type === "events" && typeof seq === "number" && typeof now === "number" && Array.isArray(events);
}

function isRefused(value: unknown): value is Refused {
  const { type, request_id, problem } = record(value);
  return type === "refused" && typeof request_id === "string" && typeof problem === "string";
}

function isParameters(value: unknown): value is Parameters {
  const { type, request_id, schema } = record(value);
  return (
    type === "parameters" && typeof request_id === "string" && typeof schema === "object" && schema !== null
  );
}

function isChild(value: unknown): value is Child {
  const { type, steps, ...texts } = record(value);
  const { call_id, run_id, agent, prompt, status } = texts;
  const isWhole = [call_id, run_id, agent, prompt, status].every((text) => typeof text === "string");
  return type === "child" && typeof steps === "number" && isWhole;
}

function isOf(value: unknown): value is Of {
  const { type, run_id, content } = record(value);
  return type === "of" && typeof run_id === "string" && typeof content === "object";
}

function parseSnapshot(text: unknown): Snapshot | null {
  if (typeof text !== "string" || text === "") return null;
  try {
    const value: unknown = JSON.parse(text);
    return isSnapshot(value) ? value : null;
  } catch {
    return null;
  }
}

/** A kernel's end for tests: an anywidget model that remembers what was sent and says what it is told to. */

import type { Event } from "../src/fold";
import widget from "../src/index";
import type { Model } from "../src/link";
import type { Refused, RunView, Wire } from "../src/wire";

export type FromPage = Wire["from_page"];

export class FakeModel implements Model {
  readonly sent: FromPage[] = [];
  isClosed = false;
  seq = -1;
  readonly #listeners = new Set<(message: unknown) => void>();

  constructor(readonly snapshot = "") {}

  get(name: string): unknown {
    return name === "snapshot" ? this.snapshot : undefined;
  }

  send(content: unknown): void {
    if (this.isClosed) throw new Error("Cannot send");
    // What crosses the wire is JSON.
    this.sent.push(JSON.parse(JSON.stringify(content)) as FromPage);
  }

  on(_event: "msg:custom", listener: (message: unknown) => void): void {
    this.#listeners.add(listener);
  }

  off(_event: "msg:custom", listener: (message: unknown) => void): void {
    this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  emit(message: unknown): void {
    for (const listener of this.#listeners) listener(JSON.parse(JSON.stringify(message)));
  }

  events(events: readonly Event[], now = lastTime(events)): void {
    this.seq += 1;
    this.emit({ type: "events", seq: this.seq, events, now });
  }

  takeOver(run: RunView, now = run.started_at): void {
    this.emit({ type: "snapshot", seq: this.seq, run, now });
  }

  refuse(refused: Omit<Refused, "type">): void {
    this.emit({ ...refused, type: "refused" });
  }

  sentOf<T extends FromPage["type"]>(type: T): Extract<FromPage, { type: T }>[] {
    return this.sent.filter((message): message is Extract<FromPage, { type: T }> => message.type === type);
  }
}

function lastTime(events: readonly Event[]): number {
  return events.reduce((last, event) => ("at" in event ? event.at : last), 1_700_000_000);
}

export interface Shown {
  readonly model: FakeModel;
  readonly root: HTMLElement;
  dispose(): void;
}

/** A widget in `el` that has been told these events, one message each. */
export function show(el: HTMLElement, events: readonly Event[], model = new FakeModel()): Shown {
  const { initialize, render } = widget();
  const close = initialize({ model });
  const unmount = render({ model, el });
  for (const event of events) model.events([event]);
  const root = el.querySelector<HTMLElement>(".tc");
  if (root === null) throw new Error("the widget has not drawn anything");
  const dispose = (): void => {
    unmount();
    close();
  };
  return { model, root, dispose };
}

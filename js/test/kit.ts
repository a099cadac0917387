/** A kernel's end for the widgets of the kit: traits that change, and the runs that their envelopes are about. */

import type { Event } from "../src/fold";
import { parts } from "../src/index";
import kit from "../src/kit/index";

export class KitModel {
  readonly sent: Record<string, unknown>[] = [];
  readonly #traits: Record<string, unknown>;
  readonly #listeners = new Map<string, Set<(message: unknown) => void>>();

  constructor(traits: Record<string, unknown>) {
    this.#traits = { ...traits };
  }

  get(name: string): unknown {
    return this.#traits[name];
  }

  set(name: string, value: unknown): void {
    this.#traits[name] = value;
    this.#emit(`change:${name}`, value);
  }

  save_changes(): void {}

  send(content: unknown): void {
    this.sent.push(JSON.parse(JSON.stringify(content)));
  }

  on(event: string, listener: (message: unknown) => void): void {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
  }

  off(event: string, listener: (message: unknown) => void): void {
    this.#listeners.get(event)?.delete(listener);
  }

  get listeners(): number {
    return [...this.#listeners.values()].reduce((sum, all) => sum + all.size, 0);
  }

  /** The events of a run, in its envelope. */
  play(run_id: string, events: readonly Event[], seq = 0): void {
    const now = events.reduce((last, event) => ("at" in event ? event.at : last), 0);
    const content = { type: "events", seq, events: structuredClone(events), now };
    this.#emit("msg:custom", { type: "of", run_id, content });
  }

  #emit(event: string, message: unknown): void {
    for (const listener of this.#listeners.get(event) ?? []) listener(message);
  }
}

export function showPart(el: HTMLElement, name: string, model: KitModel): () => void {
  const make = kit({ parts })[name];
  if (make === undefined) throw new Error(`the kit has no ${name}`);
  const { initialize, render } = make();
  const close = initialize({ model });
  const unmount = render({ model, el });
  return () => {
    unmount();
    close();
  };
}

/**
 * The run, and who reads what of it: each value has a version; a view reads values through `Store.read`, which subscribes
 * it to that version alone. A text delta therefore wakes the view of its block and nothing else.
 */
import { batch, type Signal, signal } from "@preact/signals-core";
import { applyEvent, type Event, emptyRun, isStreaming, mergeRun, type Part, type Touch } from "./fold";
import type { BlockView, RunView, StepView } from "./wire";

export class Store {
  readonly run: RunView = emptyRun();
  readonly #versions = new WeakMap<Part, Signal<number>>();
  /** The kernel's clock minus ours, in seconds. */
  #offset = 0;
  readonly #thoughts = new WeakMap<BlockView, { from: number; to: number | null }>();

  /** A value of the run; the running effect is run again when it changes. */
  read<P extends Part>(part: P): P {
    this.#version(part).value;
    return part;
  }

  /** Seconds since 1970 by the kernel's clock. */
  now(): number {
    return Date.now() / 1000 + this.#offset;
  }

  apply(events: readonly Event[], now: number): void {
    this.#setClock(now);
    batch(() => {
      for (const event of events) applyEvent(this.run, event, this.#touch);
    });
  }

  /** Takes over a snapshot; values that are known keep their identity. */
  replace(run: RunView, now: number): void {
    this.#setClock(now);
    batch(() => mergeRun(this.run, run, this.#touch));
  }

  /** How long this block was thought, in seconds; null when nobody watched from its beginning. */
  thoughtFor(block: BlockView): number | null {
    const thought = this.#thoughts.get(block);
    return thought === undefined ? null : (thought.to ?? this.now()) - thought.from;
  }

  #setClock(now: number): void {
    this.#offset = now - Date.now() / 1000;
  }

  #version(part: Part): Signal<number> {
    let version = this.#versions.get(part);
    if (version === undefined) {
      version = signal(0);
      this.#versions.set(part, version);
    }
    return version;
  }

  readonly #touch: Touch = (part) => {
    if ("blocks" in part) this.#timeThoughts(part);
    // A value that nobody has read has no version to raise.
    const version = this.#versions.get(part);
    if (version !== undefined) version.value += 1;
  };

  /** The journal does not say when a block ends, so we look at the clock when a step gets or closes one. */
  #timeThoughts(step: StepView): void {
    step.blocks.forEach((block, index) => {
      if (block.kind !== "reasoning") return;
      const isLive = isStreaming(step) && index === step.blocks.length - 1;
      const thought = this.#thoughts.get(block);
      if (thought === undefined) {
        if (isLive) this.#thoughts.set(block, { from: this.now(), to: null });
      } else if (!isLive) thought.to ??= this.now();
    });
  }
}

/**
 * Buttons that do not jump under a finger.
 *
 * What appears or moves under the pointer in the moment of a click has not been read. So a target counts as ready when
 * it has stood still for half a second; a click before that does nothing. The keyboard cannot be misled by a move, only
 * by what has just appeared.
 */
import { type ReadonlySignal, signal } from "@preact/signals-core";
import type { Scope } from "../dom";

/** An object, so that a test of something else need not wait for it. */
export const patience = { steady_ms: 500 };
const SAMPLE_MS = 100;
/** Less than this is a rounding of the layout. */
const MOVED_PX = 2;

export class Steady {
  readonly #ready = signal(false);
  #since = performance.now();
  #appeared = performance.now();
  #at: { x: number; y: number } | null = null;

  constructor(
    scope: Scope,
    readonly element: Element,
  ) {
    const timer = setInterval(() => this.#sample(), SAMPLE_MS);
    scope.add(() => clearInterval(timer));
  }

  /** For the looks; `allows` decides. */
  get ready(): ReadonlySignal<boolean> {
    return this.#ready;
  }

  /** The buttons are new ones. */
  reset(): void {
    this.#appeared = performance.now();
    this.#since = this.#appeared;
    this.#ready.value = false;
  }

  allows(event: Event): boolean {
    const isPointer = event instanceof MouseEvent && event.detail > 0;
    if (!isPointer) return performance.now() - this.#appeared >= patience.steady_ms;
    this.#sample();
    return this.#ready.peek();
  }

  #sample(): void {
    const { x, y } = this.element.getBoundingClientRect();
    const last = this.#at;
    const hasMoved = last === null || Math.abs(last.x - x) > MOVED_PX || Math.abs(last.y - y) > MOVED_PX;
    if (hasMoved) {
      this.#at = { x, y };
      this.#since = performance.now();
    }
    this.#ready.value = performance.now() - this.#since >= patience.steady_ms;
  }
}

/** What the parts of one view share. */
import type { ReadonlySignal } from "@preact/signals-core";
import type { Scope } from "../dom";
import type { Link } from "../link";
import type { Store } from "../store";

export interface Context {
  readonly link: Link;
  readonly store: Store;
  /** The kernel's clock in seconds; changes a few times a second while the run is open, for those who show it. */
  readonly clock: ReadonlySignal<number>;
  /** An id that no other view has, for labels. */
  id(name: string): string;
  /** Shows a run inside this one, for reading. */
  mount(el: HTMLElement, link: Link, scope: Scope): void;
}

/** A place in the page for the view of one test, and what a person does there. It is cleared after each. */
import { afterEach, beforeEach } from "vitest";
import "../src/style.css";
import { patience } from "../src/view/steady";
import { type Shown, show } from "./model";
import { scenes } from "./scenes";
import type { Script } from "./script";

export let place: HTMLElement;
let all: Shown[] = [];

beforeEach(() => {
  place = document.createElement("div");
  document.body.append(place);
});
afterEach(() => {
  for (const shown of all) shown.dispose();
  all = [];
  document.body.replaceChildren();
});

export const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));
export const HALF_A_SECOND = patience.steady_ms;
/** For as long as a test needs, however slow the machine is. */
export const FOR_EVER = Number.POSITIVE_INFINITY;
/** For how long buttons are inert from now on. */
export const inertFor = (ms: number): void => {
  patience.steady_ms = ms;
};
// How long it is in truth is shown by few tests; the others need only that it is a while.
const A_WHILE = 200;
beforeEach(() => inertFor(A_WHILE));

/** A little more than the time for which buttons are inert. */
export const steady = (): Promise<void> => sleep(patience.steady_ms + 250);

export function stage(
  ...what: Parameters<typeof show> extends [HTMLElement, ...infer Rest] ? Rest : never
): Shown {
  const shown = show(place, ...what);
  all.push(shown);
  return shown;
}

export const play = (script: Script): Shown => stage(script.events);

export function scene(name: string): Shown {
  const script = scenes[name];
  if (script === undefined) throw new Error(`no scene ${name}`);
  return play(script());
}

export function named(text: string, root: ParentNode = place, nth = 0): HTMLButtonElement {
  const found = [...root.querySelectorAll("button")].filter((button) => button.textContent === text)[nth];
  if (found === undefined) throw new Error(`no button ${text}`);
  return found;
}

export const field = (): HTMLTextAreaElement =>
  place.querySelector(".tc-ask textarea") as HTMLTextAreaElement;

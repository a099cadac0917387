/**
 * The few lines that stand between us and the DOM.
 *
 * There is no template language here and no HTML string: text becomes a text node, an attribute is set by name,
 * an icon is path data. What cannot be written cannot be injected, and it runs under
 * `require-trusted-types-for 'script'; trusted-types 'none'`.
 */
import { effect } from "@preact/signals-core";
import { escapeHidden, HIDDEN } from "./urls";

export type Child = Node | string | number | false | null | undefined;
export type Props = Readonly<Record<string, string | number | boolean | EventListener | null | undefined>>;

const FOCUSABLE = new Set(["a", "button", "input", "select", "summary", "textarea"]);

/**
 * Keeps the notebook's command keys away from this element while it has the focus.
 *
 * JupyterLab acts on `a`, `m` or `d d` even when a button of a widget is focused (`m` turns the cell into Markdown and
 * destroys the view), and looks for this attribute on the focused element itself only, never on an ancestor.
 */
export function suppress<E extends Element>(element: E): E {
  element.setAttribute("data-lm-suppress-shortcuts", "true");
  return element;
}

/** Makes an element. `onclick` and its like take functions; `true` sets an empty attribute; null and false set none. */
export function h<T extends keyof HTMLElementTagNameMap>(
  tag: T,
  props: Props | null = null,
  ...children: readonly Child[]
): HTMLElementTagNameMap[T] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  if (FOCUSABLE.has(tag) || element.hasAttribute("tabindex")) suppress(element);
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    element.append(typeof child === "number" ? String(child) : child);
  }
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** An icon of 16 x 16 from path data; decoration only, so it is hidden from screen readers. */
export function icon(paths: readonly string[], className?: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  if (className) svg.setAttribute("class", className);
  for (const data of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    svg.append(path);
  }
  return svg;
}

/**
 * What one view holds on to: effects, listeners, timers, children. `dispose` lets go of them in reverse order, once.
 * A host may unmount a view while its model lives on, so nothing may be bound without a scope.
 */
export class Scope {
  #held: (() => void)[] = [];
  #disposed = false;

  /** Keeps a disposer; runs it at once when the scope is gone already. */
  add(dispose: () => void): void {
    if (this.#disposed) dispose();
    else this.#held.push(dispose);
  }

  /** Runs `work` now and whenever a signal that it read has changed. */
  effect(work: () => void): void {
    if (!this.#disposed) this.add(effect(work));
  }

  /** Keeps a node's text equal to what `read` returns. */
  text(node: Element, read: () => string): void {
    this.effect(() => {
      const text = read();
      if (node.textContent !== text) node.textContent = text;
    });
  }

  /** Keeps an attribute equal to what `read` returns; null removes it. */
  attribute(node: Element, name: string, read: () => string | null): void {
    this.effect(() => {
      const value = read();
      if (value === null) node.removeAttribute(name);
      else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
    });
  }

  listen(
    target: EventTarget,
    type: string,
    listener: EventListener,
    options?: AddEventListenerOptions,
  ): void {
    if (this.#disposed) return;
    target.addEventListener(type, listener, options);
    this.add(() => target.removeEventListener(type, listener, options));
  }

  /** A scope that ends with this one, or earlier. */
  child(): Scope {
    const scope = new Scope();
    this.add(() => scope.dispose());
    return scope;
  }

  dispose(): void {
    this.#disposed = true;
    for (const dispose of this.#held.splice(0).reverse()) dispose();
  }
}

/** Text whose hidden characters are marked escapes, so that `\u202e` typed out and the character itself differ. */
export function reveal(text: string): DocumentFragment {
  const fragment = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) fragment.append(text.slice(end, match.index));
    fragment.append(h("span", { class: "tc-escape" }, escapeHidden(match[0])));
    end = match.index + match[0].length;
  }
  if (end < text.length) fragment.append(text.slice(end));
  return fragment;
}

/** Copies text. `near` is where a fallback may stand for a moment: pages without TLS have no clipboard API. */
export async function copyText(text: string, near: Element): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "tc-hidden", "aria-hidden": "true" });
    field.value = text;
    near.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

/** A Copy button that reads its text when pressed, says so for a moment and keeps the focus. */
export function copyButton(read: (button: HTMLElement) => string, name = "Copy"): HTMLButtonElement {
  const label = h("span", null, name);
  const button = h("button", { type: "button", class: "tc-copy" }, icon(COPY), label);
  button.addEventListener("click", async () => {
    const copied = await copyText(read(button), button);
    label.textContent = copied ? "Copied" : "Not copied";
    button.focus({ preventScroll: true });
    setTimeout(() => {
      label.textContent = name;
    }, 1500);
  });
  return button;
}

const COPY = [
  "M6.9 5.5h4.7A1.4 1.4 0 0 1 13 6.9v4.7a1.4 1.4 0 0 1-1.4 1.4H6.9a1.4 1.4 0 0 1-1.4-1.4V6.9a1.4 1.4 0 0 1 1.4-1.4z",
  "M3.4 10.5A1.4 1.4 0 0 1 2 9.1V3.4A1.4 1.4 0 0 1 3.4 2h5.7a1.4 1.4 0 0 1 1.4 1.4",
];

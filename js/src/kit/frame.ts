/** What the widgets of the kit share: the core's parts, a root, and the links of the runs that one model shows. */
import type { parts } from "../index";
import type { Link, Model } from "../link";
import type { Wire } from "../wire";

export type Parts = typeof parts;
export type Scope = InstanceType<Parts["Scope"]>;

export interface KitModel {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, listener: (message: unknown) => void): void;
  off(event: string, listener: (message: unknown) => void): void;
}

export interface Shown {
  readonly model: KitModel;
  readonly root: HTMLElement;
  readonly scope: Scope;
  readonly links: Links;
}

export interface Part {
  initialize(given: { model: KitModel }): () => void;
  render(given: { model: KitModel; el: HTMLElement; signal?: AbortSignal }): () => void;
}

/** One link for each run, shared by all views of a model. */
export class Links {
  readonly #all = new Map<string, { link: Link; listeners: Set<(message: unknown) => void> }>();

  constructor(
    readonly core: Parts,
    readonly model: KitModel,
  ) {
    model.on("msg:custom", this.#receive);
  }

  of(runId: string): Link {
    const known = this.#all.get(runId);
    if (known !== undefined) return known.link;
    const listeners = new Set<(message: unknown) => void>();
    const inner: Model = {
      get: (name) => (name === "retryable" ? this.model.get(name) : undefined),
      send: (content) => this.send({ type: "of", run_id: runId, content: content as Record<string, never> }),
      on: (_, listener) => listeners.add(listener),
      off: (_, listener) => listeners.delete(listener),
    };
    const link = new this.core.Link(inner);
    this.#all.set(runId, { link, listeners });
    link.open();
    return link;
  }

  send(message: Wire["from_kit"]): void {
    this.model.send(message);
  }

  close(): void {
    this.model.off("msg:custom", this.#receive);
    for (const { link } of this.#all.values()) link.close();
    this.#all.clear();
  }

  readonly #receive = (message: unknown): void => {
    const { type, run_id, content } = (message ?? {}) as Record<string, unknown>;
    if (type !== "of" || typeof run_id !== "string") return;
    for (const listener of this.#all.get(run_id)?.listeners ?? []) listener(content);
  };
}

/** A widget of the kit from what it draws into its root. */
export function part(core: Parts, name: string, draw: (shown: Shown) => void): () => Part {
  return () => {
    let links: Links | null = null;
    return {
      initialize({ model }) {
        links = new Links(core, model);
        return () => links?.close();
      },
      render({ model, el, signal }) {
        const scope = new core.Scope();
        const dispose = (): void => scope.dispose();
        signal?.addEventListener("abort", dispose, { once: true });
        const root = core.h("div", { class: `tc tc-${name}` });
        draw({ model, root, scope, links: links ?? new Links(core, model) });
        el.append(root);
        scope.add(core.watchTheme(root));
        scope.add(() => root.remove());
        return dispose;
      },
    };
  };
}

/** Runs `work` now and whenever one of these traits has changed. */
export function watch({ model, scope }: Shown, names: readonly string[], work: () => void): void {
  for (const name of names) {
    model.on(`change:${name}`, work);
    scope.add(() => model.off(`change:${name}`, work));
  }
  work();
}

/** Keeps one child of `place` for each run of the trait `runs`, in its order. */
export function eachRun(
  shown: Shown,
  core: Parts,
  place: HTMLElement,
  make: (el: HTMLElement, link: Link, scope: Scope) => void,
): void {
  const views = new Map<string, { el: HTMLElement; scope: Scope }>();
  watch(shown, ["runs"], () => {
    const ids = texts(shown.model.get("runs"));
    for (const [id, { el, scope }] of views) {
      if (ids.includes(id)) continue;
      scope.dispose();
      el.remove();
      views.delete(id);
    }
    ids.forEach((id, at) => {
      let view = views.get(id);
      if (view === undefined) {
        view = { el: core.h("div"), scope: shown.scope.child() };
        views.set(id, view);
        make(view.el, shown.links.of(id), view.scope);
      }
      // What stays in its place keeps focus and scroll.
      if (place.children[at] !== view.el) place.insertBefore(view.el, place.children[at] ?? null);
    });
  });
}

/** A run under what it was asked. */
export function mountTurn(core: Parts): (el: HTMLElement, link: Link, scope: Scope) => void {
  return (el, link, scope) => {
    const said = core.h("p", { class: "tc-prompt", dir: "auto" });
    scope.effect(() => {
      const { prompt } = link.store.read(link.store.run);
      said.hidden = prompt === "";
      said.replaceChildren(core.reveal(prompt));
    });
    el.append(said);
    core.mountRun(el, link, scope);
  };
}

export function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}

export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

export function number(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

/** A line for what was not done, which is read aloud. */
export function problem(shown: Shown, core: Parts): HTMLElement {
  const line = core.h("p", { class: "tc-hint tc-bad", role: "alert" });
  watch(shown, ["problem"], () => {
    const why = text(shown.model.get("problem"));
    line.hidden = why === "";
    line.replaceChildren(core.reveal(why));
  });
  return line;
}

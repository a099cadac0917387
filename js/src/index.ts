/** The entry of the bundle: one link for each model, one view for each place it is shown in. */
import { signal } from "@preact/signals-core";
import { h, icon, reveal, Scope } from "./dom";
import { Link, type Model } from "./link";
import { watchTheme } from "./theme";
import { mountAsks, mountRun } from "./view/run";
import { cost, count, plural, roughly } from "./view/words";

/** What the kit (`kit/index.ts`), a bundle of its own, is built from. */
export const parts = {
  ...{ h, icon, reveal, Scope, signal, Link, watchTheme, mountRun, mountAsks },
  ...{ cost, count, plural, roughly },
};

interface Initialize {
  readonly model: Model;
}

interface Render extends Initialize {
  readonly el: HTMLElement;
  /** Hosts that have it abort it when the view goes away; the others call what `render` returns. */
  readonly signal?: AbortSignal;
}

/**
 * A factory, because its closure is the one thing that belongs to a model in every host: in marimo the module is shared
 * by all widgets, and the `model` object is another one in each call.
 */
export default () => {
  let link: Link | null = null;
  const linkTo = (model: Model): Link => {
    if (link === null) {
      // The listener must stand before the first view does, or the messages until then are lost.
      link = new Link(model);
      link.open();
    }
    return link;
  };
  return {
    initialize({ model }: Initialize): () => void {
      linkTo(model);
      return () => {
        link?.close();
        link = null;
      };
    },
    render({ model, el, signal }: Render): () => void {
      const scope = new Scope();
      const dispose = (): void => scope.dispose();
      if (signal?.aborted) return dispose;
      signal?.addEventListener("abort", dispose, { once: true });
      mountRun(el, linkTo(model), scope);
      return dispose;
    },
  };
};

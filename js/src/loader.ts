/**
 * What every widget carries: the way to the code, not the code.
 *
 * A front end gets the module of a widget anew with each instance, and a bundle of 150 KB with each of thirty runs is 4.7 MB
 * of messages. So the bundles stand in library widgets, one for each kernel, whose ids the trait `libraries` names; a page
 * imports each once. Hosts that have no widget manager are sent the code as a message (`fetch_code`), and where modules
 * are fetched by address and cached, the sources stand in front of this module (`notebook/library.py`).
 *
 * A page holds notebooks of several kernels, perhaps of several versions: what is known goes by the library's id.
 */

interface Model {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: "msg:custom", listener: (message: unknown) => void): void;
  off(event: "msg:custom", listener: (message: unknown) => void): void;
  readonly widget_manager?: { get_model(id: string): Promise<{ get(name: string): unknown }> };
}

interface Initialize {
  readonly model: Model;
}

interface Render extends Initialize {
  readonly el: HTMLElement;
  readonly signal?: AbortSignal;
}

interface Widget {
  initialize(given: Initialize): () => void;
  render(given: Render): () => void;
}

interface Source {
  readonly code: string;
  readonly sheet: string;
}

interface Part {
  // biome-ignore lint/suspicious/noExplicitAny: the two bundles know each other's types, this one knows neither
  readonly module: any;
  readonly sheet: CSSStyleSheet;
}

const PATIENCE_MS = 10_000;
const AGAIN_MS = 100;
const page = globalThis as unknown as Record<symbol, Map<string, Promise<Part>> | undefined>;
const KEY = Symbol.for("turncell");
page[KEY] ??= new Map();
const parts = page[KEY];
const brought = (globalThis as unknown as Record<symbol, Map<string, Source> | undefined>)[
  Symbol.for("turncell.brought")
];

function part(model: Model, id: string): Promise<Part> {
  const known = parts.get(id);
  if (known !== undefined) return known;
  const found = source(model, id).then(open);
  parts.set(id, found);
  // Another widget may have more luck.
  found.catch(() => parts.delete(id));
  return found;
}

async function source(model: Model, id: string): Promise<Source> {
  const here = brought?.get(id);
  if (here !== undefined) return here;
  const manager = model.widget_manager;
  if (manager?.get_model === undefined) return asked(model, id);
  // After a reload the models come in any order, and one that has not come is no model at all.
  for (let left = PATIENCE_MS / AGAIN_MS; ; left--) {
    try {
      const library = await manager.get_model(id);
      return { code: String(library.get("code")), sheet: String(library.get("sheet")) };
    } catch (error) {
      if (left <= 0) throw error;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

function asked(model: Model, id: string): Promise<Source> {
  return new Promise((resolve, reject) => {
    const listen = (message: unknown): void => {
      const { type, library, code, sheet } = (message ?? {}) as Record<string, unknown>;
      if (type !== "code" || library !== id) return;
      stop();
      resolve({ code: String(code), sheet: String(sheet) });
    };
    const timer = setTimeout(() => {
      stop();
      reject(new Error("turncell: the kernel has not sent the view's code"));
    }, PATIENCE_MS);
    const stop = (): void => {
      clearTimeout(timer);
      model.off("msg:custom", listen);
    };
    model.on("msg:custom", listen);
    model.send({ type: "fetch_code", library: id });
  });
}

async function open({ code, sheet }: Source): Promise<Part> {
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  try {
    const style = new CSSStyleSheet();
    style.replaceSync(sheet);
    return { module: await import(/* @vite-ignore */ url), sheet: style };
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Where `el` stands, in a document or a shadow root, gets the sheets once. */
function dress(el: HTMLElement, sheets: readonly CSSStyleSheet[]): void {
  const root = el.getRootNode();
  const place = root instanceof ShadowRoot ? root : document;
  const missing = sheets.filter((sheet) => !place.adoptedStyleSheets.includes(sheet));
  if (missing.length > 0) place.adoptedStyleSheets = [...place.adoptedStyleSheets, ...missing];
}

async function load(model: Model): Promise<{ make: () => Widget; sheets: CSSStyleSheet[] }> {
  const ids = model.get("libraries") as string[];
  const [core, kit] = await Promise.all(ids.map((id) => part(model, id)));
  if (core === undefined) throw new Error("turncell: no library is named");
  const sheets = [core, kit].flatMap((each) => (each === undefined ? [] : [each.sheet]));
  if (kit === undefined) return { make: core.module.default, sheets };
  return { make: kit.module.default(core.module)[String(model.get("part"))], sheets };
}

export default () => {
  let loaded: Promise<{ widget: Widget; sheets: CSSStyleSheet[] }> | undefined;
  let close: (() => void) | undefined;
  let isClosed = false;
  return {
    // Hosts give up on an `initialize` that takes two seconds, so it waits for nothing.
    initialize({ model }: Initialize): () => void {
      loaded = load(model).then(({ make, sheets }) => {
        const widget = make();
        if (!isClosed) close = widget.initialize({ model });
        return { widget, sheets };
      });
      // It is told where it is shown.
      loaded.catch(() => {});
      return () => {
        isClosed = true;
        close?.();
      };
    },
    async render(given: Render): Promise<(() => void) | undefined> {
      try {
        const { widget, sheets } = (await loaded) as { widget: Widget; sheets: CSSStyleSheet[] };
        dress(given.el, sheets);
        return widget.render(given);
      } catch {
        given.el.textContent = "This view has lost its kernel. The command %agent show draws the run again.";
        return undefined;
      }
    },
  };
};

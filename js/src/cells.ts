/**
 * A code block as a new cell below, where the host lets us: JupyterLab and Notebook 7, by their widget manager's document.
 * The cell is not run. Elsewhere there is no such button.
 */
import type { Model } from "./link";

interface Host {
  readonly context?: {
    readonly model?: { readonly sharedModel?: { insertCell?(at: number, cell: object): unknown } };
  };
}

/** What inserts code below the cell that `el` stands in; null where the host has no cells, or does not say which. */
export function cellInserter(model: Model, el: HTMLElement): ((code: string) => void) | null {
  const host = (model as { widget_manager?: Host }).widget_manager;
  const notebook = host?.context?.model?.sharedModel;
  if (typeof notebook?.insertCell !== "function") return null;
  return (code) => {
    const cell = el.closest(".jp-Cell");
    const at = Number(cell?.getAttribute("data-windowed-list-index") ?? -2);
    if (at >= 0)
      notebook.insertCell?.(at + 1, { cell_type: "code", source: code.replace(/\n$/, ""), metadata: {} });
  };
}

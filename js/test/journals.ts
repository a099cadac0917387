/** The recorded journals that the Python fold and ours are held to. */
import type { Event } from "../src/fold";
import type { RunView } from "../src/wire";

export interface Journal {
  readonly events: Event[];
  readonly snapshot: RunView;
}

const files = import.meta.glob<Journal>("../../tests/journals/*.json", { eager: true, import: "default" });

export const journals: Readonly<Record<string, Journal>> = Object.fromEntries(
  Object.entries(files).map(([path, journal]) => [path.replace(/^.*\/|\.json$/g, ""), journal]),
);

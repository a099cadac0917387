import axe from "axe-core";
import { afterEach, beforeEach, expect, it } from "vitest";
import "../src/style.css";
import type { Event } from "../src/fold";
import { patience } from "../src/view/steady";
import { journals } from "./journals";
import { show } from "./model";
import { scenes } from "./scenes";

const LOOKS = { light: 840, dark: 840, narrow: 320 };
const COLOURS = {
  light: { "--jp-layout-color0": "#fff", "--jp-content-font-color1": "rgba(0,0,0,.87)" },
  dark: { "--jp-layout-color0": "#111", "--jp-content-font-color1": "#fff" },
};

type Scene = [string, readonly Event[]];
const runs: Scene[] = [
  ...Object.entries(journals).map(([name, { events }]): Scene => [name, events]),
  ...Object.entries(scenes).map(([name, script]): Scene => [name, script().events]),
];

// What axe looks at are buttons that can be pressed.
beforeEach(() => {
  patience.steady_ms = 100;
});
afterEach(() => document.body.replaceChildren());

/** All runs below each other, as in a notebook: what axe looks at is then laid out and waited for once. */
function notebook(look: keyof typeof LOOKS): HTMLElement {
  const theme = look === "dark" ? "dark" : "light";
  document.body.dataset.jpThemeLight = String(theme === "light");
  document.body.style.background = COLOURS[theme]["--jp-layout-color0"];
  for (const [name, value] of Object.entries(COLOURS[theme])) document.body.style.setProperty(name, value);
  const all = document.createElement("div");
  all.style.width = `${LOOKS[look]}px`;
  document.body.append(all);
  for (const [name, events] of runs) {
    const place = document.createElement("div");
    place.dataset.name = name;
    all.append(place);
    show(
      place,
      events.map((event) => structuredClone(event)),
    );
    for (const details of place.querySelectorAll("details")) details.open = true;
  }
  return all;
}

it.each(Object.keys(LOOKS) as (keyof typeof LOOKS)[])(
  "axe finds nothing in any scene or journal, %s",
  async (look) => {
    const all = notebook(look);
    await new Promise((done) => setTimeout(done, 650));
    const wide = [...all.children].filter((place) => place.scrollWidth > LOOKS[look]);
    expect(
      wide.map((place) => (place as HTMLElement).dataset.name),
      "nothing sticks out",
    ).toEqual([]);
    const result = await axe.run(all, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      // A cell is a part of the notebook's page, which has the landmarks and the first heading.
      rules: { region: { enabled: false }, "page-has-heading-one": { enabled: false } },
      resultTypes: ["violations"],
      elementRef: true,
    });
    const found = result.violations.flatMap(({ id, nodes }) =>
      nodes.map(({ element, html }) => {
        const scene = element?.closest<HTMLElement>("[data-name]")?.dataset.name;
        return `${scene}: ${id}: ${html.slice(0, 160)}`;
      }),
    );
    expect(found).toEqual([]);
  },
  180_000,
);

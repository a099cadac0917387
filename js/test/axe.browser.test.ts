import axe from "axe-core";
import { afterEach, describe, expect, it } from "vitest";
import "../src/style.css";
import type { Event } from "../src/store";
import { journals } from "./journals";
import { show } from "./model";
import { scenes } from "./scenes";

const LOOKS = { light: 840, dark: 840, narrow: 320 };
const COLOURS = {
  light: { "--jp-layout-color0": "#fff", "--jp-content-font-color1": "rgba(0,0,0,.87)" },
  dark: { "--jp-layout-color0": "#111", "--jp-content-font-color1": "#fff" },
};

afterEach(() => document.body.replaceChildren());

async function violations(events: readonly Event[], look: keyof typeof LOOKS): Promise<string[]> {
  const theme = look === "dark" ? "dark" : "light";
  document.body.dataset.jpThemeLight = String(theme === "light");
  document.body.style.background = COLOURS[theme]["--jp-layout-color0"];
  for (const [name, value] of Object.entries(COLOURS[theme])) document.body.style.setProperty(name, value);
  const place = document.createElement("div");
  place.style.width = `${LOOKS[look]}px`;
  document.body.append(place);
  const shown = show(
    place,
    events.map((event) => structuredClone(event)),
  );
  for (const details of place.querySelectorAll("details")) details.open = true;
  await new Promise((done) => setTimeout(done, 650));
  expect(place.scrollWidth, "nothing sticks out").toBeLessThanOrEqual(LOOKS[look]);
  const result = await axe.run(place, {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    // A cell is a part of the notebook's page, which has the landmarks and the first heading.
    rules: { region: { enabled: false }, "page-has-heading-one": { enabled: false } },
  });
  shown.dispose();
  place.remove();
  return result.violations.flatMap(({ id, nodes }) =>
    nodes.map((node) => `${id}: ${node.html.slice(0, 160)}`),
  );
}

const runs: [string, readonly Event[]][] = [
  ...Object.entries(journals).map(([name, { events }]): [string, readonly Event[]] => [name, events]),
  ...Object.entries(scenes).map(([name, script]): [string, readonly Event[]] => [name, script().events]),
];

describe.each(Object.keys(LOOKS) as (keyof typeof LOOKS)[])("axe finds nothing in %s", (look) => {
  it.each(runs)("%s", async (_name, events) => expect(await violations(events, look)).toEqual([]));
});

import axe from "axe-core";
import { describe, expect, it } from "vitest";
import { userEvent } from "vitest/browser";
import type { Shown } from "./model";
import { Script } from "./script";
import { named, place, stage, steady } from "./stage";

const SCHEMA = {
  type: "object",
  required: ["sql", "limit"],
  properties: {
    sql: { type: "string", minLength: 3, description: "One statement of <b>DuckDB</b>." },
    limit: { type: "integer", minimum: 1, maximum: 500 },
    format: { $ref: "#/$defs/Format" },
    title: { anyOf: [{ type: "string" }, { type: "null" }], default: null },
    columns: { type: "array", items: { type: "string" } },
    ratio: { type: "number" },
  },
  $defs: { Format: { enum: ["csv", "json"] } },
};
const VALUES = { sql: "select *\nfrom sales", limit: 20, format: "csv", title: null, columns: ["a"] };

async function editing(values: object = VALUES, schema: object | null = SCHEMA): Promise<Shown> {
  const script = new Script("x").step().call("query", values).finish().propose("write", "ask");
  const shown = stage([]);
  if (schema !== null) shown.model.emit({ type: "parameters", request_id: "ask-call-1-0", schema });
  for (const event of script.ask("Reads the sales.").events) shown.model.events([event]);
  await steady();
  await userEvent.click(named("Edit arguments"));
  await steady();
  return shown;
}

function field<E extends HTMLElement = HTMLTextAreaElement>(label: string): E {
  const labels = [...place.querySelectorAll<HTMLLabelElement>(".tc-form label")];
  const found = labels.find(({ textContent }) => textContent?.replace(" optional", "") === label);
  if (found === undefined) throw new Error(`no field ${label}`);
  return place.querySelector(`#${found.htmlFor}`) as E;
}

async function sent(shown: Shown): Promise<unknown> {
  // A press of the mouse would be waited for, where the button is off.
  named("Run edited call").click();
  const [answer] = shown.model.sentOf("answer");
  return answer === undefined ? null : JSON.parse(answer.arguments ?? "null");
}

describe("arguments with a schema are edited in fields", () => {
  it("which hold what is asked for, and send what they were changed to", async () => {
    const shown = await editing();
    expect(field("sql").value).toBe(VALUES.sql);
    expect(document.activeElement).toBe(field("sql"));
    await userEvent.fill(field("sql"), "select 1");
    await userEvent.fill(field("limit"), "7");
    await userEvent.selectOptions(field<HTMLSelectElement>("format"), "json");
    expect(place.querySelector(".tc-diff")?.textContent).toContain("+ limit: 7");
    const changed = { sql: "select 1", limit: 7, format: "json", title: null, columns: ["a"] };
    expect(await sent(shown)).toEqual(changed);
  });

  it.each([
    ["limit", "0", "limit must be at least 1"],
    ["limit", "many", "limit is not a number"],
    ["limit", "1.5", "limit must be integer, and is number"],
    ["limit", "", "limit is needed"],
    ["sql", "x", "sql must be at least 3 long"],
    ["columns", '["a", 3]', "columns 1: must be string, and is integer"],
    ["columns", "[", "columns is not valid JSON"],
  ])("which say what does not fit: %s as %j", async (name, text, problem) => {
    const shown = await editing();
    await userEvent.fill(field(name), text);
    expect(field(name).getAttribute("aria-invalid")).toBe("true");
    const hint = place.querySelector(`#${field(name).getAttribute("aria-describedby")}`);
    expect(hint?.textContent).toBe(problem);
    expect(place.innerText.split(problem)).toHaveLength(2);
    expect(await sent(shown)).toBeNull();
  });

  it("of which an empty one is left out, and null stays null", async () => {
    const shown = await editing();
    await userEvent.fill(field("ratio"), "0.50");
    await userEvent.fill(field("columns"), "");
    expect(await sent(shown)).toEqual({ ...VALUES, columns: undefined, ratio: 0.5 });
  });

  it("but not where a field would hide a character: that is JSON", async () => {
    await editing({ ...VALUES, sql: "select\u202e 1\r\n" });
    expect(field("sql").value).toBe('"select\\u202e 1\\u000d\\n"'.replace("\\u000d", "\\r"));
  });

  it("and keep what is no number as it was typed when they become JSON", async () => {
    await editing();
    await userEvent.fill(field("limit"), "many");
    await userEvent.click(named("As JSON"));
    const editor = place.querySelector<HTMLTextAreaElement>(".tc-tall textarea") as HTMLTextAreaElement;
    expect(JSON.parse(editor.value)).toEqual({ ...VALUES, limit: "many" });
    expect(place.textContent).toContain("limit: must be integer, and is string");
  });

  it("or as JSON, which is checked as well", async () => {
    const shown = await editing();
    await userEvent.click(named("As JSON"));
    const editor = place.querySelector<HTMLTextAreaElement>(".tc-tall textarea") as HTMLTextAreaElement;
    expect(JSON.parse(editor.value)).toEqual(VALUES);
    await userEvent.fill(editor, '{"sql": "select 1", "limit": 999}');
    expect(place.textContent).toContain("limit: must be at most 500");
    await userEvent.fill(editor, '{"sql": "select 1", "limit": 99}');
    await userEvent.click(named("As fields"));
    expect(field("limit").value).toBe("99");
    await steady();
    expect(await sent(shown)).toEqual({ sql: "select 1", limit: 99 });
  });

  it("unless a number is too large for the page", async () => {
    await editing({ ...VALUES, limit: 2 ** 60 });
    expect(place.querySelector(".tc-form")).toBeNull();
  });

  it("with code in colours behind its field, word for word", async () => {
    await editing();
    await userEvent.fill(field("sql"), "select 2\n");
    const copy = field("sql").previousElementSibling as HTMLElement;
    expect(copy.textContent).toBe("select 2\n\n");
    expect(copy.querySelector(".tc-hl-keyword")?.textContent).toBe("select");
    expect(copy.offsetHeight).toBe(field("sql").offsetHeight);
  });

  it("and axe finds nothing in them", async () => {
    await editing();
    await userEvent.fill(field("limit"), "many");
    const rules = { region: { enabled: false }, "page-has-heading-one": { enabled: false } };
    const { violations } = await axe.run(place, { rules });
    expect(violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id} ${html}`))).toEqual([]);
  });

  it("made of nothing but text, whatever a server's schema says", async () => {
    const bad = "<img src=x onerror=alert(1)>\u202e";
    const odd = { [bad]: { type: "string", description: bad, enum: [bad], default: bad }, __proto__x: 3 };
    await editing({ [bad]: bad }, { properties: odd, required: 7, $ref: 3, anyOf: "x" });
    expect(place.querySelector("img")).toBeNull();
    expect(place.textContent).toContain("\\u202e");
  });
});

it("without a schema they are edited as JSON", async () => {
  await editing(VALUES, null);
  expect(place.querySelector(".tc-form")).toBeNull();
  expect(place.textContent).toContain("Arguments (JSON)");
});

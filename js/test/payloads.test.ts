import { describe, expect, it } from "vitest";
import { parseAnsi, renderLines } from "../src/ansi";
import { reveal } from "../src/dom";
import { MarkdownStream } from "../src/markdown";
import { readable, visible } from "../src/urls";
import { forbidden } from "./forbidden";
import payloads from "./payloads.json";
import { pieces, seeded } from "./streams";

const of = (where: string) => payloads.filter((payload) => payload.where === where);

describe("hostile Markdown makes nothing but text and plain elements", () => {
  it.each(of("markdown"))("$id", ({ input }) => {
    const made = new MarkdownStream(document.createElement("div"), { highlight: false });
    // Long ones test time, not shape; they need not be looked at after each piece.
    const every = Math.ceil(input.length / 400);
    let nth = 0;
    for (const piece of pieces(input, seeded(7))) {
      made.append(piece);
      if (nth++ % every !== 0) continue;
      made.flush();
      expect(forbidden(made.root)).toEqual([]);
    }
    made.end();
    expect(forbidden(made.root)).toEqual([]);
    made.dispose();
  });

  it("keeps the text of refused links readable", () => {
    for (const { id, input } of of("markdown").filter((payload) => payload.cat === "url")) {
      const made = new MarkdownStream(document.createElement("div"), { highlight: false });
      made.append(input);
      made.end();
      expect(made.root.textContent, id).not.toBe("");
    }
  });
});

describe("hostile output of tools", () => {
  it.each(of("ansi"))("$id", ({ input }) => {
    const root = document.createElement("pre");
    root.append(renderLines(parseAnsi(input)));
    expect(forbidden(root)).toEqual([]);
    expect(root.textContent).not.toMatch(/(?![\t\n])\p{Cc}/u);
  });
});

describe("hostile characters", () => {
  it.each([...of("text"), ...of("json"), ...of("ui")])("$id", ({ input }) => {
    expect(visible(input)).not.toMatch(
      /(?![\t\n])\p{Cc}|[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/u,
    );
    expect(readable(input)).not.toMatch(/[\u202a-\u202e\u{e0000}-\u{e007f}]/u);
    const root = document.createElement("div");
    root.append(reveal(input));
    expect(forbidden(root)).toEqual([]);
    expect(root.textContent).toBe(visible(input));
  });
});

import MarkdownIt from "markdown-it";
import { expect, test } from "vitest";
import { decodeHTMLStrict } from "../src/stubs/entities.ts";

test.each([
  ["&amp;", "&"],
  ["&nbsp;", "\u00a0"],
  ["&yuml;", "ÿ"],
  ["&hearts;", "♥"],
  ["&rang;", "⟩"],
  ["&apos;", "'"],
  ["&bogus;", "&bogus;"],
])("%s becomes %s", (reference, character) => {
  expect(decodeHTMLStrict(reference)).toBe(character);
});

test("markdown-it runs here with the same stand-ins as in the bundle", () => {
  const md = new MarkdownIt({ linkify: true });
  expect(md.renderInline("&eacute; &#65; &Dcaron; https://example.org")).toBe(
    "é A &amp;Dcaron; https://example.org",
  );
});

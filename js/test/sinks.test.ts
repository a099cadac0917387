/// <reference types="vite/client" />
import { expect, test } from "vitest";

// Text of a model becomes nodes, never markup. These are the ways by which a string could become markup or code.
const sinks =
  /\b(innerHTML|outerHTML|insertAdjacentHTML|setHTML(Unsafe)?|parseHTMLUnsafe|createContextualFragment)\b|\bdocument\s*\.\s*write(ln)?\b|\beval\s*\(|\bnew\s+Function\b|\bDOMParser\b/;

const sources = import.meta.glob<string>("../src/**/*.ts", { query: "?raw", import: "default", eager: true });

test("there are sources to look at", () => {
  expect(Object.keys(sources)).toContain("../src/index.ts");
});

test.each(Object.entries(sources))("%s turns no string into markup or code", (_path, text) => {
  const found = text
    .split("\n")
    .flatMap((line, i) => (sinks.test(line) ? [`line ${i + 1}: ${line.trim()}`] : []));
  expect(found).toEqual([]);
});

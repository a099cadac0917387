import { expect, it, vi } from "vitest";
import type { Model } from "../src/link";
import { MarkdownStream } from "../src/markdown";
import { typesetter } from "../src/math";
import { oneShot } from "./streams";

const formulas = (text: string): (string | null)[] =>
  [...oneShot(text).querySelectorAll(".tc-math")].map((node) => node.textContent);

it.each([
  ["The area is $\\pi r^2$, and $a_1 * b_1$ too.", ["$\\pi r^2$", "$a_1 * b_1$"]],
  ["\\(a_1 * b * c\\) and \\[ x = y \\]", ["\\(a_1 * b * c\\)", "\\[ x = y \\]"]],
  ["$$\na = b\n$$", ["$$\na = b\n$$"]],
  ["- $x$\n\n| a | b |\n|---|---|\n| $y$ | $z$ |", ["$x$", "$y$", "$z$"]],
])("reads %j as formulas", (text, found) => {
  expect(formulas(text)).toEqual(found);
});

it.each([
  "costs $5 or $6, between $10 and 20$",
  "from $5 to $10-$20",
  "$PATH/$USER and $HOME",
  "a price of 5 $, or 6 $",
  "\\$x$ and `$x$` and \\\\(a\\\\)",
  "$$",
  "$ $",
  "\\[foo]: /url and \\(\\)",
  ...[
    "href{https://evil.test}{x}",
    "def\\a{b}",
    "require{html}",
    "class{jp-Dialog}{x}",
    "csname href\\endcsname{a}",
  ].map((command) => `$\\${command}$`),
])("reads %j as text", (text) => {
  expect(formulas(text)).toEqual([]);
});

it("reads 20 KB of dollars and brackets in no time", () => {
  const started = performance.now();
  for (const text of ["$", "$a ", "$$", "\\(a", "\\[a", "\\(\\["]) oneShot(text.repeat(20_000 / text.length));
  expect(performance.now() - started).toBeLessThan(20_000);
});

function typesetBy(typeset: (node: HTMLElement) => unknown): ReturnType<typeof typesetter> {
  return typesetter({ widget_manager: { rendermime: { latexTypesetter: { typeset } } } } as unknown as Model);
}

it("has the host typeset each formula once, when its block is whole, and takes no link of it", async () => {
  const seen: (string | null)[] = [];
  const typeset = typesetBy(async (node) => {
    seen.push(node.textContent);
    const link = document.createElement("a");
    link.textContent = `[${node.textContent}]`;
    node.replaceChildren(link);
  });
  const root = document.createElement("div");
  const made = new MarkdownStream(root, { highlight: false, typeset });
  made.append("So $a$ is.\n\nAnd $b$ ");
  made.flush();
  expect(seen).toEqual(["$a$"]);
  made.append("is, too.");
  made.end();
  await vi.waitFor(() => expect(root.textContent).toBe("So [$a$] is.And [$b$] is, too."), 20_000);
  expect(seen).toEqual(["$a$", "$b$"]);
  await vi.waitFor(() => expect(root.querySelector("a")).toBeNull(), 20_000);
});

it("leaves a formula as it was written where the host has nothing to typeset with, or fails", async () => {
  expect(typesetter({} as unknown as Model)).toBeUndefined();
  const failing = vi.fn(() => Promise.reject(new Error("MathJax retry")));
  const root = document.createElement("div");
  const made = new MarkdownStream(root, { highlight: false, typeset: typesetBy(failing) });
  made.append("So $a$ is.");
  made.end();
  await vi.waitFor(() => expect(failing).toHaveBeenCalledOnce(), 20_000);
  expect(root.textContent).toBe("So $a$ is.");
});

import { afterEach, describe, expect, it } from "vitest";
import { h } from "../src/dom";
import { detectTheme, watchTheme } from "../src/theme";

const { body, documentElement: html } = document;
const cleanups: (() => void)[] = [];

function mounted(parent: Node = body): HTMLElement {
  const root = h("div");
  parent.appendChild(root);
  cleanups.push(() => root.remove());
  return root;
}

afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
  for (const node of [html, body])
    for (const name of ["class", "style", "theme", "data-theme", "data-jp-theme-light"])
      node.removeAttribute(name);
});

describe("the theme", () => {
  it.each([
    ["JupyterLab light", () => body.setAttribute("data-jp-theme-light", "true"), "light"],
    ["JupyterLab dark", () => body.setAttribute("data-jp-theme-light", "false"), "dark"],
    ["VS Code dark", () => body.classList.add("vscode-dark"), "dark"],
    ["VS Code light", () => body.classList.add("vscode-light"), "light"],
    ["VS Code high contrast", () => body.classList.add("vscode-high-contrast"), "dark"],
    [
      "VS Code high contrast light",
      () => body.classList.add("vscode-high-contrast", "vscode-high-contrast-light"),
      "light",
    ],
    ["Colab dark", () => html.setAttribute("theme", "dark"), "dark"],
    ["marimo dark", () => body.classList.add("dark"), "dark"],
    ["a dark background", () => body.setAttribute("style", "background: rgb(20, 20, 20)"), "dark"],
    ["a light background", () => body.setAttribute("style", "background: #fafafa"), "light"],
  ] as const)("of %s is seen", (_, mark, theme) => {
    mark();
    expect(detectTheme(mounted())).toBe(theme);
  });

  it("is seen from inside a shadow root", () => {
    body.setAttribute("style", "background: black");
    const shadow = mounted().attachShadow({ mode: "open" });
    expect(detectTheme(mounted(shadow))).toBe("dark");
  });

  it("is followed until the view is gone", async () => {
    body.setAttribute("data-jp-theme-light", "true");
    const root = mounted();
    const stop = watchTheme(root);
    expect(root.style.colorScheme).toBe("light");
    body.setAttribute("data-jp-theme-light", "false");
    await expect.poll(() => root.style.colorScheme).toBe("dark");
    stop();
    body.setAttribute("data-jp-theme-light", "true");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(root.style.colorScheme).toBe("dark");
  });
});

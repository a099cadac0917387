import type {} from "@vitest/browser-playwright";
import { afterEach, expect, it } from "vitest";
import { cdp } from "vitest/browser";
import "../src/style.css";
import { show } from "./model";
import { Script } from "./script";

const printing = (media: string): Promise<unknown> => cdp().send("Emulation.setEmulatedMedia", { media });

afterEach(async () => {
  await printing("");
  delete document.body.dataset.jpThemeLight;
  document.body.removeAttribute("style");
  document.body.replaceChildren();
});

it("prints dark on white in a dark theme, and no line of code is cut", async () => {
  document.body.dataset.jpThemeLight = "false";
  document.body.setAttribute("style", "width: 700px; background: #111");
  document.body.style.setProperty("--jp-layout-color0", "#111");
  document.body.style.setProperty("--jp-content-font-color1", "#fff");
  const text = `See [one](https://example.com/):\n\n\`\`\`python\nx = "${"x".repeat(300)}"\n\`\`\``;
  show(document.body, new Script("Why?").step().say(text).finish("stop").end("completed").events);
  const [paragraph, link, pre] = ["p", "a", "pre"].map((tag) => document.querySelector(`.tc-md ${tag}`));
  const colour = (node: Element | null | undefined): string => getComputedStyle(node as Element).color;
  expect(colour(paragraph)).toBe("rgb(255, 255, 255)");
  await printing("print");
  expect(colour(paragraph)).toBe("rgb(31, 35, 40)");
  expect(colour(link)).toBe("rgb(11, 87, 208)");
  expect(getComputedStyle(document.querySelector(".tc") as Element).backgroundColor).toBe(
    "rgb(255, 255, 255)",
  );
  expect(pre?.scrollWidth).toBe(pre?.clientWidth);
});

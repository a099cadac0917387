// Pictures of every state of a run, in light, dark and narrow: `node test/gallery.mjs [directory]`, then look at them.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import { chromium } from "playwright";
import { options } from "../build.mjs";

const out = resolve(process.argv[2] ?? "../artifacts/gallery");
mkdirSync(out, { recursive: true });

const journals = {
  name: "journals",
  setup(build) {
    // Stands for Vite's import.meta.glob, which the tests use.
    build.onLoad({ filter: /test[\\/]journals\.ts$/ }, async () => {
      const { readdirSync } = await import("node:fs");
      const at = resolve(import.meta.dirname, "../../tests/journals");
      const names = readdirSync(at).filter((name) => name.endsWith(".json"));
      const all = Object.fromEntries(
        names.map((n) => [n.slice(0, -5), JSON.parse(readFileSync(join(at, n), "utf8"))]),
      );
      return { contents: `export const journals = ${JSON.stringify(all)}`, loader: "js" };
    });
  },
};

await esbuild.build({
  ...options,
  ...{ outdir: out, minify: false, plugins: [journals, ...options.plugins] },
  entryPoints: {
    gallery: resolve(import.meta.dirname, "gallery.ts"),
    style: "src/style.css",
    kit: "src/kit/style.css",
  },
});

// What JupyterLab 4.6 sets on its page.
const themes = {
  light:
    "--jp-layout-color0:#fff;--jp-layout-color1:#fff;--jp-content-font-color1:rgba(0,0,0,.87);--jp-ui-font-color1:rgba(0,0,0,.87)",
  dark: "--jp-layout-color0:#111;--jp-layout-color1:#212121;--jp-content-font-color1:#fff;--jp-ui-font-color1:#fff",
};
const fonts =
  "--jp-ui-font-family:Inter,system-ui,sans-serif;--jp-content-font-family:Inter,system-ui,sans-serif;--jp-code-font-family:'JetBrains Mono',Menlo,monospace;--jp-content-font-size1:14px";
for (const [theme, variables] of Object.entries(themes)) {
  writeFileSync(
    join(out, `${theme}.html`),
    `<!doctype html><html lang="en"><meta charset="utf-8"><title>${theme}</title><link rel="stylesheet" href="style.css"><link rel="stylesheet" href="kit.css">
<style>:root{${variables};${fonts}}body{margin:0;padding:20px 24px 36px;max-width:840px;background:var(--jp-layout-color0)}
h6{font:500 11px/1.4 Inter,sans-serif;color:#777;margin:26px 0 6px}</style>
<body data-jp-theme-light="${theme === "light"}"><script type="module" src="gallery.js"></script></body></html>`,
  );
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"],
});
for (const page of process.argv[3]?.split(",") ?? ["scenes", "kit", "journals"]) {
  for (const [theme, width] of Object.entries({ light: 900, dark: 900, narrow: 368 })) {
    if (theme === "narrow" && page === "journals") continue;
    const view = await browser.newPage({ viewport: { width, height: 900 }, deviceScaleFactor: 1.5 });
    view.on("pageerror", (error) => console.error(error));
    view.on("console", (message) => message.type() === "error" && console.error(message.text()));
    const file = theme === "narrow" ? "dark" : theme;
    await view.goto(`${pathToFileURL(join(out, `${file}.html`))}?page=${page}`);
    await view.waitForTimeout(1600);
    const height = await view.evaluate(() => document.documentElement.scrollHeight);
    for (let top = 0, number = 1; top < height; top += 1300, number++) {
      const clip = { x: 0, y: top, width, height: Math.min(1300, height - top) };
      await view.screenshot({ path: join(out, `${page}-${theme}-${number}.png`), clip, fullPage: true });
    }
    await view.close();
  }
}
await browser.close();
console.log(out);

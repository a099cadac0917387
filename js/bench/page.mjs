// Figures of the page in Chromium, as one line of JSON: `node bench/page.mjs [quick]`. See `bench/cases/page.py`.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import * as esbuild from "esbuild";
import { chromium } from "playwright";
import { options } from "../build.mjs";

const isQuick = process.argv[2] === "quick";
const out = mkdtempSync(join(tmpdir(), "turncell-bench-"));
await esbuild.build({
  ...{ ...options, outdir: out, metafile: false },
  entryPoints: { page: resolve(import.meta.dirname, "page.ts"), style: "src/style.css" },
});
const html = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="style.css"><body><script>';
writeFileSync(join(out, "page.html"), `${html}${readFileSync(join(out, "page.js"), "utf8")}</script>`);
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"],
});

/** What `work` returns in a page of its own, with the CPU seconds that its main thread has spent on it. */
async function measured(name, ...values) {
  const page = await browser.newPage({ viewport: { width: 900, height: 900 } });
  await page.goto(pathToFileURL(join(out, "page.html")).href);
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const spent = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    return ["TaskDuration", "RecalcStyleDuration", "LayoutDuration", "LayoutCount"].map(
      (what) => metrics.find(({ name }) => name === what).value,
    );
  };
  const before = await spent();
  const found = await page.evaluate(([name, values]) => globalThis.bench[name](...values), [name, values]);
  const [cpu_s, style_s, layout_s, drawn] = (await spent()).map((value, at) => value - before[at]);
  await page.close();
  return { found, spent: { cpu_s, style_s, layout_s, drawn } };
}

async function timed(name, ...values) {
  const { found, spent } = await measured(name, ...values);
  const figures = { ...found, ...spent, frame_ms: (1000 * spent.cpu_s) / found.frames };
  process.stderr.write(`  ${name} ${values.join(" ")} ${JSON.stringify(figures)}\n`);
  return figures;
}

try {
  const share = isQuick ? 10 : 1;
  const answer = await timed("stream", "answer", 100_000 / share, 10);
  const long = await timed("stream", "answer", 1_000_000 / share, 1000);
  const short = await timed("stream", "answer", 100_000 / share, 1000);
  const fence = await timed("stream", "fence", 100_000 / share, 10);
  const table = await timed("stream", "table", 800 / share, 10);
  const peerAnswer = await timed("stream", "answer", 100_000 / share, 10, true);
  const peerFence = await timed("stream", "fence", 20_000 / share, 10, true);
  const peerTable = await timed("stream", "table", 800 / share, 10, true);
  const live = await timed("live", "answer", 100_000 / share, 2_500);
  const peerLive = await timed("live", "answer", 100_000 / share, 2_500, true);
  const liveLong = await timed("live", "answer", 1_000_000 / share, 25_000);
  const liveShort = await timed("live", "answer", 100_000 / share, 25_000);
  const none = await measured("open", 0);
  const notebook = await measured("open", 30);
  const open_ms = 1000 * (notebook.spent.cpu_s - none.spent.cpu_s);
  const streamed = {
    answer,
    long,
    short,
    fence,
    table,
    live,
    liveLong,
    liveShort,
    peerAnswer,
    peerFence,
    peerTable,
    peerLive,
  };
  process.stdout.write(`${JSON.stringify({ ...streamed, open_ms })}\n`);
} finally {
  await browser.close();
  rmSync(out, { recursive: true });
}

// Two projects: `unit` in a simulated DOM (quick, no layout) and `browser` in a real Chromium (layout, focus, security).
// A test that needs the real thing is called *.browser.test.ts.
import { playwright } from "@vitest/browser-playwright";
import { defineConfig } from "vitest/config";
import { alias } from "./build.mjs";

const inBrowser = "test/**/*.browser.test.ts";

const chromiumFlags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export default defineConfig({
  resolve: { alias },
  test: {
    // What must come is waited for as long as the slowest machine may need.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 30_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          environment: "happy-dom",
          include: ["test/**/*.test.ts"],
          exclude: [inBrowser],
          // Node would load markdown-it by itself, past the aliases: test what is shipped.
          server: { deps: { inline: ["markdown-it"] } },
        },
      },
      {
        extends: true,
        test: {
          name: "browser",
          include: [inBrowser],
          browser: {
            enabled: true,
            headless: true,
            screenshotFailures: false,
            provider: playwright({
              launchOptions: {
                executablePath: process.env.CHROMIUM_PATH ?? "/usr/bin/chromium",
                args: chromiumFlags,
              },
            }),
            instances: [{ browser: "chromium" }],
          },
        },
      },
    ],
  },
});

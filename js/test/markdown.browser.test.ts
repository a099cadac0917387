import { afterEach, describe, expect, it } from "vitest";
import { MarkdownStream } from "../src/markdown";
import { forbidden } from "./forbidden";
import payloads from "./payloads.json";
import {
  blocksOf,
  MARKS,
  oneShot,
  PROSE,
  pieces,
  ROWS,
  seeded,
  settled,
  TEXTS,
  TEXTS_WITH_DEFINITIONS,
  WORDS,
  withoutFenceTail,
} from "./streams";

const streams: MarkdownStream[] = [];

function stream(options = {}): MarkdownStream {
  const root = document.createElement("div");
  document.body.append(root);
  const made = new MarkdownStream(root, { highlight: false, ...options });
  streams.push(made);
  return made;
}

afterEach(() => {
  for (const made of streams.splice(0)) {
    made.dispose();
    made.root.remove();
  }
});

function isSame(root: Element, wanted: Element): boolean {
  const blocks = blocksOf(root);
  return (
    blocks.length === wanted.childNodes.length &&
    blocks.every((node, index) => node.isEqualNode(wanted.childNodes[index] ?? null))
  );
}

/** The blocks as text, to be read where they differ. */
function html(root: Element): string {
  return blocksOf(root)
    .map((node) => (node as Element).outerHTML)
    .join("");
}

/** A piece more, and what is shown then is what the text would give at once, but for a fence that may yet close. */
function growsTo(made: MarkdownStream, piece: string): void {
  made.append(piece);
  made.flush();
  const shown = settled(made.text);
  if (isSame(made.root, oneShot(shown)) || isSame(made.root, oneShot(withoutFenceTail(shown)))) return;
  expect(html(made.root), JSON.stringify(shown.slice(-300))).toBe(oneShot(shown).innerHTML);
}

describe("a stream of Markdown in a browser", () => {
  it("shows at every prefix what the prefix gives at once", () => {
    let checks = 0;
    TEXTS.forEach((text, index) => {
      for (let seed = 0; seed < 12; seed++) {
        const made = stream();
        for (const piece of pieces(text, seeded(1000 * index + seed))) {
          growsTo(made, piece);
          checks++;
        }
        made.end();
        expect(isSame(made.root, oneShot(text))).toBe(true);
        made.root.remove();
      }
    });
    expect(checks).toBeGreaterThan(5_000);
  }, 120_000);

  it("shows the same for blocks in any order", () => {
    const blocks = TEXTS.slice(0, 8).flatMap((text) => text.split(/(?<=\n)/));
    for (let seed = 0; seed < 60; seed++) {
      const random = seeded(seed);
      const text = Array.from({ length: 25 }, () => blocks[Math.floor(random() * blocks.length)]).join("");
      const made = stream();
      for (const piece of pieces(text, random)) {
        growsTo(made, piece);
      }
      made.root.remove();
    }
  }, 120_000);

  it.each([
    ["marks", MARKS],
    ["words", [...WORDS, ...MARKS]],
    ["prose", PROSE],
    ["rows of tables", ROWS],
  ])(
    "shows the same for %s in any order",
    (_, parts) => {
      for (let seed = 0; seed < 500; seed++) {
        const random = seeded(7919 * seed + 13);
        const size = 8 + Math.floor(random() * 30);
        const some = Array.from({ length: size }, () => parts[Math.floor(random() * parts.length)]).join("");
        const text = parts === ROWS ? `| a | b |\n|---|---|\n${some}` : some;
        const made = stream();
        for (const piece of pieces(text, random)) {
          growsTo(made, piece);
        }
        made.end();
        expect(html(made.root), JSON.stringify(text)).toBe(oneShot(text).innerHTML);
        made.root.remove();
      }
    },
    120_000,
  );

  it("resolves late definitions at the end, whatever surrounds them", () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = seeded(seed);
      const lines = [...TEXTS_WITH_DEFINITIONS, ...TEXTS.slice(0, 3)].flatMap((text) =>
        text.split(/(?<=\n)/),
      );
      const text = Array.from({ length: 25 }, () => lines[Math.floor(random() * lines.length)]).join("");
      const made = stream();
      for (const piece of pieces(text, random)) {
        made.append(piece);
        made.flush();
      }
      made.end();
      if (!isSame(made.root, oneShot(text)))
        expect(html(made.root), JSON.stringify(text)).toBe(oneShot(text).innerHTML);
      made.root.remove();
    }
  }, 120_000);

  it("keeps what a person has selected while the paragraph grows", async () => {
    const made = stream();
    made.append("Some **bold** words that were");
    made.flush();
    const words = made.root.querySelector("p")?.lastChild as Text;
    const selection = document.getSelection();
    selection?.setBaseAndExtent(words, 1, words, 6);
    for (const piece of [" selected", " and *more*", " come", ".\n\nNext paragraph\n\n- list\n"]) {
      made.append(piece);
      await new Promise(requestAnimationFrame);
      made.flush();
      expect(selection?.toString()).toBe("words");
    }
  });

  it("keeps what is selected over many blocks, and every row of a table that grows", () => {
    const made = stream();
    made.append(`${"One more paragraph.\n\n".repeat(100)}| a | b |\n|---|---|\n| 1 | 2 |\n`);
    made.flush();
    const [first, row] = [made.root.querySelector("p"), made.root.querySelector("tbody tr")];
    document.getSelection()?.setBaseAndExtent(first as Node, 0, row as Node, 2);
    const selected = document.getSelection()?.toString();
    for (let index = 0; index < 100; index++) {
      made.append(`| ${index} | x |\n`);
      made.flush();
    }
    made.append("\nEnd.\n");
    made.end();
    expect(document.getSelection()?.toString()).toBe(selected);
    expect(made.root.querySelector("tbody tr")).toBe(row);
    expect(html(made.root)).toBe(oneShot(made.text).innerHTML);
  });

  it("keeps a selection in a code block that grows", () => {
    const made = stream();
    made.append("```py\nfirst = 1\nsec");
    made.flush();
    const line = made.root.querySelector(".tc-lines")?.firstChild as Text;
    document.getSelection()?.setBaseAndExtent(line, 0, line, 5);
    made.append(`ond = 2\n${"x\n".repeat(200)}`);
    made.flush();
    expect(document.getSelection()?.toString()).toBe("first");
  });

  it("copies the lines of a long code block as they were written", () => {
    const made = stream();
    const code = Array.from({ length: 200 }, (_, index) => `line ${index}\n`).join("");
    made.append(`\`\`\`\n${code}\`\`\`\n`);
    made.end();
    const element = made.root.querySelector("code") as HTMLElement;
    expect(element.textContent).toBe(code);
    document.getSelection()?.selectAllChildren(element);
    expect(document.getSelection()?.toString().trimEnd()).toBe(code.trimEnd());
  });

  it("flushes by itself, a frame later", async () => {
    const made = stream();
    made.append("hello");
    expect(made.root.textContent).toBe("");
    await expect.poll(() => made.root.textContent).toBe("hello");
    expect(made.root.className).toBe("tc-live");
    made.end();
    expect(made.root.className).toBe("");
  });

  it("shows later what comes while it waits for a page that draws slowly, and the end at once", async () => {
    const drawSlowly = (): void => {
      for (const until = performance.now() + 30; performance.now() < until; );
    };
    const made = stream({ onFlush: drawSlowly });
    for (const text of ["Some", "Some more", "Some more words"]) {
      made.append(text.slice(made.text.length));
      await expect.poll(() => made.root.textContent).toBe(text);
    }
    made.append(" yet");
    made.end();
    expect(made.root.textContent).toBe("Some more words yet");
  });

  it("colours closed code blocks in idle time and leaves their text alone", async () => {
    const made = stream({ highlight: true });
    made.append(
      '```python\nimport duckdb  # "x"\nf"{a}" + 1\n```\n\ntext\n\n```nolang\nimport\n```\n\n- ```sql\n  select `a` from b\n  ```\n\nend [x]\n\n[x]: https://x.test/\n',
    );
    made.end();
    await expect.poll(() => made.root.querySelectorAll("code .tc-hl-keyword").length).toBeGreaterThan(1);
    expect([...made.root.querySelectorAll("pre code")].map((code) => code.textContent)).toEqual([
      'import duckdb  # "x"\nf"{a}" + 1\n',
      "import\n",
      "select `a` from b\n",
    ]);
    expect(forbidden(made.root)).toEqual([]);
  });

  it("asks before a doubtful link opens", () => {
    const made = stream();
    made.append("[bank.com](https://evil.test/)");
    made.end();
    const link = made.root.querySelector("a") as HTMLAnchorElement;
    const click = () => {
      const event = new MouseEvent("click", { bubbles: true, cancelable: true });
      const stop = (late: Event) => {
        stopped = late.defaultPrevented;
        late.preventDefault();
      };
      let stopped = false;
      document.addEventListener("click", stop, { once: true });
      link.dispatchEvent(event);
      return stopped;
    };
    expect(link.textContent).toContain("evil.test");
    expect(click()).toBe(true);
    expect(click()).toBe(false);
  });
});

describe("hostile input in a browser", () => {
  it("makes no request and runs nothing, even when everything is hovered and clicked", async () => {
    let scripts = 0;
    Object.assign(globalThis, { __xss: () => scripts++ });
    const before = performance.getEntriesByType("resource").length;
    const stopNavigation = (event: Event) => event.preventDefault();
    document.addEventListener("click", stopNavigation);
    for (const { id, input, where } of payloads) {
      if (where !== "markdown") continue;
      const made = stream({ highlight: true });
      made.append(input);
      made.end();
      expect(forbidden(made.root), id).toEqual([]);
      for (const element of made.root.querySelectorAll<HTMLElement>("*:not(.tc-image button, svg, svg *)")) {
        element.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
        element.click();
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
    document.removeEventListener("click", stopNavigation);
    expect(scripts).toBe(0);
    const requests = performance.getEntriesByType("resource").slice(before);
    expect(requests.map(({ name }) => name).filter((name) => !name.startsWith(location.origin))).toEqual([]);
  }, 60_000);

  const hostile: [string, string][] = [
    "[",
    "*a ",
    "**a *b ",
    "[a](",
    "![a]",
    "`",
    "<http://a",
    "|",
    "_a__b",
    "&#x",
    "\\",
    "~~a ",
  ].map((unit) => [unit, unit.repeat(Math.ceil(20_000 / unit.length))]);
  hostile.push(
    ["quotes", "> ".repeat(2_000)],
    ["lists", Array.from({ length: 300 }, (_, depth) => `${"  ".repeat(depth)}- x\n`).join("")],
  );

  it.each(hostile)(
    "takes 20 KB of %j at once and in 100 pieces",
    (_, text) => {
      const started = performance.now();
      const whole = stream();
      whole.append(text);
      whole.end();
      expect(performance.now() - started).toBeLessThan(30_000);
      const streamed = stream();
      for (let at = 0; at < text.length; at += text.length / 100) {
        streamed.append(text.slice(Math.round(at), Math.round(at + text.length / 100)));
        streamed.flush();
      }
      streamed.end();
      expect(performance.now() - started).toBeLessThan(100_000);
      expect(html(streamed.root)).toBe(html(whole.root));
    },
    150_000,
  );

  it("costs the same per piece at the end of a long answer as at its start", () => {
    const text = `${TEXTS[0]}\n\n`.repeat(150);
    const made = stream();
    const costs: number[] = [];
    for (let at = 0; at < text.length; at += 40) {
      const started = performance.now();
      made.append(text.slice(at, at + 40));
      made.flush();
      costs.push(performance.now() - started);
    }
    // Without the dearest twentieth: what made the machine stall cost no piece of the text anything.
    const mean = (part: number[]) => {
      const usual = part.sort((a, b) => a - b).slice(0, Math.ceil(part.length * 0.95));
      return usual.reduce((sum, cost) => sum + cost, 0) / usual.length;
    };
    const third = Math.floor(costs.length / 3);
    expect(mean(costs.slice(-third))).toBeLessThan(4 * mean(costs.slice(0, third)) + 1);
  }, 60_000);
});

import { afterEach, describe, expect, it } from "vitest";
import { MarkdownStream } from "../src/markdown";
import {
  blocksOf,
  oneShot,
  pieces,
  seeded,
  settled,
  TEXTS,
  TEXTS_WITH_DEFINITIONS,
  withoutFenceTail,
} from "./streams";

const root = (): HTMLElement => document.createElement("div");
const streams: MarkdownStream[] = [];

function stream(node = root()): MarkdownStream {
  const made = new MarkdownStream(node, { highlight: false });
  streams.push(made);
  return made;
}

afterEach(() => {
  for (const made of streams.splice(0)) made.dispose();
});

function html(node: HTMLElement): string {
  return blocksOf(node)
    .map((block) => (block as Element).outerHTML)
    .join("");
}

describe("a stream of Markdown", () => {
  it.each(TEXTS.map((text, index) => [index, text] as const))(
    "shows at every prefix what the prefix gives at once (%i)",
    (index, text) => {
      const made = stream();
      for (const piece of pieces(text, seeded(index))) {
        made.append(piece);
        made.flush();
        const shown = settled(made.text);
        if (html(made.root) === oneShot(shown).innerHTML) continue;
        const held = oneShot(withoutFenceTail(shown));
        expect(html(made.root), JSON.stringify(made.text.slice(-60))).toBe(held.innerHTML);
      }
      made.end();
      expect(html(made.root)).toBe(oneShot(text).innerHTML);
    },
  );

  it.each(TEXTS_WITH_DEFINITIONS)("resolves late definitions at the end: %j", (text) => {
    for (let seed = 0; seed < 10; seed++) {
      const made = stream();
      for (const piece of pieces(text, seeded(seed))) {
        made.append(piece);
        made.flush();
      }
      made.end();
      expect(html(made.root)).toBe(oneShot(text).innerHTML);
    }
  });

  it("does not touch a block that is over", () => {
    const made = stream();
    made.append("one\n\ntwo\n\nthree");
    made.flush();
    const [first] = blocksOf(made.root);
    made.append(" more\n\n- four\n");
    made.flush();
    expect(blocksOf(made.root)[0]).toBe(first);
  });

  it("keeps text and refuses to go on after its end", () => {
    const made = stream();
    made.append("a\r");
    made.append("\nb");
    made.end();
    made.end();
    expect(made.text).toBe("a\r\nb");
    expect(made.root.textContent).toBe("a\nb");
    expect(() => made.append("c")).toThrow(/after end/);
  });

  it("shows back-ticks that never became a closing fence", () => {
    const made = stream();
    made.append("```\ncode\n``");
    made.flush();
    expect(made.root.querySelector("code")?.textContent).toBe("code\n");
    made.end();
    expect(made.root.querySelector("code")?.textContent).toBe("code\n``");
  });

  it("leaves a loaded image loaded when the text around it grows", () => {
    const made = stream();
    made.append("see ![c](https://h.test/c.png) and");
    made.flush();
    made.root.querySelector<HTMLButtonElement>(".tc-image button")?.click();
    made.append(" more\n\nnext\n\n");
    made.flush();
    expect(made.root.querySelector("img")?.getAttribute("referrerpolicy")).toBe("no-referrer");
    expect(made.root.querySelector(".tc-image")).toBeNull();
  });

  it("cuts a block that never ends instead of parsing it for ever", () => {
    const made = stream();
    made.append(`| a |\n|---|\n${`| row ${"x".repeat(100)} |\n`.repeat(3_000)}`);
    made.end();
    expect(made.root.textContent?.match(/row/g)).toHaveLength(3_000);
  });
});

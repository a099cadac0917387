import { describe, expect, it } from "vitest";
import { parseAnsi, renderLines } from "../src/ansi";

const text = (input: string) => parseAnsi(input).map((line) => line.map((span) => span.text).join(""));
const classes = (input: string) =>
  parseAnsi(input).flatMap((line) => line.map((span) => [span.text, span.classes]));

describe("text of a terminal", () => {
  it("becomes classes", () => {
    expect(classes("a\x1b[1;31mb\x1b[22mc\x1b[0md")).toEqual([
      ["a", ""],
      ["b", "tc-bold tc-fg-red"],
      ["c", "tc-fg-red"],
      ["d", ""],
    ]);
    expect(classes("\x1b[92;44mx\x1b[39;49my\x1b[my")).toEqual([
      ["x", "tc-fg-green tc-bg-blue"],
      ["yy", ""],
    ]);
    expect(classes("\x9b35mC1")).toEqual([["C1", "tc-fg-magenta"]]);
  });

  it("keeps a style over the end of a line", () => {
    expect(classes("\x1b[33ma\nb")).toEqual([
      ["a", "tc-fg-yellow"],
      ["b", "tc-fg-yellow"],
    ]);
  });

  it("maps many colours to the few of the theme and greys to none", () => {
    expect(classes("\x1b[38;2;200;10;10mr\x1b[38;5;46mg\x1b[38;2;255;255;255mw\x1b[38;5;240;1mb")).toEqual([
      ["r", "tc-fg-red"],
      ["g", "tc-fg-green"],
      ["w", ""],
      ["b", "tc-bold"],
    ]);
  });

  it("drops what would act on a terminal and keeps the text of links", () => {
    expect(
      text("\x1b]0;title\x07a\x1b]52;c;cm0=\x1b\\b\x1bP1$r0m\x1b\\c\x1b[6n\x1b[2J\x1b[10;10Hd\x1b7e\x1b(Bf"),
    ).toEqual(["abcdef"]);
    expect(text("\x1b]8;;https://evil.test\x1b\\link\x1b]8;;\x1b\\!")).toEqual(["link!"]);
  });

  it("never lets text vanish", () => {
    expect(text("\x1b[8mhidden")).toEqual(["hidden"]);
    expect(text("\x1b]0;open\nnext")).toEqual(["\x1b]0;open", "next"]);
    const root = document.createElement("pre");
    root.append(renderLines(parseAnsi("abc\b\b\bx\x1b]0;open")));
    expect(root.textContent).toBe("abc\\u0008\\u0008\\u0008x\\u001b]0;open\n");
  });

  it("rewrites a line after a return, and only that line", () => {
    expect(text("10%\r20%\r100%\nnext")).toEqual(["100%", "next"]);
    expect(text("first\nlonger line\rshort\n")).toEqual(["first", "shortr line"]);
    expect(text("longer line\r\x1b[Kshort")).toEqual(["short"]);
    expect(text("one\r\ntwo\r\n")).toEqual(["one", "two"]);
    expect(text("kept\x1b[2K")).toEqual(["kept"]);
    expect(classes("\x1b[31mabcdef\r\x1b[32mxy")).toEqual([
      ["xy", "tc-fg-green"],
      ["cdef", "tc-fg-red"],
    ]);
  });

  it("counts lines as people do", () => {
    expect(text("")).toEqual([]);
    expect(text("a\n\nb\n")).toEqual(["a", "", "b"]);
    expect(text("\n")).toEqual([""]);
  });

  it("goes into blocks of 64 lines", () => {
    const root = document.createElement("pre");
    root.append(renderLines(parseAnsi("x\n".repeat(130)), 0, 100));
    expect([...root.children].map((child) => child.textContent?.length)).toEqual([128, 72]);
  });

  it("reads a megabyte in bounded time", () => {
    const started = performance.now();
    parseAnsi("\x1b[31m12345678\r".repeat(80_000));
    parseAnsi(`\x1b[${"1;".repeat(400_000)}m`);
    parseAnsi("\x1b]".repeat(400_000));
    parseAnsi("\x1b[".repeat(400_000));
    expect(performance.now() - started).toBeLessThan(20_000);
  });
});

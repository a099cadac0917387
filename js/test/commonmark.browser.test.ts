/// <reference types="vite/client" />
/** The examples of the CommonMark specification, as far as they hold no raw HTML, through our builder. */

import spec from "commonmark-spec/spec.txt?raw";
import MarkdownIt from "markdown-it";
import { describe, expect, it } from "vitest";
import { languageOf } from "../src/code";
import { safeUrl } from "../src/urls";
import { oneShot } from "./streams";

interface Example {
  readonly number: number;
  readonly markdown: string;
  readonly html: string;
}

const examples: Example[] = [
  ...spec.replace(/\r\n?/g, "\n").matchAll(/^`{32} example\n([\s\S]*?)^\.\n([\s\S]*?)^`{32}$/gm),
].map((match, index) => ({
  number: index + 1,
  markdown: (match[1] ?? "").replaceAll("→", "\t"),
  html: (match[2] ?? "").replaceAll("→", "\t"),
}));

const commonmark = new MarkdownIt("commonmark");
commonmark.normalizeLink = (url) => url;
const hasHtml = (markdown: string): boolean =>
  commonmark
    .parse(markdown, {})
    .some(
      (token) =>
        token.type === "html_block" || (token.children ?? []).some((child) => child.type === "html_inline"),
    );

/** A tree as text, with our own furniture taken away and with the policies applied to what the specification expects. */
function outline(node: Node, isCode = false): string {
  if (node instanceof Text) return isCode ? node.data : node.data.replace(/\s+/g, " ");
  if (!(node instanceof Element)) return "";
  const inner = (code = isCode) => [...node.childNodes].map((child) => outline(child, code)).join("");
  const name = node.localName;
  if (node.matches("button, svg, .tc-code-head, .tc-host")) return "";
  if (node.matches("img, .tc-image")) return "[image]";
  if (node.matches(".tc-code, .tc-table, .tc-lines")) return inner();
  if (name === "a") {
    // Which characters are percent-encoded is left to the writer.
    const url = safeUrl(node.getAttribute("href") ?? "");
    return url === null ? inner() : `<a ${decodeURI(url.href).replaceAll("%5C", "\\")}>${inner()}</a>`;
  }
  if (name === "pre") return `<pre>${inner(true)}</pre>`;
  if (name === "code" && isCode)
    return `<code ${languageOf((/language-(\S+)/.exec(node.className) ?? [])[1] ?? "")}>${inner()}</code>`;
  if (name === "ol") return `<ol ${node.getAttribute("start") ?? ""}>${inner()}</ol>`;
  return `<${name}>${inner(isCode || name === "code")}</${name}>`;
}

const tidy = (root: Element) =>
  [...root.childNodes]
    .map((node) => outline(node))
    .join("")
    // White space between blocks is the specification's layout, not content.
    .replace(/\s*(<\/?(?:p|h\d|ul|ol [^>]*|ol|li|blockquote|pre|hr|br)>)\s*/g, "$1");

describe("CommonMark", () => {
  // Example 25 is about rare names of characters, which the bundle leaves out.
  const usable = examples.filter(({ number, markdown }) => number !== 25 && !hasHtml(markdown));

  it("has its examples here", () => {
    expect(usable.length).toBeGreaterThan(500);
  });

  it.each(usable)("example $number", ({ markdown, html }) => {
    const wanted = new DOMParser().parseFromString(html, "text/html").body;
    expect(tidy(oneShot(markdown))).toBe(tidy(wanted));
  });
});

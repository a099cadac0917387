/** Shared by the tests of streamed Markdown: texts, a seeded generator and the one-shot rendering to compare with. */
import { build, parse } from "../src/build";
import { GROUP_BLOCKS } from "../src/markdown";

/** mulberry32: small, seeded, good enough to cut texts. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** The text in pieces of 1 to 12 characters. */
export function* pieces(text: string, random: () => number): Generator<string> {
  for (let at = 0; at < text.length; ) {
    const size = 1 + Math.floor(random() * 12);
    yield text.slice(at, at + size);
    at += size;
  }
}

/** What a text gives when it is parsed at once, without any of the stream's shortcuts. */
export function oneShot(text: string): HTMLElement {
  const root = document.createElement("div");
  const source = text.replace(/\r\n?/g, "\n");
  root.append(...parse(source, {}).map((block) => build(block, { loaded: new Set() })));
  return root;
}

/** The groups of a stream's blocks taken away: all but the last are full. */
export function blocksOf(root: Element): ChildNode[] {
  const groups = [...root.children].map((group) => [...group.childNodes]);
  if (groups.some(({ length }, index) => length !== GROUP_BLOCKS && index < groups.length - 1))
    throw new Error(`groups of ${groups.map(({ length }) => length)} blocks`);
  return groups.flat();
}

/** The text without half a line end or half a character at its end. */
export function settled(text: string): string {
  return text.replace(/[\r\ud800-\udbff]$/, "");
}

/** The text without a last line that may yet close a fence: the stream holds it back on purpose. */
export function withoutFenceTail(text: string): string {
  return text.replace(/\r\n?/g, "\n").replace(/(?<=\n) {0,3}(?:`*|~*)[ \t]*$/, "");
}

export const TEXTS: readonly string[] = [
  `# West fell\n\nWest fell **18%** against Q2, see [the *incident*](https://example.com/i) and \`amount\`.\n\n| Region | Q2 | Q3 |\n|:--|--:|:-:|\n| North | 412,300 | 431,900 |\n| West | 295,640 | ~~1~~ |\n\n## Reproduce\n\n\`\`\`python\nimport duckdb\nwest = duckdb.sql("select 1")  # \`\`\` inside\n\n\`\`\`\nDone.\n\n- a\n- b\n  1. c\n  2. d\n\n     more\n\n> quote\nlazy\n\n---\n![chart](https://cdn.example.net/c.png)\nend`,
  "para\n#hashtag\npara\n# head\npara\n| a | b |\n|---|---|x\nnot a table\n\n| a | b |\n|---|---|\n| 1 | 2 |\n# head\n",
  "Title\n===\ntext\n---\n- item\n---\n* * *\n+ one\n\n  two\n+ three\n\n\n1) x\n2) y\n\n        code\n\n    code too\n\n\n    still\ntext",
  "```\nno language\n``\n ```` \n```\n~~~~ r title\nx <- 1\n~~~\n```\n  ~~~~\n~~~~\n  ```js\n  indented fence\n    more\n  ```\n- list\n  ```sql\n  select 1\n  ```\n- b\n\n````md\n```py\n1\n```\n````\ntail",
  "text\n```py\nprint(1)\n```\n```\n\n```\n\n\n~~~\nopen to the end\n  ~~",
  "> ```\n> quoted code\n> ```\n> > deeper\n> > - list\n>\n> back\n\nafter\n> again\n\n***bold it*** **a *b* c** *a **b** c* __x__ _y_ snake_case_name 2*3*4 `` a`b `` \\*no\\* &amp; &copy; &#x41; <b>not html</b> <https://a.test/?q=1&b=2> <me@a.test>  \nhard\\\nbreak\n",
  "first\r\n\r\nsecond\r\nthird\r\r\n- a\r- b\r\n\r\n```r\r\nx\r\n```\r\nend\r",
  "👨‍👩‍👧 😀 text 🏴 \u{e0069}\u{e0067} x\u202ey\u202c z\n\n```\n😀\u{e0069}\u{e0067}\u202e\n```\n漢字 и кириллица, עברית\n",
  `${"long line of words ".repeat(20)}\n${"and **more** ".repeat(20)}\n\n${"- item\n".repeat(40)}\nend\n\n\`\`\`\n${"line\n".repeat(150)}\`\`\`\n\n${"| a | b |\n".repeat(1)}|---|---|\n${"| 1 | 2 |\n".repeat(30)}`,
  "[a](javascript:x) [b](https://u:p@h.test/) [other.com](https://example.com/) ![i](x.png) [![k](https://h.test/i.png)](https://h.test/) ![x](https://h.test/a.png)\n\n[not a def]\n: x\n\na[1]: b\n",
  "1. one\n10. two\n\n   ```\n   x\n   ```\n\n3. three\n   continued\nlazy\n\n- [ ] task\n- [x] done\n-\n- \n\n*\n\ntext",
  "x\n\n```|===***\n|---|---x\n\n# a | b\n|--|--|\n1 | 2\n\n```\ncode\n    ",
  "So $x_1$ is *one* of $5, not $6.\n\n$$\na * b_1 = c_1 *\n$$\nand \\(y_1 * z_1\\) \\[ w \\] `$c$` $\\href{https://a.test}{b}$\n\n| $a$ | b |\n|---|---|\n| $c$ | $5 |\n\nlast $z",
  "a\n\n\n\nb\n   \n  c\n\t\n\tcode\n\n<div>\n\n*x*\n</div>\n\n<!-- c -->\n# \n## x ##\n####### seven\n\n+\n",
];

/** What Markdown is made of, to be put together at random. */
export const MARKS: readonly string[] = [
  ...[
    "\n",
    "\n",
    "\n",
    "\n\n",
    "- ",
    "1. ",
    "> ",
    "# ",
    "```",
    "~~~",
    "````",
    "    ",
    "  ",
    "\t",
    "| a | b |",
    "|---|---|",
    "|",
  ],
  ...[
    "===",
    "---",
    "text",
    "*",
    "**",
    "_",
    "`",
    "[",
    "]",
    "(https://a.test)",
    "![",
    "a b c",
    "***",
    "&amp;",
    "\\",
    "~~",
  ],
  ...["+ ", "2) ", "```py", "<b>", " "],
];

/** Words, and what may or may not mean something between them. */
export const WORDS: readonly string[] = [
  ...["a", "b c", " word", " ", "  ", "1", "2.", ".", ",", ":", "(", ")", "!", "<", ">", "&am", "p;", "\\"],
  ...["[", "]", "](", "https://a.test", "*", "_", "**", "`", "~~", "\n", "\n- ", "\n> ", "\n# ", "\n1. "],
  ...[
    "\n---\n",
    "\n===",
    "\n\n",
    "\t",
    "|",
    "#",
    " #",
    "=",
    "-",
    "+ ",
    "%",
    "{",
    "^",
    "\u00a0",
    "\u202e",
    "é",
    "漢",
  ],
];

/** Marks in lines of prose that are opened, closed, escaped or left alone. */
export const PROSE: readonly string[] = [
  ...[
    "$",
    "$x$",
    "\\(",
    "\\)",
    "a word ",
    "b ",
    " c",
    "d",
    ". ",
    ' "e" ',
    " ",
    "**",
    " **",
    "** ",
    "*",
    " *",
    "* ",
    "_",
    " _",
    "`",
    " `",
    "` ",
  ],
  ...[
    "``",
    "~~",
    "[",
    "](https://a.test)",
    "](https://a.test) ",
    "](javascript:x) ",
    "[](x:y) ",
    "![",
    "<https://a.test> ",
  ],
  ...[
    "\\",
    "\\*",
    "&amp;",
    "&",
    "<",
    "]",
    ": ",
    "\n",
    "\n- ",
    "\n\n# ",
    "\n\n",
    " #",
    "\u00a0",
    "\u202e",
    "é",
  ],
];

/** Rows of a table and what may end it. */
export const ROWS: readonly string[] = [
  ...["| a | b |\n", "|---|--:|\n", "| 1 | 2 |\n", "| 1 |\n", "1 | 2 | 3\n", "plain\n", "| | |\n", "|\n"],
  ...[
    "| *x* | `y|z` |\n",
    "| a \\| b | c |\n",
    "| pa",
    "rt",
    "\n",
    "\r\n",
    "# h\n",
    "> q\n",
    "- l\n",
    "1. x\n",
  ],
  ...["    code\n", "```\n", "---\n", "   | i | j |\n"],
];

/** With link definitions: equal at the end, not at every step. */
export const TEXTS_WITH_DEFINITIONS: readonly string[] = [
  "See [one] and [two][2].\n\npara\n\n[one]: https://one.test/\n[2]: <https://two.test/> 'Title'\n\nAgain [one].\n\n[one]: https://late.test/\n\nend",
  'text [a]\n\n[a]: https://a.test/\n"title\nmore\nend"\n\nafter [a]\n',
  'x\n\n[a]: https://a.test/\n"title\nno end\n\nafter [a]\n\n```\n[a]: https://code.test/\n```\n[a] [b]\n\n[b]:\nhttps://b.test/\n',
  "> [q]: https://q.test/\n\n[q]\n\n- [l]: https://l.test/\n\n[l]\n\n```py\n[l]\n```\n[l]: https://no.test/",
];

// Bundles src/ into the Python package: `npm run build`, or `npm run watch` while working on the page.
//
// The stamp beside the bundle (see hatch_build.py) says which sources it was made from. It is removed here first and
// written by the hook last, so a bundle from an interrupted or a manual build is never taken for a current one.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../src/turncell/notebook/static");

// Paid once per notebook; the loader is paid with every widget.
const MAX_JS_BYTES = 150_000;

// More than half of markdown-it are its dependencies, and the page wants next to nothing of them.
const replaced = ["entities", "linkify-it", "mdurl", "punycode.js", "uc.micro"];
export const alias = Object.fromEntries(replaced.map((name) => [name, join(here, `src/stubs/${name}.ts`)]));

// Rules of markdown-it that are switched off here (no HTML, no bare links, no typography) and its HTML writer, 12 KB of
// what no page of ours ever runs. The package is one file, so they are cut out of it by its own region marks.
const never = {
  "src/renderer.ts": "var Renderer = class {};",
  "src/rules_core/linkify.ts": "var linkify$1 = () => {};",
  "src/rules_core/replacements.ts": "var replace = () => {};",
  "src/rules_core/smartquotes.ts": "var smartquotes = () => {};",
  "src/common/html_blocks.ts": "",
  "src/common/html_re.ts": "",
  "src/rules_block/html_block.ts": "var html_block = () => false;",
  "src/rules_inline/linkify.ts": "var linkify = () => false;",
  "src/rules_inline/html_inline.ts": "var html_inline = () => false;",
};

// Presets, and methods of its classes that nobody calls here or that build.ts replaces.
const methods =
  "use enable enableOnly disable render renderInline validateLink normalizeLink normalizeLinkText " +
  "at after attrPush attrSet attrJoin";
const method = (name) => [name, new RegExp(`^\\t${name}\\([^)]*\\) \\{[\\s\\S]*?^\\t\\}`, "gm")];
const notOurs = {
  zero: /^\tzero: \{[\s\S]*?^\t\},/m,
  commonmark: /^\tcommonmark: \{[\s\S]*?^\t\}/m,
  ...Object.fromEntries(methods.split(" ").map(method)),
};

const cutMarkdownIt = {
  name: "cut-markdown-it",
  setup(build) {
    build.onLoad({ filter: /[\\/]markdown-it[\\/]dist[\\/]markdown-it\.mjs$/ }, ({ path }) => {
      let contents = readFileSync(path, "utf8");
      for (const [region, instead] of Object.entries(never)) {
        const start = contents.indexOf(`//#region ${region}\n`);
        const end = contents.indexOf("//#endregion", start);
        if (start < 0 || end < 0)
          throw new Error(`markdown-it has no region ${region} any more; see build.mjs`);
        contents = contents.slice(0, start) + instead + contents.slice(end);
      }
      for (const [name, whole] of Object.entries(notOurs)) {
        const rest = contents.replace(whole, "");
        if (rest === contents) throw new Error(`markdown-it has no ${name} any more; see build.mjs`);
        contents = rest;
      }
      // A helper for browsers that are older than this page.
      const define = /_defineProperty\(\s*this,\s*(?:\/\*\*(?:(?!\*\/)[\s\S])*\*\/\s*)?"(\w+)",\s*/g;
      contents = contents.replace(define, "void (this.$1 = ");
      return { contents, loader: "js" };
    });
  },
};

// The same for highlight.js: it looks for code in the page, guesses languages, takes plugins and writes HTML, all of which
// is done here by highlight.ts or not at all. Each of these becomes empty.
const unused = [
  ...[
    "highlightElement",
    "highlightAll",
    "highlightAuto",
    "initHighlightingOnLoad",
    "deprecateHighlightBlock",
  ],
  ...["shouldNotHighlight", "blockLanguage", "updateClassName", "justTextHighlightResult", "autoDetection"],
  ...["unregisterLanguage", "listLanguages", "upgradePluginAPI", "addPlugin", "removePlugin"],
  ...["deepFreeze", "fire", "escapeHTML", "scoreForKeyword", "commonKeyword"],
  ...["HTMLRenderer", "TokenTree", "TokenTreeEmitter", "HTMLInjectionError"],
];

// What it says to programmers of grammars, and words by which it guesses that a text is prose.
const idle = [
  [/new Error\((?:"[^"]*"|'[^']*'|`[^`]*`)\)/g, "new Error()"],
  [/\berror\((?:"[^"]*"|'[^']*'|`[^`]*`)/g, 'error(""'],
  [/(?<=const LANGUAGE_NOT_FOUND = )"[^"]*"/, '""'],
  [/const ENGLISH_WORD = either\([\s\S]*?(?=return mode;)/, ""],
  [/(?<=const PHRASAL_WORDS_MODE = )\{[\s\S]*?\}/, "{}"],
  [/(?<=const COMMON_KEYWORDS = )\[[\s\S]*?\]/, "[]"],
];

const cutHighlight = {
  name: "cut-highlight",
  setup(build) {
    build.onLoad({ filter: /[\\/]highlight\.js[\\/]lib[\\/]core\.js$/ }, ({ path }) => {
      let contents = readFileSync(path, "utf8");
      for (const name of unused) {
        const whole = new RegExp(`^( *)((?:function|class) ${name}\\b[^{]*)\\{[\\s\\S]*?^\\1\\}`, "m");
        if (!whole.test(contents)) throw new Error(`highlight.js has no ${name} any more; see build.mjs`);
        contents = contents.replace(whole, "$1$2{}");
      }
      for (const [words, instead] of idle) contents = contents.replace(words, instead);
      return { contents, loader: "js" };
    });
  },
};

// Lists of names that cost more than their colour is worth: the functions of SQL (which are then coloured as its other
// words), the 350 words that its standard reserves (those that are written remain), and the programs of a shell.
const SQL_WORDS =
  "all alter and any array as at between by case cast check column commit constraint create cross cube current_date " +
  "current_timestamp deallocate default delete describe distinct drop else end escape except execute exists explain " +
  "extract fetch filter for foreign from full function grant group grouping having in inner insert intersect into is " +
  "join lateral leading left like limit merge natural not null offset on only or order outer over partition primary " +
  "procedure references returning revoke right rollback rollup rows select set sets some start table tablesample then " +
  "to trailing trigger truncate union unique unnest update using values when where window with within without " +
  "avg coalesce count lag lead max min nullif rank row_number sum";
const lists = {
  sql: { RESERVED_FUNCTIONS: "", RESERVED_WORDS: SQL_WORDS },
  bash: { ZSH_BUILT_INS: "", GNU_CORE_UTILS: "" },
};

const cutLanguages = {
  name: "cut-languages",
  setup(build) {
    build.onLoad({ filter: /[\\/]highlight\.js[\\/].*languages[\\/](sql|bash)\.js$/ }, ({ path }) => {
      let contents = readFileSync(path, "utf8");
      for (const [name, words] of Object.entries(lists[path.match(/(\w+)\.js$/)[1]])) {
        const whole = new RegExp(`const ${name} = \\[[\\s\\S]*?\\];`);
        if (!whole.test(contents)) throw new Error(`${path} has no ${name} any more; see build.mjs`);
        contents = contents.replace(whole, `const ${name} = "${words}".split(" ").filter(Boolean);`);
      }
      return { contents, loader: "js" };
    });
  },
};

// Names of properties that only markdown-it, highlight.js and build.ts know, and use by no other way than `.name`.
const inside = [
  ..."relevance blkIndent sCount parentType BACKSLASH_ESCAPE bMarks tShift delimiters eMarks subLanguage".split(
    " ",
  ),
  ..."classNameAliases posMax beginKeywords endsWithParent parseLinkDestination tokens_meta keywordPatternRe".split(
    " ",
  ),
  ..."terminatorEnd getRules excludeBegin parseLinkLabel parseLinkTitle bsCount regexIndex listIndent isMatchIgnored".split(
    " ",
  ),
  ..."excludeEnd compilerExtensions cachedVariants HASH_COMMENT_MODE backticksScanned _prev_delimiters multiRegexes".split(
    " ",
  ),
  ..."lineMax returnBegin C_BLOCK_COMMENT_MODE UNDERSCORE_IDENT_RE __beforeBegin enableOnly matchIndexes".split(
    " ",
  ),
  ..."can_continue pendingLevel QUOTE_STRING_MODE APOS_STRING_MODE considerAll case_insensitive".split(" "),
  ..."__rules__ __cache__ normalizeLink normalizeLinkText validateLink isEmpty maxNesting getLines".split(
    " ",
  ),
];

export const options = {
  absWorkingDir: here,
  entryPoints: { widget: "src/index.ts" },
  outdir: out,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none", // the texts go into THIRD_PARTY_LICENSES.txt
  charset: "utf8",
  metafile: true,
  logLevel: "warning",
  alias,
  mangleProps: new RegExp(`^(?:${inside.join("|")})$`),
  plugins: [cutMarkdownIt, cutHighlight, cutLanguages],
};
/** What each widget carries, and the kit, which is built from the widget's parts and has only its own code. */
const others = { ...options, entryPoints: { loader: "src/loader.ts", kit: "src/kit/index.ts" } };
const styles = { ...options, entryPoints: { widget: "src/style.css", kit: "src/kit/style.css" } };
const LIMITS = { "widget.js": MAX_JS_BYTES, "loader.js": 3_000, "kit.js": 30_000 };

/** The licence texts of the npm packages that really are in the bundle. */
function licences(metafiles) {
  const files = metafiles.flatMap((metafile) => Object.values(metafile.outputs));
  const inputs = files.flatMap((file) => Object.entries(file.inputs));
  const used = inputs.filter(([, { bytesInOutput }]) => bytesInOutput > 0);
  const roots = used.map(([path]) => path.match(/^.*node_modules\/(?:@[^/]+\/)?[^/]+/)?.[0]);
  const texts = [...new Set(roots.filter(Boolean))].sort().map((root) => {
    const { name, version, license } = JSON.parse(readFileSync(join(here, root, "package.json"), "utf8"));
    const file = readdirSync(join(here, root)).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file) throw new Error(`${name} is bundled but has no licence file; its terms must travel with it`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(here, root, file), "utf8").trim()}\n`;
  });
  const head = "widget.js contains code of the following packages.\n";
  return [head, ...texts].join(`\n${"-".repeat(78)}\n\n`);
}

function report(metafiles) {
  writeFileSync(join(out, "THIRD_PARTY_LICENSES.txt"), licences(metafiles));
  for (const name of ["loader.js", "widget.js", "widget.css", "kit.js", "kit.css"]) {
    const bytes = readFileSync(join(out, name));
    console.log(`${name}  ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
    if (bytes.length > (LIMITS[name] ?? Number.POSITIVE_INFINITY)) {
      throw new Error(`${name} has ${bytes.length} bytes; the limit is ${LIMITS[name]}`);
    }
  }
}

async function main() {
  mkdirSync(out, { recursive: true });
  rmSync(join(out, "widget.stamp"), { force: true });
  if (process.argv.includes("--watch")) {
    for (const each of [options, others, styles]) {
      const context = await esbuild.context({ ...each, logLevel: "info" });
      await context.watch();
    }
    return;
  }
  const results = await Promise.all([options, others, styles].map(esbuild.build));
  report(results.map((result) => result.metafile));
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) await main();

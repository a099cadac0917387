/**
 * Stands in the bundle for five packages that markdown-it imports (an `alias` of the build) and saves half of the parser:
 *
 * - linkify-it, punycode.js and mdurl are never called: bare links are off, and URLs are the business of urls.ts.
 * - uc.micro has classes of characters as long lists; the regular expressions of the language know them.
 * - entities has 2,231 named characters in 40 KB; the names of HTML 4 are 2 KB.
 */

export class LinkifyIt {}

const unused = (text: string): string => text;
export default { toASCII: unused, toUnicode: unused };
export { unused as decode, unused as encode, unused as format, unused as parse };

export const P = /\p{P}/u;
export const S = /\p{S}/u;

const named = new Map<string, string>([
  ["amp", "&"],
  ["lt", "<"],
  ["gt", ">"],
  ["quot", '"'],
  ["apos", "'"],
]);

/** Names in the order of their code points, from each start on; `-` leaves one out. */
const RUNS: readonly (readonly [number, string])[] = [
  [
    0xa0,
    "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 sup3 acute micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml",
  ],
  [0x152, "OElig oelig"],
  [0x160, "Scaron scaron"],
  [
    0x391,
    "Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota Kappa Lambda Mu Nu Xi Omicron Pi Rho - Sigma Tau Upsilon Phi Chi Psi Omega",
  ],
  [
    0x3b1,
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigmaf sigma tau upsilon phi chi psi omega",
  ],
  [0x3d1, "thetasym upsih - - - piv"],
  [0x2002, "ensp emsp - - - - - thinsp - - zwnj zwj lrm rlm - - - ndash mdash"],
  [0x2018, "lsquo rsquo sbquo - ldquo rdquo bdquo - dagger Dagger bull - - - hellip"],
  [0x2032, "prime Prime"],
  [0x2039, "lsaquo rsaquo"],
  [0x2190, "larr uarr rarr darr harr"],
  [0x21d0, "lArr uArr rArr dArr hArr"],
  [0x2200, "forall - part exist - empty - nabla isin notin - ni - - - prod - sum minus - - - - lowast - - radic - - prop infin"],
  [0x2227, "and or cap cup int"],
  [0x2260, "ne equiv - - le ge"],
  [0x2282, "sub sup nsub - sube supe"],
  ...([
    [0x178, "Yuml"],
    [0x192, "fnof"],
    [0x2c6, "circ"],
    [0x2dc, "tilde"],
    [0x2030, "permil"],
    [0x203e, "oline"],
    [0x2044, "frasl"],
    [0x20ac, "euro"],
    [0x2111, "image"],
    [0x2118, "weierp"],
    [0x211c, "real"],
    [0x2122, "trade"],
    [0x2135, "alefsym"],
    [0x21b5, "crarr"],
    [0x2220, "ang"],
    [0x2234, "there4"],
    [0x223c, "sim"],
    [0x2245, "cong"],
    [0x2248, "asymp"],
    [0x2295, "oplus"],
    [0x2297, "otimes"],
    [0x22a5, "perp"],
    [0x22c5, "sdot"],
    [0x2308, "lceil rceil lfloor rfloor"],
    [0x25ca, "loz"],
    [0x2660, "spades"],
    [0x2663, "clubs"],
    [0x2665, "hearts diams"],
  ] as const),
];

for (const [start, names] of RUNS) {
  names.split(" ").forEach((name, index) => {
    if (name !== "-") named.set(name, String.fromCodePoint(start + index));
  });
}

/** Decodes named and numeric references that end in a semicolon; leaves others as they are. */
export function decodeHTMLStrict(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z][a-z0-9]*));/gi, (whole, hex, decimal, name) => {
    if (name !== undefined) return named.get(name) ?? whole;
    const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
    const isCharacter = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    return isCharacter ? String.fromCodePoint(code) : "\ufffd";
  });
}

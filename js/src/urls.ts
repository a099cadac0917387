/**
 * What a link may be, and what text may hide. Pure functions; every URL that model text can bring into the page goes
 * through `safeUrl`, and everything that a person is asked to approve goes through `visible`.
 */

export interface SafeUrl {
  readonly href: string;
  /** What a person should look at before a click: the host as the browser resolves it, or the address of a mail. */
  readonly host: string;
}

/** Characters that a URL parser drops or that make a URL look like another: controls, zero-width, bidi, tags. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/**
 * The URL policy: absolute `https:`, `http:` and `mailto:` without credentials, or null.
 *
 * Two slashes and a host are required as written: `https:evil.test` and `https:\\evil.test` are absolute for a browser
 * but relative for a reader. What is refused is shown as plain text by the callers.
 */
export function safeUrl(raw: string): SafeUrl | null {
  // A browser would read a backslash as a slash; CommonMark, and the eye, take it for a character of the path.
  const text = raw.replace(INVISIBLE, "").trim().replaceAll("\\", "%5C");
  if (!/^(?:https?:\/\/[^\s/?#]|mailto:[^\s/?#])/i.test(text)) return null;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol === "mailto:") return { href: url.href, host: url.pathname };
  if (url.protocol !== "https:" && url.protocol !== "http:") return null;
  if (url.username !== "" || url.password !== "" || url.hostname === "") return null;
  // "https://@evil.test" has an empty user and parses to none; refuse the shape as well.
  if (/^[^/?#]*@/.test(text.slice(text.indexOf("//") + 2))) return null;
  return { href: url.href, host: url.host };
}

/** Endings that make "a.b" read as a host. A list, because `pandas.DataFrame` and `sales.csv` must not look like one. */
const HOST_ENDING =
  /\.(?:com|org|net|edu|gov|mil|int|info|biz|io|ai|co|dev|app|cloud|me|eu|uk|de|fr|nl|es|it|ch|at|se|no|jp|cn|in|au|br|ca|us|ru|test|example)$/i;

/**
 * Why a person should look twice before this link opens, or null: its text names another host, its host is written in
 * another script (browsers show `xn--`), or it carries enough characters to take data along.
 */
export function linkRisk(url: SafeUrl, text: string): string | null {
  if (url.href.startsWith("mailto:")) return url.href.length > 200 ? "long address" : null;
  const parsed = new URL(url.href);
  if (/(?:^|\.)xn--/.test(parsed.hostname)) return "unusual characters in the host";
  if (parsed.pathname.length + parsed.search.length + parsed.hash.length > 200) return "long address";
  const shown =
    /^\s*([a-z][a-z0-9+.-]*:\/\/)?(?:[^\s/@]*@)?((?:[\p{L}\p{N}-]+\.)+[\p{L}\p{N}-]+)(?=$|[\s:/?#])/iu.exec(
      text,
    );
  if (shown === null) return null;
  const named = (shown[2] ?? "").toLowerCase();
  const isHost = shown[1] !== undefined || named.startsWith("www.") || HOST_ENDING.test(named);
  return isHost && bare(named) !== bare(parsed.hostname) ? "the text names another host" : null;
}

function bare(host: string): string {
  return host.replace(/^www\./, "");
}

/**
 * What the eye cannot see or what reorders what it sees: controls except tab and newline, bidi and zero-width
 * characters, fillers, tags, variation selectors that follow no emoji, line separators, the blank Braille pattern and
 * half surrogates.
 */
export const HIDDEN =
  /(?![\t\n])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u2800]|(?!(?<=\p{Extended_Pictographic})\ufe0f)\p{Default_Ignorable_Code_Point}/gu;

/** In prose joiners and direction marks are spelling (emoji, Persian, Hindi); what reorders or smuggles is not. */
const HIDDEN_IN_PROSE = /(?![\t\n\r])[\p{Cc}]|[\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e0fff}]/gu;

/** `\u202e` for a character. */
export function escapeHidden(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** The text with every hidden character as an escape: for arguments, names and labels that a person decides on. */
export function visible(text: string): string {
  return text.replace(HIDDEN, escapeHidden);
}

/** The text for reading: only what reorders the line or smuggles text past the reader becomes an escape. */
export function readable(text: string): string {
  return text.replace(HIDDEN_IN_PROSE, escapeHidden);
}

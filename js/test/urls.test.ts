import { describe, expect, it } from "vitest";
import { linkRisk, readable, safeUrl, visible } from "../src/urls";

describe("the URL policy", () => {
  it.each([
    ["https://a.test", "https://a.test/", "a.test"],
    ["HTTP://A.test:8080/x?y#z", "http://a.test:8080/x?y#z", "a.test:8080"],
    [" https://a.test/a b ", "https://a.test/a%20b", "a.test"],
    ["https://ok.test/\u202egnp.exe", "https://ok.test/gnp.exe", "ok.test"],
    ["ht\ttps://a.test/", "https://a.test/", "a.test"],
    ["https://b\u0430nk.test/", "https://xn--bnk-6cd.test/", "xn--bnk-6cd.test"],
    ["mailto:me@a.test", "mailto:me@a.test", "me@a.test"],
    ["https://a.test/x\\y", "https://a.test/x%5Cy", "a.test"],
    ["https://[::1]/", "https://[::1]/", "[::1]"],
  ])("allows %j", (raw, href, host) => {
    expect(safeUrl(raw)).toEqual({ href, host });
  });

  it.each([
    ...[
      "",
      " ",
      "#x",
      "?x",
      "/x",
      "x",
      "x/y",
      "//a.test",
      "\\\\a.test\\x",
      "https:a.test",
      "http:/a.test",
      "https:\\\\a.test",
    ],
    ...[
      "https://",
      "https:///a.test",
      "https://@a.test",
      "https://u@a.test",
      "https://a.test\\@b.test",
      "https://a.test\\x",
      "https://u:p@a.test",
      "https://:p@a.test/",
    ],
    ...[
      "javascript:x",
      "JaVa\nScript:x",
      "\u200bjavascript:x",
      "\u0001javascript:x",
      "data:text/html,x",
      "blob:https://a.test/1",
    ],
    ...[
      "vbscript:x",
      "file:///etc/passwd",
      "ftp://a.test",
      "about:blank",
      "view-source:https://a.test",
      "command:x",
      "vscode:x",
    ],
    ...["https://a b/", "https://exa mple.test", "https://%00/", "mailto:", "https://[::1/"],
  ])("refuses %j", (raw) => {
    expect(safeUrl(raw)).toBeNull();
  });
});

describe("doubtful links", () => {
  const risk = (href: string, text: string) => {
    const url = safeUrl(href);
    return url && linkRisk(url, text);
  };

  it.each([
    ["https://evil.test/", "bank.com"],
    ["https://evil.test/", "https://bank.test/login"],
    ["https://evil.test/", " www.bank.zz "],
    ["https://b\u0430nk.test/", "bank"],
    [`https://a.test/?d=${"A".repeat(300)}`, "chart"],
    [`mailto:a@b.test?body=${"A".repeat(300)}`, "mail"],
  ])("asks about %j", (href, text) => {
    expect(risk(href, text)).not.toBeNull();
  });

  it.each([
    ["https://bank.com/x", "bank.com"],
    ["https://www.bank.com/", "https://bank.com"],
    ["https://pandas.pydata.org/", "pandas.DataFrame.groupby"],
    ["https://a.test/", "sales.csv"],
    ["https://a.test/", "version 1.2.3"],
    ["https://a.test/", ""],
  ])("lets %j pass", (href, text) => {
    expect(risk(href, text)).toBeNull();
  });
});

describe("hidden characters", () => {
  it("are escapes where a person decides", () => {
    expect(visible("rm\u202e -rf\u200b \u{e0069}\0\r\x1b[")).toBe(
      "rm\\u202e -rf\\u200b \\u{e0069}\\u0000\\u000d\\u001b[",
    );
    expect(visible("a\u2028b\u00ad\ufeff\u3164\u2800\ud800")).toBe(
      "a\\u2028b\\u00ad\\ufeff\\u3164\\u2800\\ud800",
    );
    expect(visible("x\ufe0f\u{e0100}")).toBe("x\\ufe0f\\u{e0100}");
  });

  it("leave ordinary text alone", () => {
    const text = "tab\t line\n⚠️ äöü 漢字 עברית naïve 😀 a\u00a0b";
    expect(visible(text)).toBe(text);
    expect(readable(text)).toBe(text);
  });

  it("stay in prose where they are spelling", () => {
    expect(readable("👨\u200d👩\u200d👧 می\u200cخواهم")).toBe("👨\u200d👩\u200d👧 می\u200cخواهم");
    expect(readable("a\u202eb\u{e0041}")).toBe("a\\u202eb\\u{e0041}");
  });
});

/** The allow-list once more, written independently of the builder: what may be in a view of foreign text. */
const ELEMENTS = new Set(
  "p h1 h2 h3 h4 h5 h6 blockquote hr br ul ol li em strong s a code pre div span button svg path table thead tbody tr th td".split(
    " ",
  ),
);
const ATTRIBUTES = new Set(
  "class title href target rel referrerpolicy start tabindex role aria-label aria-hidden type viewBox d data-lm-suppress-shortcuts".split(
    " ",
  ),
);

/** Everything below `root` that must not be there; empty when all is well. */
export function forbidden(root: Element): string[] {
  const found: string[] = [];
  for (const element of root.querySelectorAll("*")) {
    if (!ELEMENTS.has(element.localName)) found.push(`<${element.localName}>`);
    for (const { name, value } of element.attributes) {
      if (!ATTRIBUTES.has(name)) found.push(`${element.localName} ${name}=${value}`);
      if (
        name === "class" &&
        !value.split(" ").every((word) => /^(?:tc-[a-z-]+|language-[\w+#.-]+)$/.test(word))
      ) {
        found.push(`class ${value}`);
      }
    }
    const href = element.getAttribute("href");
    if (href !== null) {
      if (!/^(?:https?:\/\/[^/@]+(?:\/|$)|mailto:)/.test(href)) found.push(`href ${href}`);
      if (element.getAttribute("rel") !== "noopener noreferrer") found.push(`rel of ${href}`);
      if (element.getAttribute("referrerpolicy") !== "no-referrer") found.push(`referrerpolicy of ${href}`);
      if (element.getAttribute("target") !== "_blank") found.push(`target of ${href}`);
    }
    const isFocusable = element.matches("a, button, [tabindex]");
    if (isFocusable && !element.hasAttribute("data-lm-suppress-shortcuts"))
      found.push(`shortcuts of ${element.localName}`);
  }
  return found;
}

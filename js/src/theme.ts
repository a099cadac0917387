/**
 * Light or dark, as the host says it.
 *
 * JupyterLab's themes set no `color-scheme`, so `light-dark()` alone would be wrong there. Every host marks its page in
 * its own way; what marks nothing still has a background, and its luminance decides.
 */

export type Theme = "light" | "dark";

const WATCHED = ["class", "style", "theme", "data-theme", "data-jp-theme-light", "data-vscode-theme-kind"];

/** The theme around `element`, which should be in the page already. */
export function detectTheme(element: Element): Theme {
  const { body, documentElement: html } = element.ownerDocument;
  const jupyter = body.getAttribute("data-jp-theme-light");
  if (jupyter !== null) return jupyter === "false" ? "dark" : "light";
  const isHighContrastLight = body.classList.contains("vscode-high-contrast-light");
  if (body.classList.contains("vscode-light") || isHighContrastLight) return "light";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast"))
    return "dark";
  for (const node of [html, body]) {
    const named = node.getAttribute("theme") ?? node.getAttribute("data-theme") ?? "";
    if (/^(?:light|dark)$/.test(named)) return named as Theme;
    if (node.classList.contains("dark") || node.classList.contains("dark-theme")) return "dark";
    if (node.classList.contains("light") || node.classList.contains("light-theme")) return "light";
  }
  const luminance = backgroundLuminance(element);
  if (luminance !== null) return luminance < 0.5 ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keeps `root.style.colorScheme` at the theme of the host; the result stops it. */
export function watchTheme(root: HTMLElement): () => void {
  const apply = (): void => {
    const theme = detectTheme(root);
    if (root.style.colorScheme !== theme) root.style.colorScheme = theme;
  };
  apply();
  // A view is often built before it is put into the page, where there is no background to ask.
  const frame = root.isConnected ? 0 : requestAnimationFrame(apply);
  const observer = new MutationObserver(apply);
  const { body, documentElement } = root.ownerDocument;
  for (const node of [documentElement, body])
    observer.observe(node, { attributes: true, attributeFilter: WATCHED });
  const preference = matchMedia("(prefers-color-scheme: dark)");
  preference.addEventListener("change", apply);
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    preference.removeEventListener("change", apply);
  };
}

/** 0 (black) to 1 (white) of the first opaque background behind the element, out through shadow roots; null if none. */
function backgroundLuminance(element: Element): number | null {
  for (let node: Element | null = element; node !== null; node = parentOf(node)) {
    const colour = getComputedStyle(node).backgroundColor;
    const [red, green, blue, alpha = 1] = (/^rgba?\(([^)]*)\)$/.exec(colour)?.[1] ?? "")
      .split(/[\s,/]+/)
      .map(Number);
    if (red === undefined || green === undefined || blue === undefined || alpha < 0.5) continue;
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;
  }
  return null;
}

function parentOf(element: Element): Element | null {
  if (element.parentElement !== null) return element.parentElement;
  const root = element.getRootNode();
  return root instanceof ShadowRoot ? root.host : null;
}

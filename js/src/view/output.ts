/** What a tool gave back: a preview of eight lines, and all of it (as far as a page can bear) on demand. */
import { MAX_OUTPUT_CHARS, parseAnsi, renderLines } from "../ansi";
import { copyButton, h } from "../dom";

const PREVIEW_LINES = 8;
const MAX_LINES = 5000;

/** `label` names the block for screen readers, `isBad` colours it. */
export function outputView(title: string, text: string, label: string, isBad = false): HTMLElement {
  const lines = parseAnsi(text.slice(0, MAX_OUTPUT_CHARS));
  // A scroller takes the focus; without a name a screen reader would say nothing about it.
  const props = { class: isBad ? "tc-out tc-bad" : "tc-out", tabindex: 0, role: "group", "aria-label": label };
  const pre = h("pre", props, renderLines(lines, 0, PREVIEW_LINES));
  const head = h("div", { class: "tc-label" }, title, h("span", { class: "tc-grow" }), copyButton(() => text));
  const view = h("div", null, head, pre);
  if (lines.length > PREVIEW_LINES) {
    const total = lines.length.toLocaleString("en");
    const note = h("span", null, `${PREVIEW_LINES} of ${total} lines`);
    const all = h("button", { type: "button", class: "tc-small tc-link" }, "Show all");
    all.addEventListener("click", () => {
      pre.append(renderLines(lines, PREVIEW_LINES, MAX_LINES));
      const isCut = lines.length > MAX_LINES || text.length > MAX_OUTPUT_CHARS;
      note.textContent = isCut ? `The first ${MAX_LINES.toLocaleString("en")} of ${total} lines` : `${total} lines`;
      pre.focus({ preventScroll: true });
      all.remove();
    });
    view.append(h("div", { class: "tc-more" }, note, all));
  }
  return view;
}

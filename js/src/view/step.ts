/** A line on the rail that opens: icon, name, one line of text, tag, time, chevron. Calls and thoughts are made of it. */
import { h, icon, type Scope } from "../dom";
import { CHEVRON } from "./icons";

export type IconTone = "good" | "bad" | "wait" | "run" | "";

export class Step {
  readonly icon = h("span", { class: "tc-icon" });
  readonly name: HTMLElement;
  readonly line = h("span", { class: "tc-arg" });
  readonly tag = h("span", { class: "tc-tag" });
  readonly time = h("span", { class: "tc-meta" });
  /** For those who do not see the icon. */
  readonly spoken = h("span", { class: "tc-hidden" });
  readonly body = h("div", { class: "tc-body" });
  readonly summary: HTMLElement;
  readonly details: HTMLDetailsElement;
  readonly item: HTMLLIElement;
  #isTouched = false;
  #isFilled = false;

  /** `fill` is called once, when the body is opened for the first time: most are never looked at. */
  constructor(
    scope: Scope,
    name: "code" | "span",
    readonly fill: () => void,
  ) {
    this.name = h(name, { class: "tc-name" });
    if (name === "code") this.line.classList.add("tc-mono");
    this.summary = h(
      "summary",
      { class: "tc-line" },
      ...[this.icon, this.name, this.line, this.tag, this.spoken, this.time],
      icon(CHEVRON, "tc-chevron"),
    );
    this.details = h("details", null, this.summary, this.body);
    this.item = h("li", { class: "tc-step" }, this.details);
    scope.listen(this.summary, "click", () => {
      this.#isTouched = true;
    });
    scope.listen(this.details, "toggle", () => this.#fillIfOpen());
  }

  /** Whether the person has opened or closed it; then it is theirs. */
  get isTouched(): boolean {
    return this.#isTouched;
  }

  get isOpen(): boolean {
    return this.details.open;
  }

  /** Opens or closes, unless the person has done so. */
  suggest(isOpen: boolean): void {
    if (!this.#isTouched && this.details.open !== isOpen) this.details.open = isOpen;
    this.#fillIfOpen();
  }

  setIcon(paths: readonly string[], tone: IconTone): void {
    const key = `${paths[0]}${tone}`;
    // A spinner that is replaced by its like would begin anew with every event.
    if (this.icon.dataset.key === key) return;
    this.icon.dataset.key = key;
    this.icon.className = tone === "" ? "tc-icon" : `tc-icon tc-${tone}`;
    this.icon.replaceChildren(icon(paths, tone === "run" ? "tc-spin" : undefined));
  }

  #fillIfOpen(): void {
    if (!this.details.open || this.#isFilled) return;
    this.#isFilled = true;
    this.fill();
  }
}

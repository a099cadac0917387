/** Sessions, and the runs of the chosen one as a tree. */
import { number, type Part, type Parts, part, problem, text, watch } from "./frame";

const LEFT: Readonly<Record<string, string>> = {
  running: "is running",
  interrupted: "was interrupted",
  waiting: "waits for an answer",
  in_doubt: "is in doubt",
};

function records(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value)
    ? value.filter((each) => typeof each === "object" && each !== null && !Array.isArray(each))
    : [];
}

export function browser(core: Parts): () => Part {
  const { h, reveal } = core;
  return part(core, "browser", (shown) => {
    const { model, root, scope, links } = shown;
    const list = h("ul", { class: "tc-rows", "aria-label": "Sessions" });
    const tree = h("ul", { class: "tc-rows tc-tree", "aria-label": "Runs of the session" });
    const set = (name: string, value: string): void => {
      model.set(name, value);
      model.save_changes();
    };
    /** The row keeps the focus when the list is drawn again. */
    const draw = (place: HTMLElement, rows: readonly HTMLElement[]): void => {
      const { activeElement } = place.getRootNode() as Document;
      const focused = [...place.querySelectorAll("button")].indexOf(activeElement as HTMLButtonElement);
      place.replaceChildren(...rows);
      if (focused >= 0) place.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
    };
    const row = (id: string, isChosen: boolean, words: readonly (Node | string)[], trait: string) => {
      const props = { type: "button", class: "tc-entry", "aria-pressed": String(isChosen) };
      return h("button", { ...props, onclick: () => set(trait, id) }, ...words);
    };
    const act = (label: string, work: () => void): HTMLElement =>
      h("button", { type: "button", class: "tc-small tc-link", onclick: work }, label);
    const hasChat = (): boolean => model.get("has_chat") === true;
    watch(shown, ["sessions", "selected", "has_chat"], () => {
      const chosen = text(model.get("selected"));
      const rows = records(model.get("sessions")).map((one) => {
        const id = text(one.session_id);
        const left = text(one.left);
        const at = new Date((number(one.updated_at) ?? 0) * 1000).toLocaleString();
        const about = [core.plural(number(one.runs) ?? 0, "run"), at, ...(left ? [LEFT[left] ?? left] : [])];
        const words = [
          h("span", { class: "tc-name" }, reveal(text(one.title) || "Untitled")),
          h("span", { class: "tc-dim" }, about.join(", ")),
        ];
        const label = left === "" || left === "running" ? "Open" : "Go on";
        const open = hasChat() && act(label, () => links.send({ type: "resume", session_id: id }));
        return h("li", null, row(id, id === chosen, words, "selected"), open);
      });
      draw(list, rows.length > 0 ? rows : [h("li", { class: "tc-dim" }, "No session yet")]);
    });
    watch(shown, ["tree", "selected_run", "has_chat"], () => {
      const chosen = text(model.get("selected_run"));
      const rows = records(model.get("tree")).map((one) => {
        const id = text(one.run_id);
        const words = [
          h("span", { class: one.is_told === true ? "tc-name" : "tc-name tc-dim" }, reveal(text(one.prompt))),
          h("span", { class: "tc-dim" }, text(one.status)),
        ];
        const branch =
          hasChat() &&
          act("Branch here", () =>
            links.send({ type: "branch", session_id: text(model.get("selected")), run_id: id }),
          );
        const item = h("li", null, row(id, id === chosen, words, "selected_run"), branch);
        item.style.paddingInlineStart = `${Math.min(12, number(one.depth) ?? 0) * 16}px`;
        return item;
      });
      tree.hidden = rows.length === 0;
      draw(tree, rows);
    });
    scope.add(() => root.replaceChildren());
    root.append(list, problem(shown, core), tree);
  });
}

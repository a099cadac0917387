/** A table of runs, and beside it the transcript of the chosen row. */
import { eachRun, mountTurn, number, type Part, type Parts, part, problem, texts, watch } from "./frame";

export function review(core: Parts): () => Part {
  const { h, reveal } = core;
  return part(core, "review", (shown) => {
    const { model, root, scope } = shown;
    const head = h("tr");
    const body = h("tbody");
    const grid = h(
      "table",
      { class: "tc-grid", role: "grid", "aria-label": "Runs" },
      h("thead", null, head),
      body,
    );
    const more = h("p", { class: "tc-hint" });
    const runs = h("div");
    const beside = h("div", null, problem(shown, core), runs);
    const hint = h("p", { class: "tc-hint", role: "status" });
    const chosen = (): number => number(model.get("selected")) ?? -1;
    const rows = (): HTMLElement[] => [...body.children] as HTMLElement[];

    const choose = (at: number): void => {
      const row = rows()[at];
      if (row === undefined) return;
      model.set("selected", at);
      model.save_changes();
      row.focus({ preventScroll: true });
      row.scrollIntoView({ block: "nearest" });
    };
    const mark = (): void => {
      const at = chosen();
      rows().forEach((row, nth) => {
        row.setAttribute("aria-selected", String(nth === at));
        // One stop of the Tab key for the table; the arrow keys go on from there.
        row.tabIndex = nth === Math.max(0, at) ? 0 : -1;
      });
      // While a cell is running the kernel does not hear of the choice: nothing may stand beside a row that is not its own.
      beside.hidden = number(model.get("shown")) !== at;
      hint.hidden = at >= 0 && !beside.hidden;
      hint.textContent =
        at < 0 ? "Choose a row to read its transcript." : "Its transcript comes when the kernel is free.";
    };
    watch(shown, ["columns", "rows", "rows_count"], () => {
      head.replaceChildren(
        ...texts(model.get("columns")).map((name) => h("th", { scope: "col" }, reveal(name))),
      );
      const all = model.get("rows");
      const cells = Array.isArray(all) ? all.map(texts) : [];
      body.replaceChildren(
        ...cells.map((row) =>
          h("tr", { tabindex: -1 }, ...row.map((cell) => h("td", { dir: "auto" }, reveal(cell)))),
        ),
      );
      const count = number(model.get("rows_count")) ?? cells.length;
      more.hidden = count <= cells.length;
      more.textContent = `The first ${cells.length.toLocaleString("en")} of ${count.toLocaleString("en")} rows`;
      mark();
    });
    watch(shown, ["selected", "shown"], mark);
    scope.listen(body, "click", (event) => {
      const row = (event.target as HTMLElement).closest("tr");
      if (row !== null) choose(rows().indexOf(row));
    });
    scope.listen(body, "keydown", (event) => {
      if (!(event instanceof KeyboardEvent)) return;
      const from = rows().indexOf(event.target as HTMLElement);
      const last = rows().length - 1;
      const to = { ArrowDown: from + 1, ArrowUp: from - 1, Home: 0, End: last, Enter: from, " ": from }[
        event.key
      ];
      if (from < 0 || to === undefined) return;
      // The notebook would go to another cell, or run this one.
      event.preventDefault();
      event.stopPropagation();
      choose(Math.min(last, Math.max(0, to)));
    });
    eachRun(shown, core, runs, mountTurn(core));
    const table = h("div", null, h("div", { class: "tc-scroll" }, grid), more);
    root.append(h("div", { class: "tc-two" }, table, h("div", null, hint, beside)));
  });
}

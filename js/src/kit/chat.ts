/** A conversation: what was said, the runs, and a field for what to say next. */
import { eachRun, mountTurn, type Part, type Parts, part, problem, text, watch } from "./frame";

export function chat(core: Parts): () => Part {
  const { h } = core;
  return part(core, "chat", (shown) => {
    const { model, root, scope, links } = shown;
    const runs = h("div");
    eachRun(shown, core, runs, mountTurn(core));
    const field = h("textarea", { class: "tc-field", rows: 2, "aria-label": "Message to the agent" });
    const label = h("span", null, "Send");
    const button = h("button", { type: "button", class: "tc-primary" }, label);
    const send = (): void => {
      const said = field.value.trim();
      if (said === "") return;
      links.send({ type: "send", text: field.value });
      field.value = "";
      field.focus({ preventScroll: true });
    };
    watch(shown, ["placeholder"], () =>
      field.setAttribute("placeholder", text(model.get("placeholder")).slice(0, 200)),
    );
    watch(shown, ["status"], () => {
      const status = text(model.get("status"));
      label.textContent = status === "running" || status === "waiting" ? "Steer" : "Send";
    });
    scope.listen(button, "click", send);
    scope.listen(field, "keydown", (event) => {
      if (!(event instanceof KeyboardEvent) || event.isComposing) return;
      if (event.key !== "Enter" || event.shiftKey) return;
      // With Control the notebook would run the cell.
      event.preventDefault();
      event.stopPropagation();
      send();
    });
    root.append(runs, problem(shown, core), h("div", { class: "tc-say" }, field, button));
  });
}

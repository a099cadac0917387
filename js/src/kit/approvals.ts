/** All that waits for a person, whatever run it belongs to. */
import { eachRun, number, type Part, type Parts, part, problem, watch } from "./frame";

export function approvals(core: Parts): () => Part {
  const { h, reveal } = core;
  return part(core, "inbox", (shown) => {
    const head = h("p", { class: "tc-title", role: "status" });
    watch(shown, ["pending"], () => {
      const pending = number(shown.model.get("pending")) ?? 0;
      head.textContent =
        pending === 0 ? "Nothing waits for you" : `${core.plural(pending, "request")} for you`;
    });
    const runs = h("div");
    eachRun(shown, core, runs, (el, link, own) => {
      const of = h("p", { class: "tc-hint" });
      own.effect(() => {
        const { prompt, agent, model } = link.store.read(link.store.run);
        of.replaceChildren(reveal(`${agent || model}: ${prompt.slice(0, 200)}`));
      });
      el.append(of);
      core.mountAsks(el, link, own);
    });
    shown.root.append(head, problem(shown, core), runs);
  });
}

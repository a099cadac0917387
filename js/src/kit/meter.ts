/** Tokens, cost and what is left of a budget. */
import { number, type Part, type Parts, part, watch } from "./frame";

const TRAITS = [
  "input_tokens",
  "output_tokens",
  "cached_tokens",
  "cost_usd",
  "steps",
  "runs_count",
  "budget",
  "spent",
];
const NAMES: Readonly<Record<string, string>> = { usd: "Cost", tokens: "Tokens", steps: "Steps" };

export function meter(core: Parts): () => Part {
  const { h } = core;
  return part(core, "meter", (shown) => {
    const { model, root } = shown;
    const figures = h("p", { class: "tc-figures" });
    const bars = h("div");
    root.append(figures, bars);
    watch(shown, TRAITS, () => {
      const [input, output, cached, usd, steps, runs] = TRAITS.map((name) => number(model.get(name)));
      const words = [
        runs ? core.plural(runs, "run") : "No run yet",
        runs && steps ? core.plural(steps, "step") : "",
        input != null && `${core.count(input)} in${cached ? ` (${core.count(cached)} cached)` : ""}`,
        output != null && `${core.count(output)} out`,
        runs ? core.cost(usd ?? null) : "",
      ];
      figures.replaceChildren(
        ...words.flatMap((word) => (word ? [h("span", { class: "tc-item" }, word)] : [])),
      );
      const spent = (model.get("spent") ?? {}) as Record<string, number | null>;
      const limits = Object.entries((model.get("budget") ?? {}) as Record<string, unknown>);
      bars.replaceChildren(
        ...limits.flatMap(([name, limit]) =>
          NAMES[name] !== undefined && typeof limit === "number" && limit > 0
            ? [bar(name, spent[name] ?? null, limit)]
            : [],
        ),
      );
    });

    function bar(name: string, spent: number | null, limit: number): HTMLElement {
      const show = (n: number): string => (name === "usd" ? core.cost(n) : core.count(n));
      const words = spent === null ? `unknown of ${show(limit)}` : `${show(spent)} of ${show(limit)}`;
      const share = Math.min(1, (spent ?? 0) / limit);
      const fill = h("span", { class: share > 0.9 ? "tc-fill tc-warn" : "tc-fill" });
      fill.style.inlineSize = `${Math.round(share * 100)}%`;
      const values = { "aria-valuemin": 0, "aria-valuemax": limit, "aria-valuenow": spent ?? 0 };
      const props = { class: "tc-bar", role: "meter", "aria-label": NAMES[name] ?? name, ...values };
      return h(
        "div",
        { class: "tc-gauge" },
        ...[h("span", null, NAMES[name]), h("div", { ...props, "aria-valuetext": words }, fill), words],
      );
    }
  });
}

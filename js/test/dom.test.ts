import { signal } from "@preact/signals-core";
import { describe, expect, it, vi } from "vitest";
import { copyButton, h, icon, reveal, Scope } from "../src/dom";

describe("h", () => {
  it("makes elements, attributes, listeners and text", () => {
    const onclick = vi.fn();
    const button = h(
      "button",
      { type: "button", disabled: false, hidden: true, title: null, onclick },
      "a",
      1,
      false,
      h("b", null, "<i>"),
    );
    expect(button.outerHTML).toBe(
      '<button type="button" hidden="" data-lm-suppress-shortcuts="true">a1<b>&lt;i&gt;</b></button>',
    );
    button.dispatchEvent(new Event("click"));
    expect(onclick).toHaveBeenCalledOnce();
  });

  it("keeps command keys away from everything that takes the focus", () => {
    for (const tag of ["a", "button", "input", "select", "summary", "textarea"] as const) {
      expect(h(tag).getAttribute("data-lm-suppress-shortcuts")).toBe("true");
    }
    expect(h("pre", { tabindex: 0 }).getAttribute("data-lm-suppress-shortcuts")).toBe("true");
    expect(h("div").hasAttribute("data-lm-suppress-shortcuts")).toBe(false);
  });

  it("makes icons that screen readers pass over", () => {
    const svg = icon(["M0 0h1"], "tc-spin");
    expect(svg.namespaceURI).toBe("http://www.w3.org/2000/svg");
    expect(svg.getAttribute("aria-hidden")).toBe("true");
    expect(svg.querySelectorAll("path")).toHaveLength(1);
  });
});

describe("a scope", () => {
  it("binds signals until it is disposed, children included", () => {
    const scope = new Scope();
    const name = signal("a");
    const node = h("p");
    scope.text(node, () => name.value);
    scope.child().attribute(node, "title", () => (name.value === "b" ? null : name.value));
    const heard = vi.fn();
    scope.listen(node, "ping", heard);
    expect(node.outerHTML).toBe('<p title="a">a</p>');
    name.value = "b";
    expect(node.outerHTML).toBe("<p>b</p>");
    scope.dispose();
    name.value = "c";
    node.dispatchEvent(new Event("ping"));
    expect(node.textContent).toBe("b");
    expect(heard).not.toHaveBeenCalled();
  });

  it("lets go at once of what comes too late", () => {
    const scope = new Scope();
    scope.dispose();
    const dispose = vi.fn();
    scope.add(dispose);
    expect(dispose).toHaveBeenCalledOnce();
  });
});

it("reveals hidden characters as marks that typed escapes do not have", () => {
  const root = h("div");
  root.append(reveal("a\u202eb \\u202e"));
  expect(root.querySelectorAll(".tc-escape")).toHaveLength(1);
  expect(root.textContent).toBe("a\\u202eb \\u202e");
});

it("copies what is there when it is pressed", async () => {
  const written: string[] = [];
  vi.stubGlobal("navigator", { clipboard: { writeText: async (text: string) => void written.push(text) } });
  const button = copyButton(() => "now");
  button.click();
  await vi.waitFor(() => expect(button.textContent).toBe("Copied"), 20_000);
  expect(written).toEqual(["now"]);
  vi.unstubAllGlobals();
});

/**
 * Makes a piece of DOM equal to a fresh one and keeps every node that can be kept, so that a selection, a focus and a
 * scroll position survive. Positions are compared one by one: streamed text changes at its end.
 */
import { codeText } from "./code";

/** Makes the children of `parent` from `index` on equal to `fresh`, keeping every node that can be kept. */
export function patchChildren(parent: Node, index: number, fresh: readonly Node[]): void {
  let old = parent.childNodes[index] ?? null;
  for (const node of fresh) {
    if (old === null) {
      parent.appendChild(node);
      continue;
    }
    const next: ChildNode | null = old.nextSibling;
    if (!patchNode(old, node)) parent.replaceChild(node, old);
    old = next;
  }
  while (old !== null) {
    const next: ChildNode | null = old.nextSibling;
    parent.removeChild(old);
    old = next;
  }
}

/** Turns `old` into `fresh` where that is possible without replacing it. */
function patchNode(old: Node, fresh: Node): boolean {
  if (old.isEqualNode(fresh)) return true;
  if (old instanceof Text && fresh instanceof Text) {
    if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.length));
    else old.data = fresh.data;
    return true;
  }
  if (!(old instanceof Element && fresh instanceof Element)) return false;
  if (old.localName !== fresh.localName || !hasSameAttributes(old, fresh)) return false;
  // A coloured block with the same text stays coloured.
  if (old.localName === "code" && old.textContent === fresh.textContent) return true;
  // Doubtful links and images carry listeners that know their own URL; a new one comes with its own.
  if (old.matches("a, .tc-image")) return false;
  if (old.matches(".tc-code")) {
    const [from, to] = [old.querySelector("pre > code"), fresh.querySelector("pre > code")];
    if (from !== null && to !== null && from.className === to.className && codeText(old) === codeText(fresh))
      return true;
  }
  patchChildren(old, 0, [...fresh.childNodes]);
  return true;
}

function hasSameAttributes({ attributes }: Element, fresh: Element): boolean {
  const isSame = ({ name, value }: Attr): boolean => fresh.getAttribute(name) === value;
  return attributes.length === fresh.attributes.length && [...attributes].every(isSame);
}

/** Nodes in their places, and where the focus is. */

/** Whether the focus is in here; in a shadow root `document.activeElement` would be its host. */
export function focusIn(element: HTMLElement): boolean {
  const root = element.getRootNode();
  const active = root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
  return active !== null && element.contains(active);
}

/** Makes the children of `parent` these, moving as few as possible: what is moved loses scroll and focus. */
export function place(parent: HTMLElement, nodes: readonly Node[]): void {
  const wanted = new Set(nodes);
  for (const child of [...parent.childNodes]) if (!wanted.has(child)) child.remove();
  let next: ChildNode | null = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

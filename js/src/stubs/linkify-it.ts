// Stands for linkify-it in the bundle: bare URLs stay text, so markdown-it must find no links.
export class LinkifyIt {
  test(): boolean {
    return false;
  }
  match(): null {
    return null;
  }
  matchAtStart(): null {
    return null;
  }
}

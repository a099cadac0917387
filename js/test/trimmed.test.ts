import { decodeHTMLStrict as full } from "entities";
import { describe, expect, it } from "vitest";
import { decodeHTMLStrict } from "../src/trimmed";
import source from "../src/trimmed.ts?raw";

describe("the short table of named characters", () => {
  it("agrees with the long one", () => {
    const names = [...source.matchAll(/"([A-Za-z0-9 -]+)"/g)].flatMap((match) => (match[1] ?? "").split(" "));
    expect(names.length).toBeGreaterThan(250);
    for (const name of names) {
      if (name === "-" || full(`&${name};`) === `&${name};`) continue;
      expect(decodeHTMLStrict(`&${name};`), name).toBe(full(`&${name};`));
    }
  });

  it("decodes numbers and leaves the rest alone", () => {
    expect(decodeHTMLStrict("&#65;&#x42;&#0;&#xd800;&#x110000; &nope; &copy &__proto__;")).toBe("AB\ufffd\ufffd\ufffd &nope; &copy &__proto__;");
  });
});

import { expect, test } from "vitest";
import widget from "../src/index.ts";

test("the widget is a factory, so that all views of a model share one state in every host", () => {
  const definition = widget();
  expect(Object.keys(definition).sort()).toEqual(["initialize", "render"]);
  expect(widget()).not.toBe(definition);
});

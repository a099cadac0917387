// The types of the wire, from the schema that Python writes (`make wire`): `node wire.mjs` writes src/wire.ts,
// `node wire.mjs --check` fails if that file is not what the schema says.
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { compile } from "json-schema-to-typescript";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const schema = JSON.parse(readFileSync(path("wire.schema.json"), "utf8"));
const types = await compile(schema, "Wire", {
  bannerComment: "// Made by wire.mjs from src/turncell/notebook/wire.py. Do not edit: `make wire`.",
  unreachableDefinitions: true,
  additionalProperties: false,
  style: { printWidth: 110 },
});

if (!process.argv.includes("--check")) writeFileSync(path("src/wire.ts"), types);
else if (readFileSync(path("src/wire.ts"), "utf8") !== types) {
  console.error("src/wire.ts is not what wire.schema.json says: run `make wire`");
  process.exit(1);
}

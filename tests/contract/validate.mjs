// Validates the two descriptions with the official validators: node validate.mjs OPENAPI ASYNCAPI.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { Validator } from "@seriousme/openapi-schema-validator";

const [openapi, asyncapi] = process.argv.slice(2).map((path) => readFileSync(path, "utf8"));
let failed = false;

const validator = new Validator();
const checked = await validator.validate(JSON.parse(openapi));
if (!checked.valid) {
  failed = true;
  console.error("the OpenAPI description is not valid:", JSON.stringify(checked.errors, null, 2));
} else if (validator.version !== "3.1") {
  failed = true;
  console.error(`the OpenAPI description is of version ${validator.version}, not 3.1`);
} else {
  // Throws where a reference leads nowhere.
  validator.resolveRefs();
  console.log("the OpenAPI description is valid (3.1)");
}

const { document, diagnostics } = await new Parser().parse(asyncapi);
// Severities: 0 error, 1 warning; 2 and 3 say how it could be nicer.
const wrong = diagnostics.filter(({ severity }) => severity < 2);
for (const { path, message } of wrong) {
  console.error(`AsyncAPI: ${path.join("/")}: ${message}`);
}
if (!document || wrong.length > 0) {
  failed = true;
} else {
  console.log(`the AsyncAPI description is valid (${document.version()}, ${document.messages().length} messages)`);
}
process.exitCode = failed ? 1 : 0;

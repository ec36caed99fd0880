// SPDX-License-Identifier: Apache-2.0
// Compiles src/ into dist/: once as ES modules, and once as CommonJS.
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const compiler = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin/tsc");
rmSync(join(here, "dist"), { recursive: true, force: true });
for (const project of ["tsconfig.json", "tsconfig.cjs.json"]) {
  const { status, error } = spawnSync(process.execPath, [compiler, "--project", join(here, project)], { stdio: "inherit" });
  if (status !== 0) throw error ?? new Error(`${project} does not compile`);
}
// What is in there is CommonJS, other than the package says of the rest.
writeFileSync(join(here, "dist/cjs/package.json"), '{ "type": "commonjs" }\n');

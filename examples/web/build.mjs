// Bundles the page and the command into dist/; the types were checked before, by `npm run check`.
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";

const common = { bundle: true, target: "es2022", outdir: "dist", logLevel: "warning" };

await mkdir("dist", { recursive: true });
await Promise.all([
  // One script without modules, so that the page also works when it is opened from the disk.
  build({ ...common, entryPoints: ["src/page.ts"], format: "iife", minify: true, sourcemap: true }),
  build({
    ...common,
    entryPoints: ["src/command.ts"],
    format: "esm",
    platform: "node",
    outExtension: { ".js": ".mjs" },
  }),
  copyFile("src/index.html", "dist/index.html"),
  copyFile("src/page.css", "dist/page.css"),
]);

// The page and the library, with all that they fetch beside them, in dist/: it runs from any folder of any host.

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = dirname(fileURLToPath(import.meta.url)), root = join(here, ".."), dist = join(here, "dist");
const shared = join(root, "fkp/demo/static"), ort = join(here, "node_modules/onnxruntime-web/dist");
const examples = readdirSync(join(root, "examples")).filter((name) => name.endsWith(".jpg"));

/** Weights, runtime and examples beside the scripts; and their list, with a version, in the service worker. */
function beside() {
  return {
    name: "beside",
    closeBundle() {
      const copy = (from, folder, name) => {
        mkdirSync(join(dist, folder), { recursive: true });
        copyFileSync(join(from, name), join(dist, folder, name));
      };
      const weights = join(root, "fkp/weights");
      copy(weights, "model", "config.json");
      for (const name of readdirSync(join(weights, "onnx"))) copy(join(weights, "onnx"), "model/onnx", name);
      for (const variant of [".wasm", ".jspi"]) copy(ort, "ort", `ort${variant}.min.mjs`);
      for (const variant of ["", ".jspi"]) {
        for (const kind of ["mjs", "wasm"]) copy(ort, "ort", `ort-wasm-simd-threaded${variant}.${kind}`);
      }
      for (const name of examples) copy(join(root, "examples"), "examples", name);
      const files = readdirSync(dist, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && entry.name !== "service-worker.js")
        .map((entry) => join(entry.parentPath, entry.name).slice(dist.length + 1)).sort();
      const hash = createHash("sha256");
      for (const file of files) hash.update(file).update(readFileSync(join(dist, file)));
      const values = {
        __VERSION__: hash.digest("hex").slice(0, 16),
        // Of the runtimes and of the graphs a browser needs one each: the page keeps that. Types it has no use for.
        __FILES__: files.filter((file) => !/^(ort|model\/onnx)\/|\.d\.ts$/.test(file)).join(" "),
      };
      for (const name of ["index.html", "service-worker.js"]) {
        let text = readFileSync(join(dist, name), "utf8");
        for (const [key, value] of Object.entries(values)) text = text.replace(key, value);
        writeFileSync(join(dist, name), text);
      }
    },
  };
}

/** What the page shares with the Gradio page: its scripts, which find `element`, `props` and `trigger` there, as functions of
 * them; and the camera's panel. */
function fromGradio() {
  const panel = {
    least: "50", by_part: '<div class="legend"></div>', by_confidence: "", hint: "What the camera sees is looked at in this browser and sent nowhere; none of it is kept.",
  };
  return {
    name: "from-gradio",
    transform: (code, id) => (id.endsWith("?element") ? `export default (element, props, trigger) => {\n${code}\n};` : undefined),
    transformIndexHtml: { order: "pre", handler: (html) => html.replace("<!-- live.html -->", () =>
      readFileSync(join(shared, "live.html"), "utf8").replace(/\$\{(\w+)\}/g, (_, name) => panel[name])) },
  };
}

export default defineConfig({
  base: "./",
  root: here,
  define: { __EXAMPLES__: JSON.stringify(examples) },
  plugins: [fromGradio(), beside()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      input: { page: join(here, "index.html"), fkp: join(here, "src/index.ts") },
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "[name].js", chunkFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
  worker: { format: "es", rollupOptions: { output: { entryFileNames: "fkp-worker.js" } } },
});

// The library: every face in a picture with 68 keypoints, computed in a web worker of this page.
//
//   const model = await FaceKeypoints.load();
//   const faces = await model.detect(file);
//   draw(canvas, faces);

import { type Remote, transfer, wrap } from "comlink";

import { DECODED } from "./images";
import type { Config, Options } from "./pipeline";
import type { TrackerOptions } from "./tracking";
import type { Calls, Found, Start } from "./worker";
import workerUrl from "./worker?worker&url";

export { draw, type Style } from "./draw";
export type { Config, Options, TrackerOptions };
export { record, toCsv, toJson } from "./report";

/** What can be looked at; a video gives the frame that it shows. */
export type Source = Blob | ImageBitmap | ImageData | HTMLVideoElement;

/** The faces of one picture, `length` of them, largest first, or of a frame, lowest number first. Coordinates are
 * pixels of the picture.
 *
 * `boxes` (length × 4) x1, y1, x2, y2 · `scores` (length) 0..1 · `keypoints` (length × 68 × 2) x, y ·
 * `keypointScores` (length × 68) 0..1, P(within 5 % of the inter-ocular distance) · `sigmas` (length × 68), the
 * expected error in pixels · `visibility` (length × 68) 0..1, P(the point can be seen) ·
 * `ids` (length) from 1 on, which stay with their faces from frame to frame. */
export type Faces = Found & { length: number };

const SCRIPT = import.meta.url; // the bundler would take `new URL` of it for a file to pack

export interface LoadOptions {
  /** By default WebGPU where the browser has it, else WebAssembly. */
  backend?: "wasm" | "webgpu";
  /** Threads for WebAssembly; by default one, or up to four where the page is cross-origin isolated. */
  threads?: number;
  /** Whether WebAssembly takes the graphs in 8-bit integers, as it does by default, or those in floats. */
  int8?: boolean;
  /** What fetches files, as `fetch` does. */
  fetch?: (url: URL) => Promise<Response>;
}

/** All that a model starts from, so that nothing needs to be asked for afterwards. */
export type Files = { worker: Blob; scripts: { ort: Blob; glue: Blob }; start: Omit<Start, "ort" | "glue"> };

export class FaceKeypoints {
  private constructor(
    private readonly worker: Worker, /** @internal */ readonly calls: Remote<Calls>, readonly config: Config, readonly backend: "wasm" | "webgpu",
  ) {}

  /** The model of a folder with config.json and onnx/: by default the one beside this script. */
  static async load(url?: string | URL, options: LoadOptions = {}): Promise<FaceKeypoints> {
    return FaceKeypoints.start(await FaceKeypoints.download(url, options));
  }

  /** The files of a model; `start` asks for none, so a page may forbid every connection in between. */
  static async download(url?: string | URL, options: LoadOptions = {}): Promise<Files> {
    const here = new URL(".", SCRIPT), folder = new URL(url ?? "model/", url ? document.baseURI : here);
    const get = async (path: string, base: URL) => {
      const address = new URL(path, base), response = await (options.fetch ?? fetch)(address);
      if (!response.ok) throw new Error(`${address} could not be fetched (status ${response.status})`);
      return response;
    };
    const backend = options.backend ?? ((await hasWebGpu()) ? "webgpu" : "wasm");
    // The build with WebGPU is the one that waits for it by JavaScript Promise Integration: half the size of the other.
    const variant = backend === "webgpu" ? ".jspi" : "", glue = `ort-wasm-simd-threaded${variant}`;
    const script = async (path: string, base = here) =>
      new Blob([await (await get(path, base)).arrayBuffer()], { type: "text/javascript" });
    const bytes = async (path: string, base: URL) => (await get(path, base)).arrayBuffer();
    // In 8-bit integers WebAssembly takes two thirds of the time (docs/browser.md); WebGPU has floats only.
    const int8 = backend === "wasm" && (options.int8 ?? true), graph = (name: string) => bytes(`onnx/${name}${int8 ? ".int8" : ""}.onnx`, folder);
    const [worker, ort, mjs, wasm, config, detector, keypoints] = await Promise.all([
      script(workerUrl),
      script(`ort/ort${variant || ".wasm"}.min.mjs`),
      script(`ort/${glue}.mjs`),
      bytes(`ort/${glue}.wasm`, here),
      get("config.json", folder).then((response) => response.json() as Promise<Config>),
      graph("detector"),
      graph("keypoints"),
    ]);
    const threads = options.threads ?? (crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1);
    return { worker, scripts: { ort, glue: mjs }, start: { config, backend, threads, wasm, int8, graphs: { detector, keypoints } } };
  }

  static async start({ worker: script, scripts, start }: Files): Promise<FaceKeypoints> {
    // A worker made from a blob obeys the page's Content-Security-Policy; one made from an address does not.
    const [address, ort, glue] = [script, scripts.ort, scripts.glue].map((blob) => URL.createObjectURL(blob)) as [string, string, string];
    const worker = new Worker(address, { type: "module" }), calls = wrap<Calls>(worker), { wasm, graphs } = start;
    const failed = new Promise<never>((_, reject) => worker.addEventListener("error", ({ message }) => reject(new Error(message || "the worker could not be started"))));
    await Promise.race([failed, calls.start(transfer({ ...start, ort, glue }, [wasm, graphs.detector, graphs.keypoints]))]);
    return new FaceKeypoints(worker, calls, start.config, start.backend);
  }

  /** Every face in a picture. Rejects with a sentence for what is no picture. */
  async detect(source: Source, options: Options = {}): Promise<Faces> {
    return faces(await this.calls.detect(await sendable(source), options));
  }

  /** Ends the worker; what it was asked is not answered any more. */
  close(): void {
    this.worker.terminate();
  }
}

let trackers = 0;

/** Follows faces from frame to frame: stable numbers, calm points. */
export class Tracker {
  private readonly id = ++trackers;
  private newest = 0;
  private running: Promise<unknown> = Promise.resolve();

  constructor(private readonly model: FaceKeypoints, private readonly options: TrackerOptions = {}) {}

  /** The faces of the next frame, at a time in seconds that goes on; null where a newer frame came before its turn:
   * one frame is worked on, the newest waits, older ones go. */
  async track(frame: Source, time = performance.now() / 1000): Promise<Faces | null> {
    const mine = ++this.newest;
    await this.running;
    if (mine !== this.newest) return null;
    const source = sendable(frame).then((source) => this.model.calls.track(source, this.id, time, this.options));
    this.running = source.catch(() => undefined);
    return faces(await source);
  }

  /** Forgets the faces. */
  close(): void {
    void this.model.calls.forget(this.id);
  }
}

const faces = (found: Found): Faces => ({ ...found, length: found.scores.length });

/** WebGPU on a real graphics processor, in a browser that can wait for it. */
async function hasWebGpu(): Promise<boolean> {
  const gpu = (navigator as { gpu?: { requestAdapter(): Promise<{ info?: { isFallbackAdapter?: boolean } } | null> } }).gpu;
  const adapter = await gpu?.requestAdapter().catch(() => null);
  return "Suspending" in WebAssembly && !!adapter && !adapter.info?.isFallbackAdapter;
}

/** What a worker can be given, with no copy on the way where the picture is not the caller's. */
async function sendable(source: Source): Promise<Blob | ImageBitmap | ImageData> {
  if (!(source instanceof HTMLVideoElement || source instanceof ImageBitmap)) return source;
  const copy = await createImageBitmap(source, DECODED);
  return transfer(copy, [copy]);
}

// The web worker: pixels and networks, away from the page's thread. What it needs is given to it: it asks the
// network for nothing, so it works where a Content-Security-Policy forbids every connection.

import { expose } from "comlink";
import type * as Ort from "onnxruntime-web";

import type { Network } from "./detector";
import { read } from "./images";
import { type Config, type Face, type Options, Pipeline } from "./pipeline";
import { Following, type TrackerOptions } from "./tracking";

type Source = Blob | ImageBitmap | ImageData;

/** Everything to start with; the scripts are addresses of blobs. */
export type Start = { config: Config; backend: "wasm" | "webgpu"; threads: number; int8: boolean } &
  { ort: string; glue: string; wasm: ArrayBuffer; graphs: { detector: ArrayBuffer; keypoints: ArrayBuffer } };

/** What comes back: the picture's size and its faces one after the other. */
export type Found = Record<"boxes" | "scores" | "keypoints" | "keypointScores" | "sigmas" | "visibility", Float32Array> &
  { width: number; height: number; ids: Int32Array };

let model: Pipeline;
const trackers = new Map<number, Following>();

async function start({ config, backend, threads, ort: address, glue, wasm, graphs, int8 }: Start): Promise<void> {
  const ort: typeof Ort = await import(/* @vite-ignore */ address);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = { mjs: glue };
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = threads;
  const network = async (graph: ArrayBuffer): Promise<Network> => {
    const session = await ort.InferenceSession.create(new Uint8Array(graph), { executionProviders: backend === "webgpu" ? ["webgpu", "wasm"] : ["wasm"], logSeverityLevel: 3 });
    const style = new ort.Tensor("int64", BigInt64Array.of(0n), [1]); // None: points where they are seen
    return async (planes, dims) => {
      const inputs = session.inputNames.map((name) => [name, name === "label_style" ? style : new ort.Tensor("uint8", planes, dims)]);
      const outputs = await session.run(Object.fromEntries(inputs));
      return Object.fromEntries(session.outputNames.map((name) => [name, outputs[name]!.data as Float32Array]));
    };
  };
  model = new Pipeline({ detector: await network(graphs.detector), keypoints: await network(graphs.keypoints) }, config, int8);
}

async function found(source: Source, find: (picture: Awaited<ReturnType<typeof read>>) => Promise<(Face & { id?: number })[]>): Promise<Found> {
  const picture = await read(source), faces = await find(picture);
  const all = (part: (face: Face) => ArrayLike<number>) => Float32Array.from(faces.flatMap((face) => Array.from(part(face))));
  return {
    width: picture.width, height: picture.height, ids: Int32Array.from(faces, (face, i) => face.id ?? i + 1),
    boxes: all((face) => face.box), scores: all((face) => [face.score]), keypoints: all((face) => face.keypoints),
    keypointScores: all((face) => face.keypointScores), sigmas: all((face) => face.sigmas), visibility: all((face) => face.visibility),
  };
}

// One after the other: sessions on WebGPU give wrong results when they run side by side.
let last: Promise<unknown> = Promise.resolve();

function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
  const mine = last.then(work);
  last = mine.catch(() => undefined);
  return mine;
}

const calls = {
  start,
  detect: (source: Source, options: Options) => inTurn(() => found(source, (picture) => model.faces(picture, options))),
  track: (source: Source, tracker: number, time: number, options: TrackerOptions) => inTurn(() => {
    const following = trackers.get(tracker) ?? new Following(model, options);
    trackers.set(tracker, following);
    return found(source, (picture) => following.next(picture, time));
  }),
  forget: (tracker: number) => void trackers.delete(tracker),
};

export type Calls = typeof calls;

expose(calls);

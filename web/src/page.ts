// The page: photos given, shown with their faces, and saved. The camera's tab is in live.ts.

import { zipSync } from "fflate";

import picture from "../../fkp/demo/static/picture.js?element";
import upload from "../../fkp/demo/static/upload.js?element";
import { mean, moved, tightBox, upright } from "./geometry";
import { DECODED } from "./images";
import { draw, FaceKeypoints, type Faces, type Options, record, type Style, toCsv, toJson } from "./index";
import { live } from "./live";
import scheme from "./scheme.json";

declare const __EXAMPLES__: string[];

type FaceRecord = ReturnType<typeof record>["faces"][number];
/** With neither faces nor a problem while it has yet to be looked at; `leftOut`: some of its faces were left out by hand. */
type Photo = { name: string; file: Blob; address: string; faces?: Faces; problem?: string; leftOut?: boolean };

const SHOWN_SIDE = 1600, FACE_SIDE = 480, FACE_MARGIN = 1.5;
const NO_FACE = "Try one where the face is larger, brighter and turned to the camera; small, dark, covered and averted faces are easily missed.";
// Once everything is there, nothing may be asked for any more, by the page or by a worker that it starts.
const SEAL = "connect-src 'none'; script-src blob: 'wasm-unsafe-eval'; worker-src blob:; img-src blob: data:; frame-src 'none'; object-src 'none'";

export const find = <T extends HTMLElement>(selector: string, within: ParentNode = document) => within.querySelector<T>(selector)!;
const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
const percent = (share: number) => `${Math.round(100 * share)} %`;
const css = (colour: readonly number[]) => `rgb(${colour.join(" ")})`;

export function element<T extends keyof HTMLElementTagNameMap>(tag: T, attributes: Record<string, string> = {}, ...children: (Node | string)[]): HTMLElementTagNameMap[T] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** What a tab's options say is to be drawn. */
export function style(panel: HTMLElement): Style {
  const inputs = [...panel.querySelectorAll<HTMLInputElement>("[data-show]")];
  return Object.fromEntries(inputs.map(({ dataset: { show }, type, value, checked }) => type === "range" ? ["pointSize", Number(value)] : [show, checked]));
}

/** Which faces a tab's sliders ask for; they say it beside themselves. */
export function wanted(panel: HTMLElement): Options {
  const [least, most] = ["least", "most"].map((name) => {
    const { value } = find<HTMLInputElement>(`input[data-way=${name}]`, panel);
    find(`[data-told=${name}]`, panel).textContent = value;
    return Number(value);
  });
  return { minScore: least === usual ? undefined : least! / 100, maxFaces: most };
}

function showLegend(panel: HTMLElement): void {
  const { points, numbers, contours, confidence } = style(panel), dots = points || numbers;
  const entry = (...inside: (Node | string)[]) => element("span", {}, ...inside), key = element("i", { class: "scale" });
  key.style.background = `linear-gradient(90deg, ${scheme.confidence.map(css).join(", ")})`;
  const parts = scheme.groups.map(({ name, colour }) => {
    const dot = element("i");
    dot.style.background = css(colour);
    return entry(dot, name);
  });
  const byConfidence = confidence && dots, byPart = dots || (contours && !confidence);
  const rings = points ? [entry(element("i", { class: "ring" }), "unsure or hidden")] : [];
  find(".legend", panel).replaceChildren(...(byConfidence ? [entry("a point’s confidence: 0 %", key, "100 %")] : byPart ? parts : []), ...rings);
}

export function save(name: string, content: Blob | string, type = "application/json"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- Getting ready --------------------------------------------------------------------------------------------------

const panel = find("#photo-panel"), answer = find("#answer");
let examples: File[] = [], photos: Photo[] = [], at = 0, chosen = 0, turn = 0, usual = 0;
let bitmap: ImageBitmap | undefined; // of the photo that is looked at

async function ready(): Promise<FaceKeypoints> {
  const cache = await globalThis.caches?.open(`${new URL("./", location.href)} ${document.documentElement.dataset.version}`).catch(() => undefined);
  const kept = async (url: URL | string) => {
    const before = await cache?.match(url);
    if (before) return before;
    const response = await fetch(url, { cache: "no-cache" });
    if (response.ok) await cache?.put(url, response.clone()).catch(() => undefined); // there may be no room
    return response;
  };
  const [files, ...pictures] = await Promise.all([
    FaceKeypoints.download(undefined, { fetch: kept }), ...__EXAMPLES__.map(async (name) => new File([await (await kept(`examples/${name}`)).blob()], name)),
  ]);
  examples = pictures;
  await navigator.serviceWorker?.register("service-worker.js").catch(() => undefined);
  document.head.append(element("meta", { "http-equiv": "Content-Security-Policy", content: SEAL }));
  for (const [i, file] of examples.entries()) {
    const { name } = file, title = `${name[0]!.toUpperCase()}${name.slice(1, -4).replaceAll("_", " ")}`;
    const image = element("img", { src: URL.createObjectURL(file), alt: "" });
    find(".examples").append(element("button", { type: "button", title, "aria-label": `Try the example ${title}`, "data-example": String(i) }, image));
  }
  const model = await FaceKeypoints.start(files);
  usual = Math.round(100 * model.config.detector.min_score);
  for (const each of document.querySelectorAll<HTMLInputElement>("[data-way=least]")) each.value = String(usual);
  for (const each of document.querySelectorAll<HTMLElement>("main")) if (each.querySelector("[data-way=least]")) wanted(each);
  find(".runs").textContent = `This page runs fkp ${model.config.fkp_version} on ${model.backend === "webgpu" ? "WebGPU" : `${counted(files.start.threads, "thread")} of WebAssembly`}.`;
  return model;
}

const model = ready();
model.then(() => { if (!photos.length) show(); }, (error: Error) => say([`The page could not be loaded: ${error.message}. Reload it to try again.`], true));

// --- Photos ---------------------------------------------------------------------------------------------------------

function say(inside: (Node | string)[], problem = false): void {
  answer.className = `answer ${problem ? "problem" : "fine"}`;
  answer.replaceChildren(...inside);
}

async function take(files: readonly File[]): Promise<void> {
  clear();
  photos = files.map((file) => ({ name: file.name, file, address: URL.createObjectURL(file) }));
  await look();
}

/** Finds the faces of all photos, first of the one that is looked at, and shows that as soon as it is done. */
async function look(): Promise<void> {
  const mine = ++turn, first = photos[at];
  if (!first) return;
  for (const photo of photos) for (const known of ["faces", "problem", "leftOut"] as const) delete photo[known];
  show();
  for (const photo of [first, ...photos.filter((other) => other !== first)]) {
    const found = await model.then((ready) => ready.detect(photo.file, wanted(panel))).then((faces) => ({ faces }), ({ message }: Error) => ({ problem: message }));
    if (mine !== turn) return;
    Object.assign(photo, found);
    if (photo === photos[at]) await (bitmap ? show() : go(at));
    showBeside();
  }
}

function clear(): void {
  turn++;
  for (const photo of photos) URL.revokeObjectURL(photo.address);
  bitmap?.close();
  [photos, at, chosen, bitmap] = [[], 0, 0, undefined];
  show();
}

async function go(to: number): Promise<void> {
  const mine = turn, photo = photos[to]!;
  const decoded = photo.problem ? undefined : await createImageBitmap(photo.file, DECODED);
  if (mine !== turn) return decoded?.close();
  bitmap?.close();
  [at, chosen, bitmap] = [to, 0, decoded];
  show();
}

function show(): void {
  const photo = photos[at], { faces } = photo ?? {}, n = faces?.length ?? 0, going = !!photo && !faces && !photo.problem;
  for (const part of ["#result", "#face"]) find(part).inert = going; // what was found before stays in sight until there is more
  showBeside();
  if (going) return say(["Looking for faces …"]);
  if (!photo) say(["Choose a photo, and its keypoints appear here."]);
  else if (photo.problem) say([element("b", {}, photo.name), ` ${photo.problem}. Please choose another photo.`], true);
  else if (!n && photo.leftOut) say([element("b", {}, "All faces left out"), ` in ${photo.name}. Give the photo again to have them back.`]);
  else if (!n) say([element("b", {}, "No face found"), ` in ${photo.name}. ${NO_FACE}`], true);
  else say([element("b", {}, `Found ${counted(n, "face")}`), ` in ${photo.name}. `, element("small", {}, `${faces!.width}×${faces!.height} pixels.`)]);
  find("#result").hidden = !faces;
  if (faces) {
    const { width, height } = faces, { style } = find(".sheet"), base = find<HTMLImageElement>(".base");
    style.aspectRatio = `${width} / ${height}`;
    style.setProperty("--shape", String(width / height));
    base.src = photo!.address;
    base.alt = `Your photo, with ${counted(n, "face")} found in it`;
    const canvas = find<HTMLCanvasElement>(".overlay"), scale = SHOWN_SIDE / Math.max(width, height);
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const buttons = Array.from({ length: n }, (_, i) => {
      const [x1, y1, x2, y2] = faces.boxes.subarray(4 * i, 4 * i + 4);
      const button = faceButton(faces, i);
      Object.assign(button.style, {
        left: `${(100 * (x1! + 0.5)) / width}%`, top: `${(100 * (y1! + 0.5)) / height}%`,
        width: `${(100 * (x2! - x1!)) / width}%`, height: `${(100 * (y2! - y1!)) / height}%`,
      });
      return button;
    });
    find(".faces").replaceChildren(...buttons);
  }
  choose(0);
}

function faceButton(faces: Faces, i: number, ...inside: Node[]): HTMLButtonElement {
  const label = `Face ${i + 1} of ${faces.length}, ${percent(faces.scores[i]!)} sure`;
  return element("button", { type: "button", "data-face": String(i), "aria-label": label, title: `Face ${i + 1}` }, ...inside);
}

/** What stands beside the photo: the buttons to save, and all photos where there are several. */
function showBeside(): void {
  const some = photos.some((photo) => photo.faces?.length), none = !photos[at]?.faces?.length, unread = !photos.some((photo) => photo.faces);
  const off = { savePicture: none, saveJpeg: none, saveAll: unread, saveAllJpeg: unread, saveJson: !some, saveCsv: !some, clear: !photos.length };
  for (const [way, disabled] of Object.entries(off)) find<HTMLButtonElement>(`[data-way=${way}]`).disabled = disabled;
  for (const way of ["saveAll", "saveAllJpeg"]) find(`[data-way=${way}]`).hidden = photos.length < 2;
  const buttons = photos.map(({ name, address, faces, problem }, i) => {
    const label = `${name}, ${problem ? "which could not be read" : faces ? counted(faces.length, "face") : "not looked at yet"}`;
    const inside = problem ? [element("i", { class: "unread" }, "!")] : [element("img", { src: address, alt: "" }), ...(faces ? [element("i", {}, String(faces.length))] : [])];
    const button = element("button", { type: "button", "data-photo": String(i), "aria-label": label, title: label, "aria-pressed": String(i === at) }, ...inside);
    return Object.assign(button, { disabled: !faces && !problem });
  });
  const done = buttons.filter((button) => !button.disabled).length;
  const going = done < photos.length ? [element("span", { role: "status" }, `${done} of ${photos.length} done …`)] : [];
  find("#photos").replaceChildren(...(photos.length > 1 ? [element("div", { class: "strip", role: "group", "aria-label": "Your photos" }, ...buttons, ...going)] : []));
}

// --- One face -------------------------------------------------------------------------------------------------------

function choose(face: number): void {
  const faces = photos[at]?.faces, section = find("#face");
  chosen = face;
  section.hidden = !faces?.length;
  redraw();
  if (!faces?.length) return;
  find("h2", section).textContent = faces.length > 1 ? `Face ${face + 1} of ${faces.length}` : "The face";
  const strip = find(".strip", section), all = Array.from({ length: faces.length }, (_, i) => faceButton(faces, i, cutOut(faces, i, 96)[0]));
  strip.hidden = all.length < 2;
  strip.replaceChildren(...(all.length > 1 ? all : []));
  for (const button of panel.querySelectorAll<HTMLElement>("[data-face]")) button.ariaPressed = String(Number(button.dataset.face) === face);
  const said = record("", some(faces, [face])).faces[0]!, { keypoint_scores: scores, visibility } = said;
  find(".measures").replaceChildren(...measures(said).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  const rows = scheme.groups.flatMap(({ name, points, colour }) => points.map((k) => {
    const dot = element("i"), cell = (text: string) => element("td", {}, text);
    dot.style.background = css(colour);
    const [x, y] = faces.keypoints.subarray(136 * face + 2 * k);
    return element("tr", {}, element("th", { scope: "row" }, String(k)), element("td", {}, dot, name), cell(x!.toFixed(1)), cell(y!.toFixed(1)), cell(percent(scores[k]!)), cell(percent(visibility[k]!)));
  }));
  find("tbody", section).replaceChildren(...rows);
}

/** What is said of a face: terms and their values. */
function measures({ score, box: [x1, y1, x2, y2], pose, eye_openness: [right, left], mouth_openness, keypoint_scores: scores, guess }: FaceRecord): [string, string][] {
  const sides = [["turned", pose?.yaw, "its left", "its right"], ["raised", pose?.pitch, "up", "down"], ["tilted", pose?.roll, "clockwise", "counter-clockwise"]] as const;
  const turned = sides.map(([name, angle, plus, minus], k): [string, string] =>
    [name, `${Math.abs(angle!).toFixed(0)}° ${angle! > 0 ? plus : minus} ± ${pose?.sigmas[k]!.toFixed(0)}°`]);
  return [
    ["face", `${percent(score)} sure`], ["size", `${(x2! - x1!).toFixed(0)}×${(y2! - y1!).toFixed(0)} pixels`], ...(pose ? turned : []),
    ["eyes open", `right ${right!.toFixed(2)}, left ${left!.toFixed(2)}`], ["mouth open", mouth_openness.toFixed(2)],
    ["points", `${percent(mean(scores))} sure on average${guess ? ": a guess" : ""}, least ${percent(Math.min(...scores))}`],
  ];
}

/** Some of the faces, numbered anew. */
function some(faces: Faces, kept: number[]): Faces {
  const sizes = { boxes: 4, scores: 1, keypoints: 136, keypointScores: 68, sigmas: 68, visibility: 68 } as const;
  const parts = Object.entries(sizes).map(([name, n]) =>
    [name, Float32Array.from(kept.flatMap((i) => Array.from(faces[name as keyof typeof sizes].subarray(n * i, n * i + n))))]);
  return { ...faces, length: kept.length, ids: Int32Array.from(kept.keys(), (i) => i + 1), ...Object.fromEntries(parts) };
}

/** Leaves a face of the photo that is looked at out of picture and numbers. */
function remove(face: number): void {
  const photo = photos[at]!, all = Array.from({ length: photo.faces!.length }, (_, i) => i);
  Object.assign(photo, { faces: some(photo.faces!, all.filter((i) => i !== face)), leftOut: true });
  show();
}

/** One face upright in a square by itself, and where its points are there. */
function cutOut(faces: Faces, i: number, side: number): [HTMLCanvasElement, Faces] {
  const canvas = element("canvas", { width: String(side), height: String(side) }), pen = canvas.getContext("2d")!;
  const points = faces.keypoints.subarray(136 * i, 136 * i + 136);
  const [a, b, x, c, d, y] = upright(points, side, FACE_MARGIN) ?? [1, 0, 0, 0, 1, 0];
  pen.imageSmoothingQuality = "high";
  pen.setTransform(a, c, b, d, x + (1 - a - b) / 2, y + (1 - c - d) / 2); // a canvas counts from a pixel's corner
  if (bitmap) pen.drawImage(bitmap, 0, 0);
  pen.resetTransform();
  const keypoints = Float32Array.from(moved([a, b, x, c, d, y], points));
  return [canvas, { ...some(faces, [i]), width: side, height: side, keypoints, boxes: Float32Array.from(tightBox(keypoints)) }];
}

/** Draws again what was found before: no network runs. */
function redraw(): void {
  showLegend(panel);
  const faces = photos[at]?.faces, canvas = find<HTMLCanvasElement>(".overlay");
  canvas.getContext("2d")!.clearRect(0, 0, canvas.width, canvas.height);
  if (!faces?.length) return;
  draw(canvas, faces, style(panel));
  const [alone, face] = cutOut(faces, chosen, FACE_SIDE), enlarged = find<HTMLCanvasElement>(".enlarged");
  enlarged.getContext("2d")!.drawImage(alone, 0, 0);
  draw(enlarged, face, { ...style(panel), boxes: false });
  enlarged.ariaLabel = `Face ${chosen + 1}, upright and large, with its points`;
}

// --- What people do -------------------------------------------------------------------------------------------------

const stem = (name: string) => name.replace(/\.[^.]*$/, "");

/** A photo with its faces drawn, at its full size; nothing that a camera wrote into the file comes along. */
async function drawn({ file, faces }: Photo, kind: "png" | "jpg"): Promise<Blob> {
  const picture = await createImageBitmap(file, DECODED), canvas = new OffscreenCanvas(picture.width, picture.height), pen = canvas.getContext("2d")!;
  if (kind === "jpg") Object.assign(pen, { fillStyle: "#fff" }).fillRect(0, 0, canvas.width, canvas.height); // it knows nothing transparent
  pen.drawImage(picture, 0, 0);
  picture.close();
  draw(canvas, faces!, style(panel));
  return canvas.convertToBlob({ type: kind === "jpg" ? "image/jpeg" : "image/png", quality: 0.95 });
}

async function saveAll(kind: "png" | "jpg"): Promise<void> {
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const photo of photos.filter(({ faces }) => faces).map((each) => ({ ...each }))) { // a slider may be moved meanwhile
    let name = `${stem(photo.name)}_keypoints.${kind}`;
    for (let number = 2; name in files; number++) name = `${stem(photo.name)}_keypoints_${number}.${kind}`;
    files[name] = new Uint8Array(await (await drawn(photo, kind)).arrayBuffer());
  }
  save("keypoints.zip", new Blob([zipSync(files, { level: 0 })])); // they are compressed already
}

const savePicture = async (kind: "png" | "jpg") => save(`${stem(photos[at]!.name)}_keypoints.${kind}`, await drawn(photos[at]!, kind));

function saveNumbers(kind: "json" | "csv"): void {
  const records = photos.flatMap((photo) => (photo.faces ? [record(photo.name, photo.faces)] : []));
  const name = photos.length > 1 ? "keypoints" : `${stem(photos[0]!.name)}_keypoints`;
  save(`${name}.${kind}`, kind === "json" ? toJson(records) : toCsv(records), kind === "json" ? undefined : "text/csv");
}

const ways: Record<string, () => unknown> = {
  clear, savePicture: () => savePicture("png"), saveJpeg: () => savePicture("jpg"), saveAll: () => saveAll("png"), saveAllJpeg: () => saveAll("jpg"), saveJson: () => saveNumbers("json"), saveCsv: () => saveNumbers("csv"),
};

panel.addEventListener("click", ({ target }) => {
  const button = (target as Element).closest<HTMLElement>("button:not(#photo button, #result button)");
  const { way, face, photo, remove: out } = button?.dataset ?? {};
  if (way) ways[way]?.();
  if (out !== undefined) remove(chosen);
  if (face) choose(Number(face));
  if (photo) void go(Number(photo));
});

const given = { what: "photo", max_files: Infinity, max_file_size: Infinity, keep: (file: File) => file, value: { paths: [] as File[] } };
upload(find("#photo"), given, (event, data) => void take(event === "upload" ? given.value.paths : [examples[data!.index]!]));
picture(find("#result"), {}, (event, data) => (event === "delete" ? remove(data!.index) : choose(data!.index)));

panel.addEventListener("input", ({ target }) => {
  if ((target as HTMLElement).dataset.show) redraw();
  if ((target as HTMLElement).dataset.way) wanted(panel);
});
panel.addEventListener("change", ({ target }) => { if ((target as HTMLElement).dataset.way) void look(); });

for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    const { files } = (event as DragEvent).dataTransfer!;
    if (!event.defaultPrevented && name === "drop" && files.length) {
      tabs[0]!.click();
      document.dispatchEvent(new CustomEvent("fkp-files", { detail: { what: "photo", files } }));
    }
    event.preventDefault();
  });
}

const tabs = [...document.querySelectorAll<HTMLButtonElement>("[role=tab]")];
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    for (const each of tabs) {
      const open = each === tab;
      Object.assign(each, { ariaSelected: String(open), tabIndex: open ? 0 : -1 });
      document.getElementById(each.getAttribute("aria-controls")!)!.hidden = !open;
    }
    find("#photo [data-way=close]").click();
  });
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key], next = step && tabs.at((i + step) % tabs.length);
    if (next) { next.focus(); next.click(); }
  });
}

for (const each of [panel, find("#live-panel")]) {
  showLegend(each);
  each.addEventListener("input", () => showLegend(each));
}
live(find("#live-panel"), model);

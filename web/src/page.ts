// The page: photos given, shown with their faces, and saved. The camera's tab is in live.ts.

import "../../fkp/demo/static/live.css";
import "../../fkp/demo/static/page.css";
import "./theme.css";

import { moved, tightBox, upright } from "./geometry";
import { DECODED } from "./images";
import { isGuess } from "./draw";
import { draw, FaceKeypoints, type Faces, record, type Style, toCsv, toJson } from "./index";
import { live } from "./live";
import scheme from "./scheme.json";

declare const __EXAMPLES__: string[];

interface Photo {
  name: string;
  file: Blob;
  address: string;
  faces?: Faces;
  problem?: string;
}

const SHOWN_SIDE = 1600, FACE_SIDE = 480, FACE_MARGIN = 1.5;
const NO_FACE = "Try one where the face is larger, brighter and turned to the camera; small, dark, covered and averted faces are easily missed.";
// Once everything is there, nothing may be asked for any more, by the page or by a worker that it starts.
const SEAL = "connect-src 'none'; script-src blob: 'wasm-unsafe-eval'; worker-src blob:; img-src blob: data:; frame-src 'none'; object-src 'none'";

export const find = <T extends HTMLElement>(selector: string, within: ParentNode = document) => within.querySelector<T>(selector)!;
export const counted = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
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
  return Object.fromEntries(inputs.map((input) => [input.dataset.show, input.type === "range" ? Number(input.value) : input.checked]));
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
  find(".legend", panel).replaceChildren(...(byConfidence ? [entry("a point’s confidence: 0 %", key, "100 %")] : byPart ? parts : []));
}

export function save(name: string, content: Blob | string, type = "application/json"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- Getting ready --------------------------------------------------------------------------------------------------

const panel = find("#photo-panel"), told = find(".told"), answer = find("#answer");
const examples = new Map<string, File>();
let photos: Photo[] = [], at = 0, chosen = 0, turn = 0;
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
  const [files] = await Promise.all([
    FaceKeypoints.download(undefined, { fetch: kept }),
    ...__EXAMPLES__.map(async (name) => examples.set(name, new File([await (await kept(`examples/${name}`)).blob()], name))),
  ]);
  await navigator.serviceWorker?.register("service-worker.js").catch(() => undefined);
  document.head.append(element("meta", { "http-equiv": "Content-Security-Policy", content: SEAL }));
  for (const name of __EXAMPLES__) {
    const title = `${name[0]!.toUpperCase()}${name.slice(1, -4).replaceAll("_", " ")}`;
    const image = element("img", { src: URL.createObjectURL(examples.get(name)!), alt: "" });
    find(".examples").append(element("button", { type: "button", title, "aria-label": `Try the example ${title}`, "data-example": name }, image));
  }
  const model = await FaceKeypoints.start(files);
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
  if (!files.length) return;
  clear();
  const mine = ++turn;
  told.textContent = "";
  photos = files.map((file) => ({ name: file.name, file, address: URL.createObjectURL(file) }));
  say(["Looking for faces …"]);
  for (const [i, photo] of photos.entries()) {
    try {
      photo.faces = await (await model).detect(photo.file);
    } catch (error) {
      photo.problem = (error as Error).message;
    }
    if (mine !== turn) return;
    if (i === 0) await go(0);
    showStrip();
  }
  showButtons();
}

function clear(): void {
  turn++;
  for (const photo of photos) URL.revokeObjectURL(photo.address);
  bitmap?.close();
  [photos, at, chosen, bitmap] = [[], 0, 0, undefined];
  show();
  showStrip();
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
  const photo = photos[at], { faces } = photo ?? {}, n = faces?.length ?? 0;
  if (!photo) say(["Choose a photo, and its keypoints appear here."]);
  else if (photo.problem) say([element("b", {}, photo.name), ` ${photo.problem}. Please choose another photo.`], true);
  else if (!n) say([element("b", {}, "No face found"), ` in ${photo.name}. ${NO_FACE}`], true);
  else {
    const size = `${faces!.width}×${faces!.height} pixels.`;
    say([element("b", {}, `Found ${counted(n, "face")}`), ` in ${photo.name}. `, element("small", {}, size)]);
  }
  find("#result").hidden = !faces;
  if (faces) {
    const { width, height } = faces, sheet = find(".sheet"), base = find<HTMLImageElement>(".base");
    sheet.style.aspectRatio = `${width} / ${height}`;
    sheet.style.setProperty("--shape", String(width / height));
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
  showButtons();
  choose(0);
}

function faceButton(faces: Faces, i: number, ...inside: Node[]): HTMLButtonElement {
  const label = `Face ${i + 1} of ${faces.length}, ${percent(faces.scores[i]!)} sure`;
  return element("button", { type: "button", "data-face": String(i), "aria-label": label, title: `Face ${i + 1}` }, ...inside);
}

function showButtons(): void {
  const some = photos.some((photo) => photo.faces?.length);
  const off = { savePicture: !photos[at]?.faces?.length, saveJson: !some, saveCsv: !some, clear: !photos.length };
  for (const [way, disabled] of Object.entries(off)) find<HTMLButtonElement>(`[data-way=${way}]`).disabled = disabled;
  find("[data-way=saveAll]").hidden = photos.length < 2;
}

function showStrip(): void {
  const done = photos.filter((photo) => photo.faces ?? photo.problem), buttons = done.map((photo, i) => {
    const faces = photo.faces?.length, label = `${photo.name}, ${photo.problem ? "which could not be read" : counted(faces!, "face")}`;
    const inside = photo.problem ? [element("i", { class: "unread" }, "!")]
      : [element("img", { src: photo.address, alt: "" }), element("i", {}, String(faces))];
    return element("button", { type: "button", "data-photo": String(i), "aria-label": label, title: label, "aria-pressed": String(i === at) }, ...inside);
  });
  const going = done.length < photos.length ? [element("span", { role: "status" }, `${done.length} of ${photos.length} done …`)] : [];
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
  const scores = faces.keypointScores.subarray(68 * face, 68 * face + 68), [x1, y1, x2, y2] = faces.boxes.subarray(4 * face, 4 * face + 4);
  find("figcaption", section).textContent = `${percent(faces.scores[face]!)} sure that this is a face. Its points are ` +
    `${percent(scores.reduce((sum, each) => sum + each) / 68)} sure on average, the least sure ${percent(Math.min(...scores))}` +
    `${isGuess(faces, face) ? ": they are a guess" : ""}. ` +
    `${Math.round(x2! - x1!)}×${Math.round(y2! - y1!)} pixels.`;
  const rows = scheme.groups.flatMap(({ name, points, colour }) => points.map((k) => {
    const dot = element("i"), cell = (text: string) => element("td", {}, text);
    dot.style.background = css(colour);
    const [x, y] = faces.keypoints.subarray(136 * face + 2 * k);
    return element("tr", {}, element("th", { scope: "row" }, String(k)), element("td", {}, dot, name), cell(x!.toFixed(1)), cell(y!.toFixed(1)), cell(percent(scores[k]!)));
  }));
  find("tbody", section).replaceChildren(...rows);
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
  const keypoints = Float32Array.from(moved([a, b, x, c, d, y], points)), part = (all: Float32Array) => all.subarray(68 * i, 68 * i + 68);
  return [canvas, {
    ...faces, length: 1, width: side, height: side, keypoints, boxes: Float32Array.from(tightBox(keypoints)),
    scores: faces.scores.subarray(i, i + 1), keypointScores: part(faces.keypointScores), visibility: part(faces.visibility),
  }];
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

async function savePicture(photo = photos[at]!): Promise<void> {
  const picture = await createImageBitmap(photo.file, DECODED), canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d")!.drawImage(picture, 0, 0);
  picture.close();
  draw(canvas, photo.faces!, style(panel));
  save(`${stem(photo.name)}_keypoints.png`, await canvas.convertToBlob());
}

function saveNumbers(kind: "json" | "csv"): void {
  const records = photos.flatMap((photo) => (photo.faces ? [record(photo.name, photo.faces)] : []));
  const name = photos.length > 1 ? "keypoints" : `${stem(photos[0]!.name)}_keypoints`;
  save(`${name}.${kind}`, kind === "json" ? toJson(records) : toCsv(records), kind === "json" ? undefined : "text/csv");
}

const camera = find(".camera"), preview = find<HTMLVideoElement>("video", camera);

async function openCamera(): Promise<void> {
  try {
    preview.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
  } catch (error) {
    told.textContent = (error as Error).name === "NotAllowedError" ? "The browser was not allowed to use the camera."
      : "No camera was found, another program uses it, or the browser gives it only to pages opened over https.";
    return;
  }
  camera.hidden = false;
  await preview.play();
  find("[data-way=shoot]").focus();
}

function closeCamera(): void {
  for (const track of (preview.srcObject as MediaStream | null)?.getTracks() ?? []) track.stop();
  preview.srcObject = null;
  camera.hidden = true;
}

async function shoot(): Promise<void> {
  if (!preview.videoWidth) return;
  const canvas = new OffscreenCanvas(preview.videoWidth, preview.videoHeight);
  canvas.getContext("2d")!.drawImage(preview, 0, 0); // not mirrored, as the preview is: left and right would change sides
  closeCamera();
  await take([new File([await canvas.convertToBlob()], "snapshot.png")]);
}

async function paste(): Promise<void> {
  try {
    const items = await navigator.clipboard.read(), kind = (item: ClipboardItem) => item.types.find((type) => type.startsWith("image/"));
    const files = await Promise.all(items.filter(kind).map(async (item) => new File([await item.getType(kind(item)!)], `pasted.${kind(item)!.slice(6)}`)));
    if (files.length) await take(files);
    else told.textContent = "There is no picture in the clipboard.";
  } catch {
    told.textContent = "The browser does not let this button read the clipboard: press Ctrl+V instead.";
  }
}

const ways: Record<string, () => unknown> = {
  camera: openCamera, close: closeCamera, shoot, paste, clear, savePicture: () => savePicture(),
  saveAll: async () => { for (const photo of photos) if (photo.faces) await savePicture(photo); },
  saveJson: () => saveNumbers("json"), saveCsv: () => saveNumbers("csv"),
  fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : find(".stage").requestFullscreen()),
};

panel.addEventListener("click", ({ target }) => {
  const { way, face, photo, example } = (target as Element).closest<HTMLElement>("button")?.dataset ?? {};
  if (way) ways[way]?.();
  if (face) choose(Number(face));
  if (photo) void go(Number(photo)).then(showStrip);
  if (example) void take([examples.get(example)!]);
});

panel.addEventListener("input", ({ target }) => {
  const input = target as HTMLInputElement;
  if (input.id === "seen") find(".sheet").style.setProperty("--seen", `${input.value}%`);
  else if (input.type === "file") void take([...input.files!]).then(() => { input.value = ""; }); // so that it can be chosen again
  else redraw();
});

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find(".drop").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name !== "drop") return;
    tabs[0]!.click();
    const files = (event as DragEvent).dataTransfer!.files;
    if (files.length) void take([...files]);
    else told.textContent = "Only files can be dropped here: save the photo first.";
  });
}

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData!.files];
  if (files.length && !panel.hidden) void take(files);
});

const tabs = [...document.querySelectorAll<HTMLButtonElement>("[role=tab]")];
for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => {
    for (const each of tabs) {
      const open = each === tab;
      each.ariaSelected = String(open);
      each.tabIndex = open ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")!)!.hidden = !open;
    }
    closeCamera();
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

// The camera with the keypoints drawn over it.

import { draw, type FaceKeypoints, type Faces, record, toJson, Tracker } from "./index";
import { find, save, style, wanted } from "./page";

const SIDE = 640; // pixels of a frame's longer side
const SAID: Record<string, string> = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it for this page, then try again.",
  NotFoundError: "No camera was found. Connect one, then try again.",
  NotReadableError: "The camera does not answer. Another program may be using it: close that, then try again.",
  TypeError: "The browser gives the camera only to pages that are opened over https or on this computer.",
};

export function live(panel: HTMLElement, loading: Promise<FaceKeypoints>): void {
  const root = find(".live", panel), video = find<HTMLVideoElement>("video", panel), canvas = find<HTMLCanvasElement>("canvas", panel);
  const cameras = find<HTMLSelectElement>("select", panel), mirror = find<HTMLInputElement>("[data-way=mirror]", panel);
  const button = (way: string) => find<HTMLButtonElement>(`button[data-way=${way}]:not(.leave)`, panel);
  let stream: MediaStream | undefined, tracker: Tracker | undefined, faces: Faces | undefined, turn = 0, paused = false;
  let history: { came: number; latency: number }[] = [];

  function state(name: "off" | "starting" | "on", sentence = "", start = "Start the camera"): void {
    root.dataset.state = name;
    find(".word", panel).textContent = sentence;
    button("start").textContent = start;
    button("start").hidden = name === "starting";
    button("stop").disabled = name === "off";
    for (const way of ["fullscreen", "save"]) button(way).disabled = name !== "on";
  }

  async function start(): Promise<void> {
    stop();
    const mine = ++turn;
    state("starting", "Waiting for the camera … Your browser may ask whether this page may use it.");
    try {
      const which = cameras.value ? { deviceId: { exact: cameras.value } } : { facingMode: "user" };
      const got = await navigator.mediaDevices.getUserMedia({ video: { ...which, width: { ideal: SIDE }, height: { ideal: (SIDE * 3) / 4 } } });
      if (mine !== turn) return got.getTracks().forEach((track) => track.stop());
      stream = video.srcObject = got;
      await video.play();
      tracker = new Tracker(await loading, wanted(panel));
    } catch (error) {
      return void (mine === turn && stop(SAID[(error as Error).name] ?? "The camera could not be started.", "Try again"));
    }
    const [track] = stream.getVideoTracks();
    track!.addEventListener("ended", () => { if (mine === turn) stop("The camera was disconnected, or is no longer allowed.", "Try again"); });
    // A camera that looks at people is shown as a mirror does, one that looks away is not.
    mirror.checked = track!.getSettings().facingMode !== "environment" && !/back|rear|environment/i.test(track!.label);
    find(".glass", panel).style.setProperty("--shape", String(video.videoWidth / video.videoHeight));
    state("on");
    redraw();
    button("stop").focus({ preventScroll: true });
    const all = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
    cameras.replaceChildren(...all.map((each, i) => new Option(each.label || `Camera ${i + 1}`, each.deviceId, false, each.deviceId === track!.getSettings().deviceId)));
    find(".pick", panel).hidden = all.length < 2;
    watch(mine);
  }

  function stop(sentence = "The camera is off.", again = "Start the camera"): void {
    turn++;
    for (const track of stream?.getTracks() ?? []) track.stop();
    tracker?.close();
    stream = tracker = faces = undefined;
    video.srcObject = null;
    history = [];
    state("off", sentence, again);
    redraw();
  }

  /** Looks at every new frame that the camera shows. */
  function watch(mine: number): void {
    if (mine !== turn) return;
    video.requestVideoFrameCallback(async (shown) => {
      watch(mine);
      const found = await tracker?.track(video, shown / 1000).catch((error: Error) => stop(`${error.message}.`, "Try again"));
      if (mine !== turn || !found) return;
      faces = found;
      history.push({ came: performance.now(), latency: performance.now() - shown });
      redraw();
    });
  }

  function redraw(): void {
    find(".glass", panel).classList.toggle("mirror", mirror.checked);
    const density = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(canvas.clientWidth * density), Math.round(canvas.clientHeight * density)];
    if (faces && canvas.width) draw(canvas, faces, { ...style(panel), mirrored: mirror.checked });
  }

  setInterval(() => {
    history = history.filter(({ came }) => performance.now() - came < 2000);
    const tell = (meter: string, text: string) => { find(`[data-meter=${meter}]`, panel).textContent = text; };
    const latencies = history.map(({ latency }) => latency).sort((a, b) => a - b);
    tell("rate", faces ? (history.length / 2).toFixed(0) : "–");
    tell("latency", latencies.length ? `${Math.round(latencies[latencies.length >> 1]!)} ms` : "–");
    tell("faces", faces ? String(faces.length) : "–");
    const said = faces && record("", faces).faces, [largest] = said?.toSorted((a, b) => b.box[2]! - b.box[0]! - a.box[2]! + a.box[0]!) ?? [];
    const way = (degrees: number, plus: string, minus: string) => `${Math.abs(degrees).toFixed(0)}° ${degrees > 0 ? plus : minus}`;
    // To its own left is the right of the picture, and the left of a mirror.
    tell("pose", largest?.pose ? `${way(mirror.checked ? largest.pose.yaw : -largest.pose.yaw, "←", "→")} ${way(largest.pose.pitch, "↑", "↓")}` : "–");
    tell("open", largest ? [...largest.eye_openness, largest.mouth_openness].map((share) => share.toFixed(2)).join(" ") : "–");
    tell("frame", faces ? `${faces.width}×${faces.height}` : "–");
  }, 500);

  const ways: Record<string, () => unknown> = {
    start, stop: () => { stop(); button("start").focus(); },
    save: () => faces && save("camera_keypoints.json", toJson([record("camera", faces)])),
    fullscreen: () => (document.fullscreenElement ? document.exitFullscreen() : find(".lens", panel).requestFullscreen()),
  };
  panel.addEventListener("click", ({ target }) => ways[(target as Element).closest("button")?.dataset.way ?? ""]?.());
  panel.addEventListener("input", ({ target }) => { wanted(panel); if (target === cameras) void start(); else redraw(); });
  panel.addEventListener("change", async ({ target }) => {
    if (!tracker || !["least", "most"].includes((target as HTMLElement).dataset.way ?? "")) return;
    tracker.close();
    tracker = new Tracker(await loading, wanted(panel));
  });

  // Nobody looks: the camera is off until somebody does.
  document.addEventListener("visibilitychange", () => {
    const was = paused;
    paused = document.hidden && !!stream;
    if (paused) stop("Paused while this page is hidden.");
    else if (was && !panel.hidden) void start();
  });
  new ResizeObserver(() => { if (panel.hidden && stream) stop(); else redraw(); }).observe(panel);
}

// The camera with the keypoints drawn over it. Small JPEG frames go to the server, numbers come back, and the points
// are drawn here, as often as the screen shows something new. Gradio gives this script element, props and server.
//
// Every result is also told to the page as the event "keypoints" of .live; its detail is
// {faces, width, height, time, ms, latency}: coordinates are pixels of the frame sent, never mirrored.

const SIDE = 640;  // pixels of a frame's longer side
const LEVELS = [[1, 0.7], [1, 0.5], [0.75, 0.5], [0.5, 0.5]];  // size and quality of frames, for ever slower lines
const PATIENCE = 5000;  // ms to wait for an answer
const FORGOTTEN = 600;  // ms after which points without a new result are shown no more; longer on slow lines
const AHEAD = 120;  // ms that the points may be moved on at most

const find = (selector) => element.querySelector(selector);
const root = find(".live"), lens = find(".lens"), glass = find(".glass"), video = find("video");
const canvas = find("canvas"), note = find(".note"), word = find(".word"), cameras = find("select");
const pen = canvas.getContext("2d");
const sheet = document.createElement("canvas");  // what is sent
const copier = sheet.getContext("2d", { willReadFrequently: true });
const colours = props.drawing;
const rgb = ([r, g, b]) => `rgb(${r},${g},${b})`;
const wish = (name) => find(`[data-way=${name}]`);
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

let turn = 0;  // counts starts and stops: what belongs to an earlier one is out of date
let stream = null, viewer = null;
let in_flight = 0, next_at = 0, fresh = false, shown_at = 0, pause = 500, timer = 0;
let result = null, faces = [], dirty = false;
let level = 0, recent = [], level_since = 0;
let mirror = true, chosen = "";

// --- Starting and stopping ------------------------------------------------------------------------------

function state(name, sentence = "", button = "Start the camera") {
  root.dataset.state = name;
  word.textContent = sentence;
  note.textContent = "";
  const start = find("[data-way=start]"), on = name === "on";
  start.textContent = button;
  start.hidden = !button;
  for (const way of ["stop", "fullscreen"]) find(`.ways [data-way=${way}]`).disabled = !on;
  if (name === "starting") find("[data-way=stop]").disabled = false;
}

const SAID = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it for this page, then try again.",
  NotFoundError: "No camera was found. Connect one, then try again.",
  NotReadableError: "The camera does not answer. Another program may be using it: close that, then try again.",
  AbortError: "The camera does not answer. Another program may be using it: close that, then try again.",
};

async function start() {
  if (stream || root.dataset.state === "starting") return;
  const mine = ++turn;
  if (!navigator.mediaDevices?.getUserMedia) {
    state("off", "The browser gives the camera only to pages that are opened over https or on this computer.", "");
    return;
  }
  state("starting", "Waiting for the camera … Your browser may ask whether this page may use it.", "");
  let got = null;
  try {
    got = await camera();
  } catch (error) {
    if (mine === turn) state("off", SAID[error.name] ?? "The camera could not be started.", "Try again");
    return;
  }
  if (mine !== turn || !element.isConnected) return release(got);
  stream = got;
  const [track] = stream.getVideoTracks();
  track.addEventListener("ended", () => {
    if (mine === turn) stop("The camera was disconnected, or is no longer allowed.", "Try again");
  });
  facing(track);
  video.srcObject = stream;
  try {
    await video.play();
  } catch (error) {
    if (mine === turn) stop("The camera’s picture could not be shown.", "Try again");
    return;
  }
  if (mine !== turn) return;
  state("on");
  find("[data-way=stop]").focus({ preventScroll: true });
  list_cameras();
  watch(mine);
  connect(mine);
  requestAnimationFrame(() => draw(mine));
}

function camera() {
  const size = { width: { ideal: SIDE }, height: { ideal: SIDE * 3 / 4 }, frameRate: { ideal: props.rate } };
  const which = chosen ? { deviceId: { exact: chosen } } : { facingMode: "user" };
  return navigator.mediaDevices.getUserMedia({ video: { ...which, ...size }, audio: false });
}

const release = (some) => { for (const track of some?.getTracks() ?? []) track.stop(); };

function stop(sentence = "The camera is off.", button = "Start the camera") {
  turn++;
  clearTimeout(timer);
  release(stream);
  stream = video.srcObject = null;
  if (viewer) ask("leave", { viewer });
  viewer = result = null;
  in_flight = 0;
  history = [];
  faces = [];
  pause = 500;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const focused = root.contains(document.activeElement);
  state("off", sentence, button);
  find("[data-way=save]").disabled = true;
  for (const meter of root.querySelectorAll("[data-meter]")) meter.textContent = "–";
  if (focused) find("[data-way=start]").focus({ preventScroll: true });
}

// A camera that looks at people is shown as a mirror does, one that looks away is not.
function facing(track) {
  mirror = track.getSettings().facingMode !== "environment" && !/back|rear|environment/i.test(track.label);
  find("[data-way=mirror]").checked = mirror;
  glass.classList.toggle("mirror", mirror);
}

async function list_cameras() {
  const all = (await navigator.mediaDevices.enumerateDevices()).filter((each) => each.kind === "videoinput");
  const names = new Map();
  cameras.replaceChildren(...all.map((each, i) => {
    let name = each.label || `Camera ${i + 1}`;
    if (/facing back|back camera/i.test(name)) name = "Back camera";
    if (/facing front|front camera/i.test(name)) name = "Front camera";
    const count = (names.get(name) ?? 0) + 1;
    names.set(name, count);
    return new Option(count > 1 ? `${name} ${count}` : name, each.deviceId);
  }));
  const used = stream?.getVideoTracks()[0].getSettings().deviceId;
  if (used) cameras.value = used;
  find(".pick").hidden = all.length < 2;
}

// --- The server -----------------------------------------------------------------------------------------

// What the server answers, or undefined where it does not.
function ask(name, given) {
  const late = new Promise((done) => setTimeout(done, PATIENCE));
  return Promise.race([server[name](given ?? {}), late]).catch(() => undefined);
}

async function connect(mine) {
  const answer = await ask("join");
  if (mine !== turn) {
    if (answer?.viewer) ask("leave", answer);
  } else if (!answer) {
    lost(mine);
  } else if (answer.viewer) {
    viewer = answer.viewer;
    note.textContent = "";
    send(mine);
  } else {
    note.textContent = `${answer.refused} Trying again …`;
    again(mine, 2000);
  }
}

function again(mine, delay) {
  clearTimeout(timer);
  timer = setTimeout(() => { if (mine === turn) connect(mine); }, delay);
}

function lost(mine) {
  viewer = null;
  note.textContent = "The connection is lost. Trying again …";
  again(mine, pause);
  pause = Math.min(2 * pause, 5000);
}

// Called for every new picture of the camera on the screen.
function watch(mine) {
  if (mine !== turn) return;
  const seen = (now) => {
    if (mine !== turn) return;
    shown_at = now;
    fresh = dirty = true;
    send(mine);
    watch(mine);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(seen);
  else setTimeout(() => seen(performance.now()), 1000 / props.rate);
}

// Few frames are under way at a time; in between the newest is the next one.
async function send(mine) {
  const now = performance.now(), gap = 1000 / props.rate;
  if (mine !== turn || !viewer || !fresh || now < next_at - gap / 8) return;
  if (in_flight >= (recent.length && median(recent) > 60 ? 4 : 2)) return;
  const [share, quality] = LEVELS[level], scale = Math.min(1, share * SIDE / Math.max(video.videoWidth, video.videoHeight));
  const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);
  if (!(width && height)) return;
  fresh = false;
  next_at = Math.max(next_at, now - gap) + gap;
  if (sheet.width !== width || sheet.height !== height) [sheet.width, sheet.height] = [width, height];
  copier.drawImage(video, 0, 0, width, height);
  const jpeg = sheet.toDataURL("image/jpeg", quality).split(",", 2)[1];
  const taken = shown_at, sender = viewer;
  in_flight++;
  const answer = await ask("track", {
    viewer, time: taken / 1000, jpeg, least: Number(wish("least").value) / 100, most: Number(wish("most").value),
  });
  if (mine !== turn) return;
  in_flight--;
  if (sender !== viewer) return;
  if (!answer) return lost(mine);
  pause = 500;
  if (answer.gone) {
    viewer = null;
    connect(mine);
  } else if (answer.refused) {
    note.textContent = answer.refused;
  } else if (answer.faces) {
    note.textContent = "";
    const came = performance.now();
    adapt(came, came - now - answer.ms);
    take(answer, taken, came);
  }
  send(mine);
}

// Frames get smaller while the way to the server takes long, and larger again when it is quick.
function adapt(now, on_the_way) {
  recent.push(on_the_way);
  if (recent.length > 30) recent.shift();
  if (recent.length < 15 || now - level_since < 2000) return;
  const usual = median(recent);
  const to = usual > 150 ? Math.min(level + 1, LEVELS.length - 1)
    : usual < 50 && now - level_since > 10000 ? Math.max(level - 1, 0) : level;
  if (to !== level) [level, level_since, recent] = [to, now, []];
}

// --- Results --------------------------------------------------------------------------------------------

let history = [];  // [when it came, latency] of the last two seconds

function take(answer, taken, came) {
  if (result && taken <= result.taken) return;  // overtaken by a newer one
  const before = new Map(faces.map((face) => [face.id, face]));
  faces = answer.faces.map((face) => {
    const flat = face.keypoints.flat();
    const middle = [0, 1].map((axis) => (face.box[axis] + face.box[axis + 2]) / 2);
    const size = Math.max(face.box[2] - face.box[0], face.box[3] - face.box[1]);
    return { ...face, flat, middle, size, taken, speed: speed(middle, size, taken, before.get(face.id)) };
  });
  const latency = came - taken;
  result = { ...answer, taken, came, latency };
  dirty = true;
  history.push([came, latency]);
  find("[data-way=save]").disabled = false;
  root.dispatchEvent(new CustomEvent("keypoints", { detail: { ...answer, latency } }));
}

const is_old = ({ came, latency }) => performance.now() - came > Math.max(FORGOTTEN, Math.min(3 * latency, 3000));

// Pixels a millisecond of a face's middle; nothing for what only trembles.
function speed(middle, size, taken, before) {
  if (!before || taken - before.taken > 300) return [0, 0];
  const now = middle.map((at, axis) => (at - before.middle[axis]) / (taken - before.taken));
  const mixed = now.map((each, axis) => (each + before.speed[axis]) / 2);
  const moved = Math.hypot(...mixed) / size * 1000;  // faces a second
  return mixed.map((each) => each * moved / (moved + 0.1));
}

setInterval(() => {
  if (!element.isConnected && stream) stop();
  if (!stream) return;
  const now = performance.now();
  history = history.filter(([came]) => now - came < 2000);
  const tell = (meter, text) => { find(`[data-meter=${meter}]`).textContent = text; };
  tell("rate", (history.length / 2).toFixed(0));
  tell("latency", history.length ? `${Math.round(median(history.map(([, latency]) => latency)))} ms` : "–");
  const there = result && !is_old(result), guesses = faces.filter((face) => face.guess).length;
  tell("faces", there ? `${faces.length}${guesses ? `, ${guesses} guessed` : ""}` : "–");
  const [largest] = there ? faces.toSorted((a, b) => b.size - a.size) : [];
  const pose = largest?.pose;
  tell("pose", pose ? `${way(pose.yaw, "←", "→")} ${way(pose.pitch, "↑", "↓")}` : "–");
  tell("open", largest?.eye_openness
    ? [...largest.eye_openness, largest.mouth_openness].map((share) => share.toFixed(2)).join(" ") : "–");
  tell("frame", result ? `${result.width}×${result.height}` : "–");
}, 500);

// To its own left is the right of the picture, and the left of a mirror.
function way(degrees, plus, minus) {
  const turned = plus === "←" && !mirror ? -degrees : degrees;
  return `${Math.round(Math.abs(degrees))}° ${turned > 0 ? plus : minus}`;
}

// --- Drawing --------------------------------------------------------------------------------------------

const option = (name) => find(`[data-show=${name}]`);

function draw(mine) {
  if (mine !== turn) return;
  requestAnimationFrame(() => draw(mine));
  const density = window.devicePixelRatio || 1;
  const width = Math.round(glass.clientWidth * density), height = Math.round(glass.clientHeight * density);
  if (video.videoWidth) glass.style.setProperty("--shape", video.videoWidth / video.videoHeight);
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
    dirty = true;
  }
  if (faces.length && is_old(result)) [faces, dirty] = [[], true];
  if (!dirty) return;
  dirty = false;
  pen.clearRect(0, 0, width, height);
  if (!result) return;
  const scale = width / result.width;
  // Integers are pixel centres; the drawing is mirrored here, so that writing stays readable.
  const at = (x, y) => [mirror ? width - (x + 0.5) * scale : (x + 0.5) * scale, (y + 0.5) * height / result.height];
  for (const face of faces) {
    const ahead = Math.max(0, Math.min(shown_at - face.taken, AHEAD));  // as old as the picture on the screen
    const [dx, dy] = face.speed.map((each) => each * ahead);
    draw_face(face, (x, y) => at(x + dx, y + dy), scale, density);
  }
}

// As in draw.hollow_points: what is unsure or cannot be seen.
function hollow_points(face) {
  const least = face.guess ? colours.guess : colours.unsure;
  return face.keypoint_scores.map((score, i) => score < least || face.visibility?.[i] < colours.hidden);
}

function draw_face(face, at, scale, density) {
  const hollow = hollow_points(face);
  const points = face.keypoints.map(([x, y]) => at(x, y));
  const stroke = Math.max(face.size * scale / 180, 0.9 * density);
  const sure = option("confidence").checked;
  pen.lineJoin = pen.lineCap = "round";
  if (option("mesh").checked) {
    pen.beginPath();
    for (const [a, b] of colours.mesh) { pen.moveTo(...points[a]); pen.lineTo(...points[b]); }
    line(0.6 * stroke, "rgba(245,245,245,0.6)");
  }
  if (option("boxes").checked) {
    const [x1, y1, x2, y2] = face.box, corners = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]].map(([x, y]) => at(x, y));
    path(corners, true);
    line(2.2 * stroke, colours.rim);
    line(0.9 * stroke, rgb(colours.neutral));
    const tall = Math.max(12 * density, face.size * scale / 22);
    pen.font = `600 ${tall}px system-ui, sans-serif`;
    pen.lineWidth = tall / 4;
    const said = `${Math.round(100 * face.score)}%`;
    const left = Math.min(...corners.map(([x]) => x)), top = corners[0][1];
    const y = top > 1.5 * tall ? top - 0.4 * tall : top + 1.2 * tall;
    pen.strokeStyle = colours.rim;
    pen.strokeText(said, left + 0.2 * tall, y);
    pen.fillStyle = rgb(colours.neutral);
    pen.fillText(said, left + 0.2 * tall, y);
  }
  if (option("contours").checked) {
    for (const rim of [true, false]) {
      for (const { members, closed, colour } of colours.groups) {
        const around = closed ? [...members, members[0]] : members;
        for (const faint of [true, false]) {
          pen.beginPath();
          let last = null;
          for (const [n, i] of around.entries()) {
            const j = around[n - 1];
            if (n && (hollow[i] || hollow[j]) === faint) {
              if (last !== j) pen.moveTo(...points[j]);
              pen.lineTo(...points[i]);
              last = i;
            }
          }
          pen.globalAlpha = faint ? colours.faint : 1;
          if (rim && !faint) line(2.2 * stroke, colours.rim);
          else if (!rim) line(0.9 * stroke, rgb(sure ? colours.neutral : colour));
        }
        pen.globalAlpha = 1;
      }
    }
  }
  if (option("points").checked) {
    const radius = 1.75 * stroke * option("size").value;
    for (const rim of [true, false]) {
      for (const { members, colour } of colours.groups) {
        for (const i of members) {
          pen.beginPath();
          pen.arc(...points[i], radius + (rim && !hollow[i] ? 0.65 * stroke : 0), 0, 2 * Math.PI);
          pen.fillStyle = rim ? colours.rim : rgb(sure ? blended(face.keypoint_scores[i]) : colour);
          if (hollow[i]) line((rim ? 1.1 : 0.5) * stroke, pen.fillStyle);
          else pen.fill();
        }
      }
    }
  }
}

function path(points, closed) {
  pen.beginPath();
  for (const point of points) pen.lineTo(...point);
  if (closed) pen.closePath();
}

function line(width, colour) {
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}

function blended(score) {
  const stops = colours.confidence, place = Math.min(Math.max(score, 0), 1) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return stops[from].map((level, i) => Math.round(level + (stops[from + 1][i] - level) * (place - from)));
}

// --- What people do -------------------------------------------------------------------------------------

function save() {
  if (!result) return;
  const { image, width, height } = result;
  const some = result.faces.map(({ id, ...face }) => face);
  const blob = new Blob([JSON.stringify([{ image, width, height, faces: some }])], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "camera_keypoints.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else lens.requestFullscreen?.();
}

const ways = { start, stop: () => stop(), save, fullscreen };

if (!document.fullscreenEnabled) find(".ways [data-way=fullscreen]").hidden = true;

element.addEventListener("click", (event) => ways[event.target.closest("button")?.dataset.way]?.());

element.addEventListener("input", ({ target }) => {
  dirty = true;
  const told = find(`[data-told=${target.dataset.way}]`);
  if (told) told.textContent = target.value;
  if (target.dataset.way === "mirror") {
    mirror = target.checked;
    glass.classList.toggle("mirror", mirror);
  } else if (target.dataset.way === "camera") {
    chosen = target.value;
    stop();
    start();
  } else if (target.dataset.show === "confidence") {
    const [parts, confidence] = root.querySelectorAll(".keys");
    [parts.hidden, confidence.hidden] = [target.checked, !target.checked];
  }
});

// Nobody looks: the camera is off until somebody does.
let paused = false;
document.addEventListener("visibilitychange", () => {
  if (document.hidden && (stream || root.dataset.state === "starting")) {
    paused = true;
    stop("Paused while this page is hidden.");
  } else if (!document.hidden && paused) {
    paused = false;
    if (element.isConnected && root.clientWidth) start();
  }
});
addEventListener("pagehide", () => stop());
new ResizeObserver(() => { if (!root.clientWidth && (stream || root.dataset.state === "starting")) stop(); }).observe(root);
navigator.mediaDevices?.addEventListener?.("devicechange", () => { if (stream) list_cameras(); });

// The picture with its faces: a click on a face chooses it, one on × leaves it out, the slider uncovers what was
// drawn, wheel, pinch and buttons enlarge, dragging moves, and a button shows it all over the screen. Gradio gives
// this script element and trigger.

const LARGEST = 12;
const stage = () => element.querySelector(".stage");
let zoom = 1, x = 0, y = 0;  // the picture's left upper corner, in sizes of the picture on the screen
const fingers = new Map();
let moved = 0;

function show() {
  zoom = Math.min(Math.max(zoom, 1), LARGEST);
  [x, y] = [x, y].map((at) => Math.min(Math.max(at, 1 - zoom), 0));
  element.style.setProperty("--zoom", zoom);
  element.dataset.enlarged = zoom > 1;
  element.style.setProperty("--x", `${100 * x}%`);
  element.style.setProperty("--y", `${100 * y}%`);
}

// Enlarge around a place of the screen, or around the middle.
function enlarge(factor, event) {
  const box = element.querySelector(".sheet").getBoundingClientRect();
  const [u, v] = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
  const to = Math.min(Math.max(zoom * factor, 1), LARGEST), by = to / zoom;
  [x, y, zoom] = [u - (u - x) * by, v - (v - y) * by, to];
  show();
}

element.addEventListener("wheel", (event) => {
  if (!event.target.closest(".sheet")) return;
  if (zoom === 1 && event.deltaY > 0) return;  // then the page scrolls
  event.preventDefault();
  enlarge(Math.exp(-event.deltaY / 300), event);
}, { passive: false });

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".sheet")) return;
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  moved = 0;
});
addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const box = element.querySelector(".sheet").getBoundingClientRect();
  const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
  const now = [event.clientX, event.clientY];
  moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
  fingers.set(event.pointerId, now);
  const share = 1 / (1 + others.length);  // of two fingers, what moves is their middle
  x += share * (now[0] - before[0]) / box.width;
  y += share * (now[1] - before[1]) / box.height;
  if (others.length === 1) {
    const [other] = others, apart = ([a, b]) => Math.max(Math.hypot(a - other[0], b - other[1]), 1);
    enlarge(apart(now) / apart(before), { clientX: (now[0] + other[0]) / 2, clientY: (now[1] + other[1]) / 2 });
  } else show();
});
for (const name of ["pointerup", "pointercancel"]) addEventListener(name, (event) => fingers.delete(event.pointerId));

// Two fingers enlarge the picture; else the browser would scroll the page with them.
element.addEventListener("touchmove", (event) => {
  if (event.touches.length > 1 && event.target.closest(".sheet")) event.preventDefault();
}, { passive: false });

const full = () => document.fullscreenElement && element.contains(document.fullscreenElement);
const ways = {
  larger: () => enlarge(1.6),
  smaller: () => enlarge(1 / 1.6),
  whole: () => { [zoom, x, y] = [1, 0, 0]; show(); },
  fullscreen: () => (full() ? document.exitFullscreen() : element.querySelector(".viewer").requestFullscreen()),
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || moved > 6) return;
  const { face, remove, way } = button.dataset;
  if (remove) trigger("delete", { index: Number(remove) });
  else if (face) trigger("select", { index: Number(face) });
  else ways[way]();
});

element.addEventListener("input", (event) => {
  if (event.target.type === "range") element.style.setProperty("--seen", `${event.target.value}%`);
});

document.addEventListener("fullscreenchange", () => {
  const button = element.querySelector("[data-way=fullscreen]");
  if (button) button.textContent = full() ? "Leave full screen" : "Full screen";
});
if (!document.fullscreenEnabled) element.classList.add("no-fullscreen");

// Another photo is shown whole.
let base = "";
new MutationObserver(() => {
  const now = element.querySelector(".base")?.src.slice(-200) ?? "";
  if (now !== base) [base] = [now, ways.whole()];
}).observe(element, { subtree: true, childList: true, attributes: true, attributeFilter: ["src"] });

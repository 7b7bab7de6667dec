// What holds for the whole page: tabs in the address, groups of buttons that are one stop for the Tab key, points
// found in table and picture, files that are dropped anywhere, and a word when the server is away.

// --- Tabs: each has an address, so that Back stays in the page -------------------------------------------

const TABS = ["photo", "live", "video", "about"];
const tab_of = (name) => [...document.querySelectorAll("button[role=tab]")]
  .find((tab) => tab.textContent.trim().toLowerCase() === name);
window.fkpGoTo = (name) => tab_of(name)?.click();

document.addEventListener("click", (event) => {
  const name = event.target.closest?.("button[role=tab]")?.textContent.trim().toLowerCase();
  const now = location.hash.slice(1) || "photo";
  if (TABS.includes(name) && name !== now) history.pushState(history.state, "", `#${name}`);
});
addEventListener("popstate", () => {
  const name = location.hash.slice(1) || "photo";
  if (TABS.includes(name)) window.fkpGoTo(name);
});
const first = setInterval(() => {  // the page is built by a script that comes later
  if (!tab_of("photo")) return;
  clearInterval(first);
  if (TABS.includes(location.hash.slice(1))) window.fkpGoTo(location.hash.slice(1));
}, 100);

document.addEventListener("click", (event) => {
  const goal = event.target.closest?.("a[data-goto]")?.dataset.goto;
  if (!goal) return;
  event.preventDefault();
  window.fkpGoTo("about");
  const wait = setInterval(() => {  // the text comes when the tab is opened
    const place = document.getElementById(goal === "about" ? "about" : goal);
    if (!place?.checkVisibility()) return;
    clearInterval(wait);
    place.scrollIntoView();
  }, 100);
  setTimeout(() => clearInterval(wait), 5000);
});

// --- Scrolling: gently, but at once for who asked the system to move little --------------------------------

window.fkpScrollTo = (goal, block) => {
  const { matches: little } = matchMedia("(prefers-reduced-motion: reduce)");
  goal?.scrollIntoView({ block, behavior: little ? "instant" : "smooth" });
};

// --- Groups: the arrow keys go from button to button ------------------------------------------------------

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

document.addEventListener("keydown", (event) => {
  const tab = event.target.closest?.("button[role=tab]");
  const group = event.target.closest?.("[role=group]");
  if (!(event.key in STEPS || event.key === "Home" || event.key === "End")) return;
  let buttons = [];
  if (tab) buttons = TABS.map(tab_of).filter(Boolean);
  else if (group?.querySelector("[tabindex]")) buttons = [...group.querySelectorAll("button[tabindex]:not(.remove)")];
  const at = buttons.indexOf(tab ?? event.target);
  if (at < 0) return;
  event.preventDefault();
  const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1
    : (at + STEPS[event.key] + buttons.length) % buttons.length;
  if (!tab) for (const button of buttons) button.tabIndex = button === buttons[to] ? 0 : -1;
  buttons[to].focus();
  if (tab) buttons[to].click();
});

// --- Points: a row of the table marks its place in the enlarged face, and the other way round --------------

document.addEventListener("pointerover", (event) => {
  if (!event.target.closest?.("#face, #points")) return;
  const point = event.target.closest("[data-point]")?.dataset.point;
  for (const marked of document.querySelectorAll("[data-point].marked")) marked.classList.remove("marked");
  if (point === undefined) return;
  for (const each of document.querySelectorAll(`[data-point="${point}"]`)) each.classList.add("marked");
  if (event.target.closest(".marks")) {
    const box = document.querySelector("#points .points"), row = box.querySelector(`tr[data-point="${point}"]`);
    box.scrollTop = row.offsetTop - box.clientHeight / 2;
  }
});

// --- Clips: a stretch of the line goes to where it begins ---------------------------------------------------

document.addEventListener("click", (event) => {
  const seek = event.target.closest?.("[data-seek]")?.dataset.seek;
  if (seek === undefined) return;
  const film = event.target.closest("#clip-answer").querySelector("video");
  film.currentTime = Number(seek);
});

// A clip that is drawn anew is shown where it was.
const seen = {};
for (const name of ["timeupdate", "play", "pause"]) {
  document.addEventListener(name, ({ target }) => {
    if (!target.matches(".film") || !target.readyState) return;
    Object.assign(seen, { film: target.ariaLabel, time: target.currentTime, playing: !target.paused });
  }, true);
}
document.addEventListener("loadedmetadata", ({ target }) => {
  if (!target.matches(".film") || target.ariaLabel !== seen.film) return;
  target.currentTime = seen.time;
  if (seen.playing) target.play();
}, true);

// --- Files: taken wherever they are dropped ------------------------------------------------------------------

for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    if (name === "drop" && !event.target.closest?.(".drop")) {
      const video = document.querySelector("#clip")?.checkVisibility();
      window.fkpGive(video ? "clip" : "photo", event.dataTransfer.files);
    }
  });
}
window.fkpGive = (what, files) => {
  const detail = { what, files: [...files] };
  window.fkpGoTo(what === "clip" ? "video" : "photo");
  const wait = setInterval(() => {  // a tab is built when it is opened for the first time
    if (!document.querySelector(`#${what} .drop`)?.checkVisibility()) return;
    clearInterval(wait);
    setTimeout(() => document.dispatchEvent(new CustomEvent("fkp-files", { detail })), 100);
  }, 50);
  setTimeout(() => clearInterval(wait), 10000);
};

// --- The server: one word when it is away, one when it is back -------------------------------------------------

// A server that was started anew has nothing of a visitor's photo or clip any more; nor has a page that was loaded
// anew, which Gradio does by itself when the server is back.
let away = false, app = null;
const toast = document.createElement("p");
toast.className = "server-word";
toast.setAttribute("role", "status");
function tell_server(sentence, milliseconds = 0) {
  toast.textContent = sentence;
  if (!toast.isConnected) document.body.append(toast);
  if (milliseconds) setTimeout(() => { if (toast.textContent === sentence) toast.textContent = ""; }, milliseconds);
}
function what_is_shown() {
  if (document.querySelector("#result .viewer:not([hidden])")) return "photo";
  return document.querySelector("#clip-answer .film") && "clip";
}
async function ask_server() {
  if (document.hidden) return;
  let answer = null;
  try {
    answer = await (await fetch("gradio_api/app_id", { signal: AbortSignal.timeout(15000) })).json();
  } catch {
    if (!away) tell_server("The server does not answer. This page tries again by itself …");
  }
  if (answer && away) {
    const shown = answer.app_id !== app && what_is_shown();
    const more = shown ? `, but no longer has your ${shown}: please give it once more.` : ".";
    tell_server(`The server is back${more}`, 15000);
  }
  away = !answer;
  document.documentElement.classList.toggle("server-away", away);
  if (answer) app = answer.app_id;
}
ask_server();
setInterval(ask_server, 5000);
addEventListener("beforeunload", () => history.replaceState({ shown: what_is_shown() }, ""));
const lost = history.state?.shown;
const tell_lost = () => {
  tell_server(`The page was loaded anew and no longer has your ${lost}: please give it once more.`, 15000);
};
if (lost) document.body ? tell_lost() : addEventListener("DOMContentLoaded", tell_lost);

// --- Snippets: copied by a button --------------------------------------------------------------------------------

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  await navigator.clipboard?.writeText(button.parentElement.querySelector("pre").textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

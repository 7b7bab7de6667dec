// The picture with its faces: a click on a face chooses it, the slider uncovers what was drawn, and the button
// shows it all over the screen. Gradio gives this script element and trigger.

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.face) trigger("select", { index: Number(button.dataset.face) });
  else if (document.fullscreenElement) document.exitFullscreen();
  else element.querySelector(".stage").requestFullscreen();
});

element.addEventListener("input", (event) => {
  if (event.target.type === "range") element.style.setProperty("--seen", `${event.target.value}%`);
});

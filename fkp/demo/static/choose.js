// A row of buttons, each with the number of what it chooses. Gradio gives this script element and trigger.

element.addEventListener("click", (event) => {
  const { photo, face, remove } = event.target.closest("button")?.dataset ?? {};
  if (remove) trigger("delete", { index: Number(remove) });
  else if (photo ?? face) trigger("select", { index: Number(photo ?? face) });
});

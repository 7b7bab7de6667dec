// The ways to give photos, or a clip: choosing, dropping, pasting, the camera. Files go to Gradio's upload route one after
// the other, then their paths are the component's value and "upload" is triggered. Gradio gives this script
// element, props and trigger; so does the edition in the browser (web/), whose `props.keep` takes files as they are.

const find = (selector) => element.querySelector(selector);
const told = find(".told");
const camera = find(".camera");
const video = find("video");
let opened = null;  // the camera's stream, as it is promised: from when it is asked for until it is closed
let sending = null;  // the request that is under way
let turn = 0;  // counts what is given: what comes later has its way

const say = (sentence) => { told.textContent = sentence; };
const megabytes = (bytes) => `${Math.round(bytes / 1e5) / 10} MB`;

// Gradio's own upload tells nothing on the way.
function send(file, on_the_way) {
  return new Promise((done, failed) => {
    const request = sending = new XMLHttpRequest(), form = new FormData();
    form.append("files", file);
    request.upload.onprogress = ({ loaded, total }) => on_the_way(Math.round(100 * loaded / total));
    request.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(request.responseText);
      } catch { /* a proxy before the server answers as it likes, mostly in HTML */ }
      if (request.status === 200 && answer?.[0]) done(answer[0]);
      else failed(new Error(answer?.detail ?? (request.status === 413 ? "It is larger than the server takes." : "")));
    };
    request.onerror = () => failed(new Error("The server does not answer."));
    request.onabort = () => failed(new Error());
    request.open("POST", "gradio_api/upload");
    request.send(form);
  });
}

const KIND = { photo: /^video\//, clip: /^image\/(?!gif)/ };
const OTHER = { photo: ["clip", "a clip", "Take it to Video"], clip: ["photo", "a photo", "Take it to Photo"] };

// What belongs on the other tab is offered to be taken there.
function belongs_elsewhere(files) {
  const button = find("[data-way=other]"), [what, called, way] = OTHER[props.what];
  const strangers = files.filter((file) => KIND[props.what].test(file.type));
  button.hidden = !strangers.length;
  if (!strangers.length) return false;
  say(`${strangers[0].name} is ${called}.`);
  button.textContent = way;
  button.onclick = () => { button.hidden = true; say(""); window.fkpGive(what, strangers); };
  return strangers.length === files.length;
}

// Ends what is being sent, for something else is given. True of what this returns as long as nothing is.
function instead() {
  const mine = ++turn;
  sending?.abort();
  return () => mine === turn;
}

async function take(files) {
  const given = [...files];
  if (!given.length || (!props.keep && belongs_elsewhere(given))) return;
  const moment = performance.now(), newest = instead();
  const problems = [], paths = [];
  for (const [number, file] of given.slice(0, props.max_files).entries()) {
    if (file.size > props.max_file_size) {
      problems.push(`${file.name} has ${megabytes(file.size)}, which is more than the limit of ` +
        `${megabytes(props.max_file_size)}.`);
      continue;
    }
    const which = given.length > 1 && props.max_files > 1 ? ` ${number + 1} of ${given.length}` : "";
    if (props.keep) {
      paths.push(props.keep(file));
      continue;
    }
    say(`Sending the ${props.what}${which} …`);
    try {
      paths.push(await send(file, (percent) => say(`Sending the ${props.what}${which} … ${percent} %`)));
    } catch (error) {
      problems.push(`${file.name} could not be sent. ${error.message || "Please try again."}`);
    }
    if (!newest()) return;
  }
  say(problems.join(" "));
  if (paths.length) {
    props.value = { paths, left_out: Math.max(0, given.length - props.max_files), moment };
    trigger("upload");
  }
}

document.addEventListener("fkp-files", ({ detail }) => {
  if (detail.what === props.what && element.isConnected) take(detail.files);
});

const release = (stream) => { for (const track of stream.getTracks()) track.stop(); };

async function open_camera() {
  if (opened) return;
  if (!navigator.mediaDevices) {
    say("The browser gives the camera only to pages that are opened over https or on this computer.");
    return;
  }
  const wanted = { video: { width: { ideal: 1920 } }, audio: false };
  const mine = opened = navigator.mediaDevices.getUserMedia(wanted);
  try {
    const stream = await mine;
    if (opened !== mine) return;
    say("");
    video.srcObject = stream;
    camera.hidden = false;
    await video.play();
    if (opened === mine) find("[data-way=shoot]").focus();
  } catch (error) {
    if (opened !== mine) return;  // closed before it was there
    close_camera();
    say(error.name === "NotAllowedError"
      ? "The browser was not allowed to use the camera."
      : "No camera was found, or another program uses it.");
  }
}

function close_camera() {
  opened?.then(release, () => {});  // one that is still to come, too
  opened = video.srcObject = null;
  camera.hidden = true;
}

async function shoot() {
  // A click may come before the camera's first frame.
  if (video.readyState < video.HAVE_CURRENT_DATA) {
    await new Promise((done) => video.addEventListener("loadeddata", done, { once: true }));
  }
  if (!opened) return;
  // The preview is mirrored, as in a mirror; the picture is not, for left and right would change sides.
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  close_camera();
  canvas.toBlob((blob) => take([new File([blob], "snapshot.jpg", { type: blob.type })]), "image/jpeg", 0.95);
}

async function paste() {
  const files = [];
  try {
    for (const item of await navigator.clipboard.read()) {
      const kind = item.types.find((type) => type.startsWith("image/"));
      if (kind) files.push(new File([await item.getType(kind)], `pasted.${kind.slice(6)}`, { type: kind }));
    }
  } catch (error) {
    say("The browser does not let this button read the clipboard: press Ctrl+V instead.");
    return;
  }
  if (files.length) take(files);
  else say("There is no picture in the clipboard.");
}

const ways = { camera: open_camera, shoot, close: close_camera, paste };

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.way) ways[button.dataset.way]?.();
  else if (button.dataset.example) {
    instead();
    say("");
    trigger("select", { index: Number(button.dataset.example), moment: performance.now() });
  }
});

element.addEventListener("change", (event) => {
  if (event.target.type !== "file") return;
  take(event.target.files);
  event.target.value = "";  // so that the same file can be chosen again
});

const drop = find(".drop");
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name !== "drop") return;
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
    else say(`Only files can be dropped here: save the ${props.what} first.`);
  });
}

document.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files;
  if (!files?.length || !element.offsetParent) return;  // no picture, or another tab is open
  event.preventDefault();
  take(files);
});

// The camera of a tab that is left goes off.
new ResizeObserver(() => { if (opened && !drop.clientWidth) close_camera(); }).observe(drop);

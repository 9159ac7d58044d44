// Three ways to a picture: the camera, live; a drawing pad; and a square to drag over a picture.

const LEAST_FRAME = 96, EVERY_MS = 250, PATIENCE_MS = 20000;
const COLOURS = ["#111111", "#ffffff", "#8b8f94", "#d4342a", "#e9902c", "#f2d94e", "#3f8f3a", "#6cb2e8", "#254f9e",
                 "#7a4a2b"];

function node(tag, options = {}, className = "") {
  const made = Object.assign(document.createElement(tag), options);
  if (className) made.className = className;
  return made;
}

function button(text, click, className = "") {
  return node("button", { type: "button", textContent: text, onclick: click }, className);
}

// --- Camera ---------------------------------------------------------------------------------------

const NO_CAMERA = "The browser lets only pages on this machine (localhost) or over https use the camera. "
  + "Open the app in one of these ways, or take a photograph and upload it.";
const REFUSED = {
  NotAllowedError: "The camera was not allowed. Allow it beside the address, then press Start again.",
  NotFoundError: "No camera was found on this device.",
  NotReadableError: "The camera is in use by another program.",
};

function camera(state) {
  const stage = node("div", {}, "stage"), bar = node("div", {}, "bar");
  state.video = node("video", { muted: true, playsInline: true });
  state.small = node("canvas", { width: state.data.side, height: state.data.side, hidden: true }); // until there is something in it
  state.small.setAttribute("aria-label", "The pixels that the models see");
  state.best = node("b", { textContent: "" });
  state.best.setAttribute("aria-live", "off");
  stage.append(state.video, state.small, state.best);
  state.start = button("Start camera", () => (state.stream ? stop(state) : start(state)), "main");
  state.keep = button("Keep this picture", () => state.send("kept", frame(state)));
  state.note = node("p", { textContent: "Predictions several times a second, on the machine that runs this app." });
  state.models = node("div");
  state.keep.disabled = true;
  bar.append(state.start, state.keep);
  state.root.replaceChildren(stage, bar, state.note, state.models);
}

async function start(state) {
  if (!navigator.mediaDevices?.getUserMedia) { state.note.textContent = NO_CAMERA; return; }
  try {
    const wanted = { width: { ideal: 320 }, height: { ideal: 240 }, facingMode: "environment" };
    state.stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
  } catch (error) {
    state.note.textContent = REFUSED[error.name] || `The camera did not start: ${error.message}`;
    return;
  }
  state.video.srcObject = state.stream;
  await state.video.play();
  state.small.hidden = false;
  const facing = state.stream.getVideoTracks()[0].getSettings().facingMode;
  state.video.style.transform = facing === "environment" ? "none" : ""; // mirrored where people see themselves
  state.start.textContent = "Stop camera";
  state.keep.disabled = false;
  state.note.textContent = "Loading the models: the first prediction may take some ten seconds.";
  [state.asked, state.waiting] = [0, false];
  state.timer = setInterval(() => tick(state), 50);
}

function stop(state) {
  clearInterval(state.timer);
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
  state.start.textContent = "Start camera";
  state.keep.disabled = true;
}

// The middle square, small and mirrored back: as the camera saw it.
function frame(state) {
  const FRAME = Math.max(LEAST_FRAME, state.data.side), small = state.small.width;
  const { videoWidth: width, videoHeight: height } = state.video, side = Math.min(width, height);
  const canvas = node("canvas", { width: FRAME, height: FRAME }), pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(state.video, (width - side) / 2, (height - side) / 2, side, side, 0, 0, FRAME, FRAME);
  state.small.getContext("2d").drawImage(canvas, 0, 0, small, small);
  return canvas.toDataURL("image/jpeg", 0.9);
}

// The next frame leaves when the last one is answered, so that a slow server is never ahead of itself.
function tick(state) {
  if (!state.root.isConnected) return stop(state);
  const now = performance.now(), since = now - state.asked;
  if (!state.video.videoWidth || since < EVERY_MS || (state.waiting && since < PATIENCE_MS)) return;
  [state.asked, state.waiting] = [now, true];
  state.number = (state.number || 0) + 1;
  state.send("frame", { number: state.number, url: frame(state) });
}

function answered(state) {
  const { answer, classes } = state.data;
  if (!answer || answer.number !== state.number || !state.stream) return;
  state.waiting = false;
  state.note.textContent = answer.problem || "Small picture: what the models see.";
  const [only, ...more] = answer.models;
  state.best.textContent = only && !more.length ? `${top(only.shares, classes, 1)[0].join(" ")} %` : "";
  state.models.replaceChildren(...answer.models.map(({ name, shares }) => {
    const box = node("div", {}, "model");
    box.append(node("b", { textContent: name }), ...top(shares, classes, 4).map(([label, share]) => {
      const row = node("div"), bar = node("div"), fill = node("i");
      fill.style.width = `${share}%`;
      bar.style.display = "block";
      bar.append(fill);
      row.append(node("span", { textContent: label }), bar, node("span", { textContent: `${share} %` }));
      return row;
    }));
    return box;
  }));
}

function top(shares, classes, count) {
  const order = shares.map((share, label) => [classes[label], share]);
  return order.sort((one, other) => other[1] - one[1]).slice(0, count);
}

// --- Drawing --------------------------------------------------------------------------------------

function drawing(state) {
  const pad = node("canvas", { width: 256, height: 256 }, "pad");
  const pen = pad.getContext("2d", { willReadFrequently: true });
  pad.setAttribute("aria-label", "Drawing pad");
  const undo = [];
  let [colour, width] = [COLOURS[0], 14];
  const fill = (with_) => { pen.fillStyle = with_; pen.fillRect(0, 0, 256, 256); };
  const keep = () => { undo.push(pen.getImageData(0, 0, 256, 256)); if (undo.length > 30) undo.shift(); };
  const send = () => state.send("drawn", pad.toDataURL("image/png"));
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * 256 / box.width, (event.clientY - box.top) * 256 / box.height];
  };
  fill("#ffffff");
  if (state.data.drawn) {
    const old = new Image();
    old.onload = () => pen.drawImage(old, 0, 0);
    old.src = state.data.drawn;
  }
  pad.onpointerdown = (event) => {
    event.preventDefault();
    keep();
    pad.setPointerCapture(event.pointerId);
    Object.assign(pen, { strokeStyle: colour, lineWidth: width, lineCap: "round", lineJoin: "round" });
    pen.beginPath();
    pen.moveTo(...at(event));
    pen.lineTo(...at(event));
    pen.stroke();
  };
  pad.onpointermove = (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    pen.lineTo(...at(event));
    pen.stroke();
  };
  pad.onpointerup = send;
  const choices = (values, make, choose) => {
    const bar = node("div", {}, "bar"), all = values.map(make);
    all.forEach((one, place) => {
      one.onclick = () => {
        choose(values[place]);
        all.forEach((it) => it.setAttribute("aria-pressed", String(it === one)));
      };
    });
    all[0].setAttribute("aria-pressed", "true");
    bar.append(...all);
    return bar;
  };
  const colours = choices(COLOURS, (value) => {
    const one = button("", null, "colour");
    one.style.background = value;
    one.setAttribute("aria-label", `Colour ${value}`);
    return one;
  }, (value) => { colour = value; });
  const names = { 5: "Thin", 14: "Medium", 34: "Thick" };
  const sizes = choices([14, 5, 34], (value) => button(names[value]), (value) => { width = value; });
  sizes.append(
    button("Fill", () => { keep(); fill(colour); send(); }),
    button("Undo", () => { const last = undo.pop(); if (last) { pen.putImageData(last, 0, 0); send(); } }),
    button("Clear", () => { keep(); fill("#ffffff"); send(); }),
  );
  state.root.replaceChildren(pad, colours, sizes);
}

// --- A square over a picture ----------------------------------------------------------------------

function cropping(state) {
  const box = node("div", {}, "crop"), image = node("img", { alt: "Your picture", draggable: false });
  const square = node("div", { tabIndex: 0 }, "frame"), handle = node("i");
  square.setAttribute("aria-label", "Square: drag it, or arrow keys; plus and minus change its size");
  square.setAttribute("role", "group");
  square.append(handle);
  box.append(image, square);
  state.root.replaceChildren(box);
  let [left, top, side] = state.data.square, from = null;
  const limits = () => {
    const short = Math.min(image.width, image.height);
    return [image.width / short, image.height / short, short];
  };
  const place = () => {
    const [wide, high, short] = limits();
    side = Math.min(1, Math.max(0.1, side));
    left = Math.min(wide - side, Math.max(0, left));
    top = Math.min(high - side, Math.max(0, top));
    const px = (value) => `${value * short}px`;
    Object.assign(square.style, { left: px(left), top: px(top), width: px(side), height: px(side) });
  };
  const done = () => state.send("square", [left, top, side]);
  image.onload = place;
  image.src = state.data.picture;
  square.onpointerdown = (event) => {
    event.preventDefault();
    square.focus();
    square.setPointerCapture(event.pointerId);
    from = { x: event.clientX, y: event.clientY, left, top, side, resize: event.target === handle };
  };
  square.onpointermove = (event) => {
    if (!from) return;
    const short = limits()[2], x = (event.clientX - from.x) / short, y = (event.clientY - from.y) / short;
    if (from.resize) side = from.side + Math.max(x, y); else [left, top] = [from.left + x, from.top + y];
    place();
  };
  square.onpointerup = () => { if (from) { from = null; done(); } };
  square.onkeydown = (event) => {
    const step = { ArrowLeft: [-0.05, 0, 0], ArrowRight: [0.05, 0, 0], ArrowUp: [0, -0.05, 0], ArrowDown: [0, 0.05, 0],
                   "+": [0, 0, 0.05], "-": [0, 0, -0.05] }[event.key];
    if (!step) return;
    event.preventDefault();
    [left, top, side] = [left + step[0], top + step[1], side + step[2]];
    place();
    done();
  };
}

// --------------------------------------------------------------------------------------------------

const states = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".lab-source");
  let state = states.get(root);
  if (!state || state.shown !== data.shown) {
    state = { root, data, shown: data.shown, send: setTriggerValue };
    states.set(root, state);
    ({ camera, drawing, cropping })[data.kind](state);
  }
  Object.assign(state, { data, send: setTriggerValue });
  if (data.kind === "camera") answered(state);
  return () => { if (!root.isConnected && state.stream) stop(state); };
}

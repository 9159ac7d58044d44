// A network while it learns: what it predicts for 24 images after each epoch, the confusion matrix and the first
// filters. All snapshots come at once and are played here; new ones are joined without building anything anew.

const PLAY_MS = 4000, SLOWEST_MS = 450, FASTEST_MS = 60;
const RIGHT = "#0095ff", WRONG = "#ff5603";

const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The fixed parts, once for each run.
function build(state) {
  const { root, data } = state;
  root.replaceChildren();
  const bar = node("div", "bar");
  state.button = node("button", "", "▶ Play");
  state.button.type = "button";
  state.button.onclick = () => (state.timer ? pause(state) : play(state));
  state.slider = Object.assign(node("input"), { type: "range", min: 0, step: 1 });
  state.slider.setAttribute("aria-label", "Epoch");
  state.slider.oninput = () => { pause(state); show(state, Number(state.slider.value)); };
  [state.title, state.score, state.live] = [node("b"), node("output"), node("span", "live", "● live")];
  bar.append(state.button, state.slider, state.title, state.score, state.live);
  const strip = node("div", "strip");
  strip.setAttribute("role", "list");
  state.tiles = data.labels.map((label, place) => tile(state, strip, label, place));
  const beside = node("div", "beside"), left = node("div"), right = node("div");
  if (data.counted) left.append(node("h4", "", data.title_matrix), matrix(state), node("p", "", data.about_matrix));
  right.append(node("h4", "", "Filters of the first layer"), filters(state), node("p", "", data.about_filters));
  beside.append(...(data.counted ? [left] : []), right);
  root.append(bar, strip, node("p", "", data.about_images), beside);
}

function tile(state, strip, label, place) {
  const figure = node("figure"), picture = node("i"), caption = node("figcaption");
  figure.setAttribute("role", "listitem");
  const { sheet, columns, rows } = state.data;
  Object.assign(picture.style, {
    backgroundImage: `url(${sheet})`, backgroundSize: `${columns * 100}% ${rows * 100}%`,
    backgroundPosition: `${(place % columns) * 100 / Math.max(1, columns - 1)}% `
      + `${Math.floor(place / columns) * 100 / Math.max(1, rows - 1)}%`,
  });
  const parts = { figure, label, said: node("b"), share: node("div"), truth: node("span") };
  parts.past = node("canvas", "past");
  caption.append(parts.said, parts.share, parts.truth);
  figure.append(picture, parts.past, caption);
  strip.append(figure);
  return parts;
}

function matrix(state) {
  const names = state.data.classes, table = node("table"), head = table.createTHead().insertRow();
  head.append(node("th"));
  for (const name of names) {
    const cell = node("th");
    cell.scope = "col";
    cell.append(node("span", "", name));
    head.append(cell);
  }
  const body = table.createTBody();
  state.cells = names.flatMap((name, row) => {
    const line = body.insertRow(), first = node("th", "", name);
    first.scope = "row";
    line.append(first);
    return names.map((_, column) => Object.assign(line.insertCell(), { className: row === column ? "hit" : "" }));
  });
  return table;
}

function filters(state) {
  const [count, height, width] = state.data.filter_shape, grid = node("div", "filters");
  grid.setAttribute("role", "img");
  grid.setAttribute("aria-label", `${count} filters of ${height} × ${width} pixels`);
  state.canvases = Array.from({ length: count }, () => Object.assign(node("canvas"), { width, height }));
  grid.append(...state.canvases);
  return grid;
}

// --- One snapshot ---------------------------------------------------------------------------------

function show(state, frame) {
  const { data, epochs } = state, count = data.labels.length;
  state.frame = frame;
  state.slider.value = frame;
  const right = state.tiles.filter((parts, place) => showTile(state, parts, place)).length;
  const epoch = epochs[frame];
  state.title.textContent = epoch ? `After epoch ${epoch}` : "Before training";
  state.slider.setAttribute("aria-valuetext", `${state.title.textContent}, ${right} of ${count} right`);
  const total = showMatrix(state, frame);
  state.score.textContent = `${right} of ${count} right` + (total === null ? "" : ` · validation accuracy ${total} %`);
  showFilters(state, frame);
}

function predicted(state, frame, place) {
  const count = state.data.classes.length, at = (frame * state.data.labels.length + place) * count;
  const row = state.probabilities.subarray(at, at + count), best = row.indexOf(Math.max(...row));
  return [best, row[best] / 2.55];
}

function showTile(state, parts, place) {
  const { classes } = state.data, [best, share] = predicted(state, state.frame, place);
  const right = best === parts.label, truth = classes[parts.label];
  parts.figure.className = right ? "right" : "wrong";
  parts.said.textContent = classes[best];
  parts.share.textContent = `${Math.round(share)} %`;
  parts.share.style.setProperty("--share", `${share}%`);
  parts.truth.textContent = right ? "right" : `is ${truth}`;
  parts.figure.setAttribute("aria-label", `${right ? "Right" : "Wrong"}: ${parts.said.textContent}, is ${truth}`);
  past(state, parts, place);
  return right;
}

// A cell for each snapshot so far: blue and tall where right, orange and low where wrong.
function past(state, parts, place) {
  const canvas = parts.past, frames = state.epochs.length;
  canvas.width = frames * 2;
  canvas.height = 6;
  const pen = canvas.getContext("2d");
  for (let frame = 0; frame < frames; frame++) {
    const right = predicted(state, frame, place)[0] === parts.label;
    pen.globalAlpha = frame > state.frame ? 0.18 : 1;
    pen.fillStyle = right ? RIGHT : WRONG;
    pen.fillRect(frame * 2, right ? 0 : 4, frames > 60 ? 2 : 1.7, 6);
  }
}

function showMatrix(state, frame) {
  if (!state.data.counted) return null;
  const size = state.data.classes.length, cells = size * size;
  const counts = state.confusion.subarray(frame * cells, (frame + 1) * cells);
  let all = 0, hits = 0;
  for (let row = 0; row < size; row++) {
    const line = counts.subarray(row * size, (row + 1) * size), sum = line.reduce((one, other) => one + other, 0);
    for (let column = 0; column < size; column++) {
      const cell = state.cells[row * size + column], share = sum ? line[column] / sum : 0;
      const colour = `${row === column ? RIGHT : WRONG} ${Math.round(85 * Math.sqrt(share))}%`;
      cell.style.background = `color-mix(in srgb, ${colour}, var(--st-secondary-background-color))`;
      cell.textContent = line[column] || "";
      cell.title = `${state.data.classes[row]} taken for ${state.data.classes[column]}: ${line[column]} of ${sum}`;
    }
    all += sum;
    hits += line[row];
  }
  return all ? (100 * hits / all).toFixed(1) : null;
}

function showFilters(state, frame) {
  const [count, height, width] = state.data.filter_shape, size = height * width;
  state.canvases.forEach((canvas, number) => {
    const pixels = new ImageData(width, height);
    for (let at = 0; at < size; at++) {
      const from = ((frame * count + number) * size + at) * 3;
      pixels.data.set([state.filters[from], state.filters[from + 1], state.filters[from + 2], 255], at * 4);
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  });
}

// --- Playing --------------------------------------------------------------------------------------

function pause(state) {
  clearInterval(state.timer);
  state.timer = null;
  state.button.textContent = "▶ Play";
}

function play(state) {
  const last = state.epochs.length - 1;
  if (state.frame >= last) show(state, 0);
  state.button.textContent = "❚❚ Pause";
  state.timer = setInterval(() => {
    if (!state.root.isConnected || state.frame >= state.epochs.length - 1) return pause(state);
    show(state, state.frame + 1);
  }, Math.min(SLOWEST_MS, Math.max(FASTEST_MS, PLAY_MS / (last || 1))));
}

const states = new WeakMap();
const latest = new Map();

// Streamlit may build the element anew while the page settles: what was shown, and playing, goes on in the new one.
function goOn(state, before) {
  if (!before || before.root.isConnected) return;
  const playing = before.timer;
  pause(before);
  show(state, Math.min(before.frame, state.epochs.length - 1));
  if (playing) play(state);
}

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".lab-learn");
  let state = states.get(root), before = null;
  if (!state || state.data.run !== data.run) {
    if (state) pause(state);
    state = { root, data, epochs: [], frame: -1, timer: null };
    states.set(root, state);
    before = latest.get(data.run);
    latest.set(data.run, state);
    build(state);
  }
  const following = !state.timer && state.frame >= state.epochs.length - 1;
  const news = data.epochs.length !== state.epochs.length;
  state.data = data;
  state.live.hidden = !data.live;
  if (news) {
    state.epochs = data.epochs;
    state.probabilities = bytes(data.probabilities);
    state.confusion = new Uint16Array(bytes(data.confusion).buffer);
    state.filters = bytes(data.filters);
    state.slider.max = data.epochs.length - 1;
    show(state, following ? data.epochs.length - 1 : Math.min(state.frame, data.epochs.length - 1));
  }
  goOn(state, before);
  return () => { if (!root.isConnected) clearInterval(state.timer); };
}

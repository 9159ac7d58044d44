// A grey square to move over a picture, with pointer or arrow keys: what does the network predict without that part?
// All predictions are there from the start; nothing is asked of the server.

const PLACES = 7, CELL = 12.5; // positions on each axis, and their distance in per cent of the picture

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function build(root, data) {
  const state = { data, at: data.worst };
  const left = node("div"), picture = node("div", "picture"), said = node("div", "said"), rows = node("div", "rows");
  const image = node("img");
  image.src = data.image;
  image.alt = "The picture, with a square that covers a part of it";
  state.square = node("div", "square");
  state.square.style.background = data.grey;
  Object.assign(picture, { tabIndex: 0 });
  picture.setAttribute("role", "slider");
  picture.setAttribute("aria-label", "Covered part");
  picture.append(image, state.square);
  state.picture = picture;
  state.text = node("p");
  state.bars = data.classes.map((name, label) => {
    const bar = node("div"), fill = node("i"), mark = node("u"), share = node("span");
    mark.style.left = `${data.whole[label] / 2.55}%`;
    mark.title = "with nothing covered";
    bar.append(fill, mark);
    rows.append(node("span", "", name), bar, share);
    return { fill, share };
  });
  said.append(state.text, rows);
  left.append(picture, node("small", "", "Move the grey square with the pointer or the arrow keys. The line in "
    + "each bar is the prediction with nothing covered."));
  root.replaceChildren(left, said);
  const follow = (event) => {
    if (event.pointerType !== "mouse") event.preventDefault();
    const box = picture.getBoundingClientRect();
    const place = (value, start, size) => limit(Math.round((value - start) / size * 8 - 1));
    move(state, place(event.clientY, box.top, box.height), place(event.clientX, box.left, box.width));
  };
  picture.onpointermove = picture.onpointerdown = follow;
  picture.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(state, limit(state.at[0] + step[0]), limit(state.at[1] + step[1]));
  };
  move(state, ...data.worst);
}

const limit = (place) => Math.max(0, Math.min(PLACES - 1, place));

function move(state, row, column) {
  const { data } = state, found = data.covered[row][column];
  state.at = [row, column];
  Object.assign(state.square.style, { top: `${row * CELL}%`, left: `${column * CELL}%` });
  const best = (all) => all.indexOf(Math.max(...all)), before = best(data.whole), now = best(found);
  const share = (all, label) => `${data.classes[label]} ${Math.round(all[label] / 2.55)} %`;
  state.text.textContent = now === before
    ? `Without this part still ${share(found, now)} (whole: ${Math.round(data.whole[before] / 2.55)} %).`
    : `Without this part: ${share(found, now)}. The whole picture: ${share(data.whole, before)}.`;
  state.picture.setAttribute("aria-valuetext", state.text.textContent);
  state.bars.forEach(({ fill, share: text }, label) => {
    fill.style.width = `${found[label] / 2.55}%`;
    fill.style.opacity = label === now ? 1 : 0.45;
    text.textContent = `${Math.round(found[label] / 2.55)} %`;
  });
}

export default function ({ parentElement, data }) {
  const root = parentElement.querySelector(".lab-cover"), shown = data.content;
  if (root.dataset.shown === shown) return;
  root.dataset.shown = shown;
  build(root, data);
}

// Small pictures with captions: click one to open it, walk with the arrow keys, tick several with their corner,
// Space or Shift + click. One sheet holds all pictures; captions are put in as text, never as HTML.
// The wall is one stop of the Tab key: the tile that was visited last.

function tile(data, place) {
  const element = document.createElement("div");
  const caption = data.captions[place];
  element.setAttribute("role", "option");
  element.setAttribute("aria-label", caption.replaceAll("\n", ", "));
  element.title = caption;
  element.dataset.id = data.ids[place];
  const { side, columns, rows } = data;
  const picture = document.createElement("i");
  Object.assign(picture.style, {
    width: side + "px", height: side + "px", backgroundImage: "var(--lab-sheet)",
    backgroundSize: `${columns * side}px ${rows * side}px`,
    backgroundPosition: `-${(place % columns) * side}px -${Math.floor(place / columns) * side}px`,
  });
  const words = document.createElement("span");
  words.textContent = data.brief ? data.brief[place] : caption.replaceAll("_", "_\u200b"); // where to break
  const tick = document.createElement("b");
  tick.textContent = "✓";
  tick.title = "Tick this image, to tag several at once";
  element.append(picture, words, tick);
  return element;
}

// A short address for the sheet, since each tile names it: data URLs would be parsed once per tile.
function address(wall, sheet) {
  const bytes = Uint8Array.from(atob(sheet), (sign) => sign.charCodeAt(0));
  const old = wall.dataset.address;
  wall.dataset.address = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
  wall.style.setProperty("--lab-sheet", `url(${wall.dataset.address})`);
  if (old) URL.revokeObjectURL(old);
}

const idOf = (element) => Number(element.dataset.id);

function visit(wall, element) {
  for (const one of wall.children) one.tabIndex = one === element ? 0 : -1;
}

function open(wall, element) {
  for (const one of wall.children) one.setAttribute("aria-current", String(one === element));
}

function mark(wall, data) {
  const chosen = wall.querySelector(`[data-id="${Number(data.chosen)}"]`);
  const ticked = new Set(data.ticked);
  for (const one of wall.children) one.setAttribute("aria-selected", String(ticked.has(idOf(one))));
  open(wall, chosen);
  if (!wall.contains(wall.getRootNode().activeElement)) visit(wall, chosen || wall.children[0]);
}

function tick(state, elements, on) {
  for (const one of elements) one.setAttribute("aria-selected", String(on));
  state.anchor = elements.at(-1);
  state.send("ticked", { ids: elements.map(idOf), on });
}

const isTicked = (element) => element.getAttribute("aria-selected") === "true";

function across(wall) {
  const first = wall.children[0].offsetTop;
  const row = [...wall.children].findIndex((one) => one.offsetTop > first);
  return row < 0 ? wall.children.length : row;
}

function click(state, event) {
  const { wall } = state;
  const element = event.target.closest("[role=option]");
  if (!element) return;
  visit(wall, element);
  element.focus();
  if (event.shiftKey || event.ctrlKey || event.metaKey || event.target.closest("b")) {
    const all = [...wall.children];
    const from = event.shiftKey && state.anchor?.isConnected ? all.indexOf(state.anchor) : all.indexOf(element);
    const [low, high] = [from, all.indexOf(element)].sort((one, other) => one - other);
    tick(state, all.slice(low, high + 1), event.shiftKey || !isTicked(element));
    return;
  }
  open(wall, element);
  pick(state, idOf(element), true);
}

// What follows before the page has answered, such as an arrow key, says again that an image is to be opened:
// the page may be told of it alone.
function pick(state, id, opening) {
  state.opening ||= opening;
  state.send("picked", { id, open: state.opening });
}

// Arrow keys lead to the next tile; beyond either end, to the first of the next or the last of the previous page.
function press(state, event) {
  const { wall, data } = state;
  const element = event.target.closest("[role=option]");
  if (!element || event.altKey || event.ctrlKey || event.metaKey) return;
  const at = [...wall.children].indexOf(element);
  const last = wall.children.length - 1;
  const places = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - across(wall), ArrowDown: at + across(wall),
                   Home: 0, End: last };
  if (event.key === " ") tick(state, [element], !isTicked(element));
  else if (event.key === "Enter") pick(state, idOf(element), true);
  else if (event.key in places) {
    const to = wall.children[places[event.key]];
    const beyond = event.key === "ArrowRight" ? data.after : event.key === "ArrowLeft" ? data.before : null;
    if (to) {
      visit(wall, to);
      to.focus();
      open(wall, to);
    }
    if (to || beyond !== null) pick(state, to ? idOf(to) : beyond, false);
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

const states = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  const wall = parentElement.querySelector(".lab-wall");
  const state = states.get(wall) || { wall };
  states.set(wall, Object.assign(state, { data, send: setTriggerValue, opening: false }));
  const shown = JSON.stringify([data.ids, data.side, data.captions]);
  wall.onkeydown = (event) => press(state, event);
  wall.onclick = (event) => click(state, event);
  wall.setAttribute("aria-label", data.label);
  wall.classList.toggle("brief", Boolean(data.brief));
  if (wall.dataset.shown !== shown) {
    const focused = wall.contains(wall.getRootNode().activeElement);
    wall.dataset.shown = shown;
    address(wall, data.sheet);
    wall.style.gridTemplateColumns = `repeat(auto-fill, ${data.brief ? data.side : Math.max(data.side, 94)}px)`;
    wall.replaceChildren(...data.ids.map((_, place) => tile(data, place)));
    wall.scrollTop = 0;
    mark(wall, data);
    if (focused) wall.querySelector("[tabindex='0']")?.focus();
  } else mark(wall, data);
  return () => { if (!wall.isConnected) URL.revokeObjectURL(wall.dataset.address); };
}

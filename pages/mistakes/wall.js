// Small pictures with captions, to click or to walk through with the arrow keys. One sheet holds them all.
// Captions are put in as text, never as HTML.

function tile(data, place, send) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", data.captions[place].replace("\n", ", "));
  const { side, columns, rows } = data;
  const picture = document.createElement("i");
  Object.assign(picture.style, {
    width: side + "px", height: side + "px", backgroundImage: "var(--lab-sheet)",
    backgroundSize: `${columns * side}px ${rows * side}px`,
    backgroundPosition: `-${(place % columns) * side}px -${Math.floor(place / columns) * side}px`,
  });
  const caption = document.createElement("span");
  caption.textContent = data.captions[place];
  button.append(picture, caption);
  button.dataset.id = data.ids[place];
  button.onclick = () => send(data.ids[place]);
  return button;
}

// A short address for the sheet, since each tile names it: data URLs would be parsed once per tile.
function address(wall, sheet) {
  const bytes = Uint8Array.from(atob(sheet), (sign) => sign.charCodeAt(0));
  const old = wall.dataset.address;
  wall.dataset.address = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
  wall.style.setProperty("--lab-sheet", `url(${wall.dataset.address})`);
  if (old) URL.revokeObjectURL(old);
}

function mark(wall, id) {
  for (const button of wall.children) button.setAttribute("aria-pressed", String(button.dataset.id === String(id)));
}

function across(wall) {
  const first = wall.children[0].offsetTop;
  const row = [...wall.children].findIndex((button) => button.offsetTop > first);
  return row < 0 ? wall.children.length : row;
}

// The tile that a key leads to; beyond either end, the first of the next or the last of the previous page.
function walk(wall, data, event, send) {
  const at = [...wall.children].indexOf(event.target.closest("button"));
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across(wall), ArrowDown: across(wall) };
  const step = steps[event.key];
  if (at < 0 || step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const to = wall.children[at + step];
  if (to) { to.focus(); mark(wall, to.dataset.id); send(Number(to.dataset.id)); return; }
  if (event.key === "ArrowRight" && data.after !== null) send(data.after);
  if (event.key === "ArrowLeft" && data.before !== null) send(data.before);
}

export default function ({ parentElement, data, setTriggerValue }) {
  const wall = parentElement.querySelector(".lab-wall");
  const root = wall.getRootNode();
  const send = (id) => setTriggerValue("picked", id);
  const shown = JSON.stringify([data.ids, data.side, data.captions]);
  wall.onkeydown = (event) => walk(wall, data, event, send);
  wall.setAttribute("aria-label", data.label);
  if (wall.dataset.shown !== shown) {
    const focused = wall.contains(root.activeElement);
    wall.dataset.shown = shown;
    address(wall, data.sheet);
    wall.style.gridTemplateColumns = `repeat(auto-fill, ${Math.max(data.side, 94)}px)`;
    wall.replaceChildren(...data.ids.map((_, place) => tile(data, place, send)));
    if (focused) wall.querySelector(`[data-id="${Number(data.chosen)}"]`)?.focus();
  }
  mark(wall, data.chosen);
  return () => { if (!wall.isConnected) URL.revokeObjectURL(wall.dataset.address); };
}

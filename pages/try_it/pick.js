// Small pictures to click, and a place where a picture can be pasted. Both are plain buttons, so that
// the keyboard reaches them. A pasted picture is made small here: only a small image is wanted of it.

const LARGEST_SIDE = 512;
const LARGEST_FILE = 50e6;

function smaller(file) {
  return createImageBitmap(file).then((bitmap) => {
    const scale = Math.min(1, LARGEST_SIDE / Math.min(bitmap.width, bitmap.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  });
}

function tiles(parent, data, setTriggerValue) {
  const { sprite, columns, rows, ids, labels, chosen } = data;
  ids.forEach((id, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "lab-tile";
    button.title = labels[place];
    button.setAttribute("aria-label", labels[place]);
    button.setAttribute("aria-pressed", String(id === chosen));
    button.style.backgroundImage = `url(${sprite})`;
    button.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    const across = columns > 1 ? (place % columns) / (columns - 1) : 0;
    const down = rows > 1 ? Math.floor(place / columns) / (rows - 1) : 0;
    button.style.backgroundPosition = `${across * 100}% ${down * 100}%`;
    button.onclick = () => setTriggerValue("picked", id);
    parent.appendChild(button);
  });
}

function pasting(parent, setTriggerValue) {
  const box = document.createElement("button");
  box.type = "button";
  box.className = "lab-paste";
  box.textContent = "Paste a picture: click here, then Ctrl+V";
  const say = (text) => { box.textContent = text; };
  box.onclick = () => say("Now press Ctrl+V (or ⌘V)");
  box.onpaste = (event) => {
    event.preventDefault();
    const item = [...event.clipboardData.items].find((one) => one.type.startsWith("image/"));
    const file = item && item.getAsFile();
    if (!file) return say("No picture is in the clipboard");
    if (file.size > LARGEST_FILE) return say("That picture is too large");
    return smaller(file).then(
      (url) => { say("Pasted. Ctrl+V again for another"); setTriggerValue("pasted", url); },
      () => say("That picture could not be read"),
    );
  };
  parent.appendChild(box);
}

export default function ({ parentElement, data, setTriggerValue }) {
  const place = parentElement.querySelector(".lab-pick");
  const shown = JSON.stringify([data.ids, data.chosen, data.kind]);
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  place.replaceChildren();
  if (data.kind === "tiles") tiles(place, data, setTriggerValue);
  else pasting(place, setTriggerValue);
}

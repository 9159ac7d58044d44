// A table of runs or searches: a click on a heading sorts, a name opens its run, boxes choose rows, pins choose
// what the others are compared with.

function heading(column, data, send) {
  const cell = make("th", column.text ? "" : "n");
  cell.scope = "col";
  const sorted = data.sort === column.key;
  cell.setAttribute("aria-sort", sorted ? (data.descending ? "descending" : "ascending") : "none");
  if (!data.sortable) { cell.textContent = column.label; cell.title = column.help; return cell; }
  const button = make("button", sorted ? "sorted" : "", column.label);
  button.type = "button";
  button.title = column.help;
  button.dataset.key = column.key;
  button.append(make("i", "", sorted ? (data.descending ? "▾" : "▴") : ""));
  button.onclick = () => send("sorted", column.key);
  cell.append(button);
  return cell;
}

function tick(row, data, send, body) {
  const box = make("input");
  box.type = "checkbox";
  box.checked = row.ticked;
  box.dataset.id = row.id;
  box.setAttribute("aria-label", "Choose " + row.name);
  box.onchange = () => send("ticked", {
    shown: data.rows.map((other) => other.id),
    ticked: [...body.querySelectorAll("input:checked")].map((other) => other.dataset.id),
  });
  return box;
}

const PIN = "M16 9V4h1V2H7v2h1v5a3 3 0 0 1-3 3v2h6v7l1 1 1-1v-7h6v-2a3 3 0 0 1-3-3z";

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  svg.firstChild.setAttribute("d", path);
  return svg;
}

function pin(row, send) {
  const button = make("button", row.pinned ? "pin pinned" : "pin");
  button.type = "button";
  button.append(icon(PIN));
  button.dataset.key = "pin " + row.id;
  button.title = row.pinned ? "The baseline; click to unpin" : "Pin as baseline: the others then show their difference to it";
  button.setAttribute("aria-label", (row.pinned ? "Unpin " : "Pin ") + row.name);
  button.setAttribute("aria-pressed", Boolean(row.pinned));
  button.onclick = () => send("pinned", row.id);
  return button;
}

function head(row, data, send, body) {
  const cell = make("th", "head");
  cell.scope = "row";
  const line = make("div", "line");
  if (data.choosing) line.append(tick(row, data, send, body));
  if (row.rank) { const rank = make("span", "rank", row.rank); rank.title = row.rank_help ?? ""; line.append(rank); }
  const name = make("div", "name");
  const dot = make("i", row.colour ? "dot" : "dot none");
  if (row.colour) dot.style.background = paint(row.colour);
  const title = make("div", "title");
  title.append(dot, anchor(row.name, row.href));
  if (data.pinning) title.append(pin(row, send));
  name.append(title, make("small", "", row.about));
  const more = make("small", "more");
  row.tags?.forEach((tag) => more.append(make("span", "tag", tag)));
  row.links?.forEach(([label, address]) => more.append(anchor(label, address)));
  if (more.childNodes.length) name.append(more);
  line.append(name);
  cell.append(line);
  return cell;
}

function line(row, data, send, body) {
  const element = make("tr", row.ticked ? "ticked" : "");
  element.append(head(row, data, send, body));
  row.cells.forEach((cell, place) => {
    const box = make("td", data.columns[place + 1].text ? "" : "n", cell[0]);
    box.dataset.label = data.columns[place + 1].label;
    if (cell[1]) box.append(make("small", "", cell[1]));
    element.append(box);
  });
  return element;
}

export default function (component) {
  const { data, parentElement, setTriggerValue: send } = component;
  const root = parentElement.querySelector(".board");
  const focused = root.getRootNode().activeElement;
  const key = focused && (focused.dataset.key || focused.dataset.id);
  const left = root.scrollLeft;
  const table = make("table");
  table.append(make("caption", "", data.caption));
  const top = make("tr");
  data.columns.forEach((column) => top.append(heading(column, data, send)));
  const header = make("thead");
  header.append(top);
  const body = make("tbody");
  data.rows.forEach((row) => body.append(line(row, data, send, body)));
  table.append(header, body);
  root.replaceChildren(table);
  root.scrollLeft = left;
  if (key) {
    const again = [...root.querySelectorAll("button,input")].find((one) => (one.dataset.key || one.dataset.id) === key);
    if (again) again.focus({ preventScroll: true });
  }
}

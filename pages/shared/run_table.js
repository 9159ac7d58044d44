// The leaderboard's table: a click on a heading sorts, a name opens its run, boxes choose rows.
// Everything that comes from the data is put in as text, never as HTML.

const make = (tag, kind, text) => {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
};

// Within the session, and with one entry in the browser's history: st.switch_page adds two, and Back
// would lead to this page with the run's address instead of its own filters.
function open(address) {
  window.history.pushState({}, "", address);
  window.dispatchEvent(new PopStateEvent("popstate"));
}

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

function head(row, data, send, body) {
  const cell = make("th", "head");
  cell.scope = "row";
  const line = make("div", "line");
  if (data.choosing) line.append(tick(row, data, send, body));
  if (row.rank !== null) { const rank = make("span", "rank", row.rank); rank.title = row.rank_help; line.append(rank); }
  const name = make("div", "name");
  const link = make("a", "", row.name);
  link.href = row.href;
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(link.href);
  };
  const dot = make("i", "dot");
  dot.style.background = row.colour;
  const title = make("div", "title");
  title.append(dot, link);
  name.append(title, make("small", "", row.about));
  line.append(name);
  cell.append(line);
  return cell;
}

function line(row, data, send, body) {
  const element = make("tr", row.ticked ? "ticked" : "");
  element.append(head(row, data, send, body));
  row.cells.forEach((cell, place) => {
    const box = make("td", data.columns[place + 1].text ? "" : "n", cell[0]);
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

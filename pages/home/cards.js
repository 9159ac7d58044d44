// Cards: title, number and detail of a network or run, with images that it gets wrong or a small curve.

const SVG = "http://www.w3.org/2000/svg";

// From the lowest value at the bottom to the highest at the top, over the whole width.
function curveOf(values, colour) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  const line = document.createElementNS(SVG, "polyline");
  const at = (value, place) => `${(100 * place) / Math.max(values.length - 1, 1)},${28 - (26 * (value - low)) / span}`;
  line.setAttribute("points", values.map(at).join(" "));
  line.style.stroke = paint(colour);
  svg.append(line);
  return svg;
}

function tile(strip, caption, place) {
  const [truth, predicted, confidence] = caption;
  const figure = make("figure");
  figure.title = `A test image of the class ${truth}, predicted as ${predicted} (${confidence})`;
  const picture = make("div", "picture");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", figure.title);
  const column = place % strip.columns, row = Math.floor(place / strip.columns);
  picture.style.backgroundImage = `url("${strip.url}")`;
  picture.style.backgroundSize = `${100 * strip.columns}% ${100 * strip.rows}%`;
  picture.style.backgroundPosition =
    `${strip.columns > 1 ? (100 * column) / (strip.columns - 1) : 0}% ${strip.rows > 1 ? (100 * row) / (strip.rows - 1) : 0}%`;
  const words = make("figcaption");
  words.append(make("b", "", predicted), make("span", "", truth));
  figure.append(picture, words);
  return figure;
}

function card(data) {
  const element = make("article", data.state ? "card row" : "card");
  element.setAttribute("role", "listitem");
  const head = make("div", "head");
  const dot = make("i", "dot");
  dot.style.background = paint(data.colour);
  const name = make("div", "name");
  const title = anchor(data.title, data.href);
  name.append(title, make("small", "", data.about));
  const number = make("div", "number");
  number.append(make("b", "", data.value), make("small", "", data.detail));
  head.append(dot, name, number);
  element.append(head);
  if (data.state) element.append(make("p", "state", data.state));
  if (data.curve?.length) element.append(curveOf(data.curve, data.colour));
  if (data.strip) {
    const strip = make("div", "strip");
    strip.style.setProperty("--columns", data.strip.columns);
    strip.append(...data.strip.captions.map((caption, place) => tile(data.strip, caption, place)));
    element.append(make("p", "", "Most confident mistakes: prediction, and below it the truth"), strip);
  }
  if (data.links?.length) {
    const links = make("div", "links");
    links.append(...data.links.map(([label, address]) => anchor(label, address)));
    element.append(links);
  }
  return element;
}

export default function ({ data, parentElement }) {
  const root = parentElement.querySelector(".cards");
  root.setAttribute("aria-label", data.label);
  root.classList.toggle("rows", data.cards.some((one) => one.state));
  root.replaceChildren(...data.cards.map(card));
}

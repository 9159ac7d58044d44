// Draws a Plotly figure with Plotly.react, so that zoom, hidden traces and selections survive each
// new set of data. Colours follow the app's theme; a sprite sheet, if given, shows the image of a point.

let plotly;

function loadPlotly(path) {
  if (plotly) return plotly;
  plotly = new Promise((resolve, reject) => {
    const own = document.querySelector('script[src*="static/js/"]');
    const root = own ? new URL("../../", own.src) : new URL("/", document.baseURI);
    const script = document.createElement("script");
    script.src = new URL(path, root).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => { plotly = undefined; script.remove(); reject(new Error("Plotly did not load")); };
    document.head.appendChild(script);
  });
  return plotly;
}

function themeOf(element) {
  const style = getComputedStyle(element);
  const read = (name) => style.getPropertyValue("--st-" + name).trim();
  const background = read("background-color") || "#ffffff";
  const [r, g, b] = rgb(background);
  return { read, background, text: read("text-color") || "#222222", font: read("font") || "sans-serif",
           dark: 0.299 * r + 0.587 * g + 0.114 * b < 128 };
}

function rgb(color) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = color;
  const hex = context.fillStyle;
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function faint(color, share) {
  return `rgba(${rgb(color).join(",")},${share})`;
}

const PAIR = /^([^|]{3,40})\|([^|]{3,40})$/;
const COLOUR_KEY = /color|colour|fill$/i;

// "#light|#dark" stands for one colour in each theme, "$text" and "$background" for the app's own.
function paint(value, theme, key = "") {
  if (Array.isArray(value)) {
    return COLOUR_KEY.test(key) || typeof value[0] === "object" ? value.map((item) => paint(item, theme, key)) : value;
  }
  if (value && typeof value === "object") {
    if (ArrayBuffer.isView(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, paint(item, theme, name)]));
  }
  if (typeof value !== "string" || !COLOUR_KEY.test(key)) return value;
  if (value === "$text") return theme.text;
  if (value === "$muted") return faint(theme.text, 0.65);
  if (value === "$faint") return faint(theme.text, 0.25);
  if (value === "$background") return theme.background;
  const pair = PAIR.exec(value);
  return pair ? pair[theme.dark ? 2 : 1] : value;
}

// A colour of the same hue for a dark page, on which white text is legible: what was light becomes dark.
function mirrored(color) {
  const [r, g, b] = rgb(color).map((part) => part / 255);
  const [low, high] = [Math.min(r, g, b), Math.max(r, g, b)];
  const shift = 1 - low - high;
  return `rgb(${[r, g, b].map((part) => Math.round(255 * (0.08 + 0.5 * (part + shift)))).join(",")})`;
}

// On a dark page the cells near zero are dark, as on a light one they are light.
function darkened(trace) {
  const light = (color) => Math.min(...rgb(color)) > 200;
  const scale = trace.colorscale;
  if (trace.type !== "heatmap" || !Array.isArray(scale) || !scale.some(([, color]) => light(color))) return trace;
  const text = { ...trace.textfont, color: "#fff" };
  return { ...trace, textfont: text, colorscale: scale.map(([at, color]) => [at, mirrored(color)]) };
}

function template(theme) {
  const axis = { gridcolor: faint(theme.text, 0.12), linecolor: faint(theme.text, 0.3), zeroline: false,
                 tickcolor: faint(theme.text, 0.3), automargin: true, title: { standoff: 10 } };
  return { layout: {
    font: { family: theme.font, size: 13, color: theme.text },
    paper_bgcolor: theme.background, plot_bgcolor: theme.background,
    xaxis: axis, yaxis: axis, margin: { l: 8, r: 32, t: 12, b: 8 },
    legend: { orientation: "h", yanchor: "bottom", y: 1.02, x: 0, bgcolor: "rgba(0,0,0,0)" },
    hoverlabel: { bgcolor: theme.background, bordercolor: faint(theme.text, 0.4), align: "left",
                  font: { family: theme.font, size: 13, color: theme.text } },
    modebar: { orientation: "v", bgcolor: "rgba(0,0,0,0)", color: faint(theme.text, 0.45), activecolor: theme.text },
    coloraxis: { colorbar: { outlinewidth: 0, thickness: 12 } },
  } };
}

// A figure of many points comes as zlib's bytes of its JSON, with lines of numbers as steps from one to the next.
async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const figure = await new Response(stream).json();
  for (const trace of figure.data) for (const at of ["x", "y"]) if (trace[at]?.steps) trace[at] = numbers(trace[at]);
  return figure;
}

function numbers({ steps, digits }) {
  let sum = 0;
  return steps.map((step) => (sum += step) / 10 ** digits);
}

function draw(Plotly, state) {
  const { element, data } = state;
  const theme = themeOf(element);
  const figure = paint(data.figure, theme);
  if (theme.dark) figure.data = figure.data.map(darkened);
  const layout = { uirevision: data.revision, autosize: true, height: data.height, ...figure.layout, template: template(theme) };
  // Plotly would offer to send the chart to its own cloud, by default.
  const config = { displaylogo: false, responsive: true, scrollZoom: false, showSendToCloud: false, plotlyServerURL: "",
                   modeBarButtonsToRemove: data.select ? ["autoScale2d"] : ["lasso2d", "select2d", "autoScale2d"],
                   toImageButtonOptions: { filename: data.name, format: "png", scale: 2 } };
  return Plotly.react(element, figure.data, layout, config);
}

function showImage(state, event) {
  const { tip, data, element } = state;
  const point = event.points[0];
  const index = Array.isArray(point.customdata) ? point.customdata[0] : point.customdata;
  if (!data.sprite || index === undefined || index === null) return;
  const { url, columns, rows, tile, zoom, captions } = data.sprite;
  const side = tile * zoom;
  const picture = tip.firstChild;
  Object.assign(picture.style, {
    width: side + "px", height: side + "px", backgroundImage: `url("${url}")`,
    backgroundSize: `${columns * side}px ${rows * side}px`,
    backgroundPosition: `-${(index % columns) * side}px -${Math.floor(index / columns) * side}px`,
  });
  tip.lastChild.textContent = captions ? captions[index] : "";
  const box = element.getBoundingClientRect();
  const x = event.event ? event.event.clientX - box.left : 0;
  const y = event.event ? event.event.clientY - box.top : 0;
  const wide = side + 18;
  tip.style.display = "block";
  tip.style.left = Math.max(0, Math.min(x + 16 + wide > box.width ? x - 16 - wide : x + 16, box.width - wide)) + "px";
  tip.style.top = Math.max(0, Math.min(y - side / 2, box.height - side - 34)) + "px";
}

function listen(state) {
  const { element, tip } = state;
  element.on("plotly_hover", (event) => showImage(state, event));
  element.on("plotly_unhover", () => { tip.style.display = "none"; });
  element.on("plotly_click", (event) => {
    if (!state.data.click) return;
    const { x, y, z, customdata, curveNumber, pointNumber } = event.points[0];
    state.send("clicked", { x, y, z, customdata, curve: curveNumber, point: pointNumber });
  });
  const selected = (points) => { if (state.data.select) state.send("selected", points.map((point) => point.customdata)); };
  element.on("plotly_selected", (event) => { if (event) selected(event.points); });
  element.on("plotly_deselect", () => selected([]));
}

const states = new WeakMap();

function stateOf(parentElement) {
  const root = parentElement.querySelector(".lab-plot");
  let state = states.get(root);
  if (!state) {
    state = { root, element: root.querySelector(".lab-plot-figure"), tip: root.querySelector(".lab-plot-tip"), heard: false };
    states.set(root, state);
    // The root's colour moves with the theme: its transition is the sign to draw anew.
    root.addEventListener("transitionend", (event) => {
      if (event.target === root && event.propertyName === "color" && state.data) loadPlotly(state.data.plotly).then((it) => draw(it, state));
    });
    state.resize = new ResizeObserver(() => { if (state.heard && root.clientWidth) window.Plotly.Plots.resize(state.element); });
    state.resize.observe(root);
  }
  return state;
}

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const state = stateOf(parentElement);
  state.latest = data;
  state.send = setTriggerValue;
  state.element.style.height = data.height + "px";
  state.root.setAttribute("aria-label", data.alt);
  Promise.all([loadPlotly(data.plotly), data.packed ? unpack(data.packed) : data.figure])
    .then(([it, figure]) => {
      if (state.latest !== data) return undefined; // a newer one was quicker
      state.data = { ...data, figure };
      const drawn = draw(it, state);
      if (!state.heard) { state.heard = true; listen(state); } // before it is seen: no click is lost
      return drawn;
    })
    .catch((error) => { state.element.textContent = "This figure could not be drawn: " + error.message; });
  return () => { if (!state.root.isConnected && window.Plotly) window.Plotly.purge(state.element); };
}

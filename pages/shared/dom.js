// What components of this app make their elements with; it stands before the script of each.
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

// "#light|#dark" is one colour for each theme, which the page's color-scheme tells.
const paint = (colour) => colour.includes("|") ? `light-dark(${colour.split("|").join(",")})` : colour;

function anchor(label, address) {
  const link = make("a", "", label);
  link.href = address;
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(link.href);
  };
  return link;
}


"""What the tests in the browser do alike: find a plot, choose a pill, fill a number, look for an overhang."""

import re

PLOT = "document.querySelectorAll('.js-plotly-plot')[0]"
OVERHANG = (
    "() => { const main = document.querySelector('[data-testid=stMain]');"
    " return main.scrollWidth - main.clientWidth; }"
)
"""Pixels by which the page is wider than the window."""
CUT = """() => {
  const found = [];
  const look = (root) => root.querySelectorAll("*").forEach((element) => {
    if (element.shadowRoot) look(element.shadowRoot);
    const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    if (!words || !element.clientWidth || style.clipPath !== "none") return;
    const cut = element.scrollWidth > element.clientWidth + 1 && style.overflowX !== "visible";
    if (cut || element.getBoundingClientRect().right > innerWidth + 1) found.push(element.textContent.trim());
  });
  look(document.querySelector("[data-testid=stMain]"));
  return found;
}"""
"""Texts of the page's main part that are cut off, or reach over the window's right edge."""


def pick(page, name):
    """One of a row of pills."""
    main = page.get_by_test_id("stMain")
    pills = main.get_by_role("radio", name=name, exact=True)
    pills.or_(main.get_by_role("button", name=name, exact=True)).first.click()


def fill(page, label, value):
    """A number, taken over by Enter."""
    field = page.get_by_role("spinbutton", name=label, exact=True)
    field.fill(str(value))
    field.press("Enter")


def limit_images(page, number):
    """Train on so many images, typed into the Train page's field."""
    field = page.get_by_role("combobox", name="Training images")
    field.fill(str(number))
    field.press("Enter")
    page.get_by_role("button", name=re.compile(f"train limit: none . {number}")).wait_for()

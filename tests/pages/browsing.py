"""What the tests in the browser do alike: find a plot, choose a pill, fill a number, look for an overhang."""

PLOT = "document.querySelectorAll('.js-plotly-plot')[0]"
OVERHANG = (
    "() => { const main = document.querySelector('[data-testid=stMain]');"
    " return main.scrollWidth - main.clientWidth; }"
)
"""Pixels by which the page is wider than the window."""


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

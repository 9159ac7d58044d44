"""Counts what was fed to which parser, and lends the app's fixtures."""

from tests.hostile.hostile import COUNTS
from tests.pages.conftest import (  # noqa: F401 - fixtures
    app_test,
    home_store,
    open_page,
    prepared,
    prepared_home,
    quiet,
    serve,
    tabs,
    visit,
)


def pytest_terminal_summary(terminalreporter):
    if COUNTS:
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(COUNTS.items()))
        terminalreporter.write_line(f"hostile inputs: {sum(COUNTS.values()):,} ({told})")

"""`app` starts the dashboard, from a checkout or from an installed package; `completion` sets up a shell."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from cifar_core.cli.app import COMPLETE_VARIABLE, PROGRAM, command, root
from cifar_core.errors import CifarLabError

INSTALLED = "share/cifar-lab/app.py"
"""Where a wheel puts the app, below the environment's data folder (see pyproject.toml)."""


@command("app")
@click.option("--port", type=click.IntRange(1, 65535), default=8501, help="Port on this machine.")
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.")
def app(port: int, browser: bool) -> int:
    """Start the dashboard and open it in the browser; Ctrl-C ends it, and trainings go on."""
    if importlib.util.find_spec("streamlit") is None:
        raise CifarLabError("The dashboard needs Streamlit, which is not installed: pip install streamlit")
    script = find_app()
    options = [f"--server.port={port}", f"--server.headless={str(not browser).lower()}"]
    return subprocess.call([sys.executable, "-m", "streamlit", "run", str(script), *options])


@command("completion")
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script that makes the Tab key complete commands and options.

    \b
    bash: echo 'eval "$(cifar-lab completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(cifar-lab completion zsh)"' >> ~/.zshrc
    fish: echo 'cifar-lab completion fish | source' >> ~/.config/fish/config.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root, {}, PROGRAM, COMPLETE_VARIABLE).source())


def find_app() -> Path:
    """`app.py` of this checkout, or of the installed package.

    Raises:
        CifarLabError: neither is there.
    """
    checkout = Path(__file__).parents[2] / "app.py"
    if (checkout.parent / "pages").is_dir() and checkout.is_file():
        return checkout
    try:
        files = importlib.metadata.files("cifar-lab") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix().endswith(INSTALLED):
            return Path(str(file.locate())).resolve()
    raise CifarLabError(
        f"This installation has no {INSTALLED}. Install it again: pip install --force-reinstall cifar-lab"
    )

"""README is followed word by word: each of its blocks is run, or stands here with a reason."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request

import pytest

from tests import few_images
from tests.documents import CHECKOUT, blocks, prose

README = CHECKOUT / "README.md"
BLOCKS = blocks(README)
ENVIRONMENT = "python3 -m venv .venv && . .venv/bin/activate"
"""The one line that is not run: these tests are run in such an environment, and so is .ci/run."""
START, TEST = "streamlit run app.py", "pytest"
WORDS_IN_THREE_MINUTES = 3 * 220
MOST_WORDS = 700


def shell_blocks():
    return [block for block in BLOCKS if block.language == "sh"]


def block_with(command):
    [found] = [block for block in shell_blocks() if command in re.split(r" && |\n", block.body.strip())]
    return found


@pytest.fixture
def few(tmp_path, home):
    """An environment for commands: a home of their own, few images, and `pip` installs nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in {
        "cifar-lab": "from cifar_core.cli import main; sys.exit(main())",
        "streamlit": "from streamlit.web.cli import main; main()",
        "pytest": "import pytest; sys.exit(pytest.main())",
        "pip": "sys.exit(sys.argv[1] != 'install')",
    }.items():
        few_images.command(folder, name, sys.executable, body)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "CIFAR_LAB_HOME": str(home),
        "CIFAR_LAB_DATA": str(few_images.write(tmp_path / "data")),
    }


def bash(block, environment, timeout=300):
    lines = [line for line in block.commands if line != ENVIRONMENT]
    return subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_every_block_is_run_or_has_a_reason():
    run = {block_with(START), block_with(TEST), *python_blocks(), *command_line_blocks()}
    left = [str(block) for block in BLOCKS if block not in run]
    assert not left, f"no test runs {left}: write one, or say here why not"


# --- Start and test ------------------------------------------------------------------------------


@pytest.fixture
def started(few):
    """The start block, as it stands but for a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [line for line in block_with(START).commands if line != ENVIRONMENT]
    environment = {
        **few,
        "STREAMLIT_SERVER_PORT": str(port),
        "STREAMLIT_SERVER_HEADLESS": "true",
        "CIFAR_LAB_SUPERVISE": "0",
    }
    process = subprocess.Popen(
        ["bash", "-e", "-c", "\n".join(lines)],
        env=environment,
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield _healthy(process, f"http://127.0.0.1:{port}")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def _healthy(process, url):
    for _ in range(600):
        assert process.poll() is None, "the start command ended"
        try:
            assert _get(f"{url}/_stcore/health") == "ok"
            return url
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the start command brought up nothing")


def _get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_the_start_command_serves_the_lab(started):
    assert "<title>Streamlit</title>" in _get(started)


@pytest.mark.browser
def test_the_start_command_shows_what_is_described(started, chromium):
    page = chromium.new_page()
    page.goto(started)
    page.get_by_role("heading", name="CIFAR Lab", level=1).wait_for()
    page.get_by_role("button", name="Train the base CNN").click()
    page.get_by_role("button", name="Launch").wait_for()
    page.close()


@pytest.mark.slow
def test_the_test_command_finds_the_tests(few):
    """All of them: it names no folder. Here it only collects those of one file, since it would run itself."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["tool"]["pytest"]["ini_options"]["testpaths"] == ["tests"]
    done = bash(block_with(TEST), {**few, "PYTEST_ADDOPTS": "--collect-only tests/test_face.py"})
    assert done.returncode == 0, done.stdout[-2000:]
    assert "test_every_public_name_is_there" in done.stdout


def test_what_is_installed_is_what_ci_installs():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert re.search(r'^pip install .*"\.\[test\]"$', (CHECKOUT / ".ci" / "run").read_text(), re.MULTILINE)
    extras = set(project["project"]["optional-dependencies"])
    asked = re.findall(r"pip install ([^\n`&]+)", README.read_text())
    known = {"-r requirements.txt", "-e .", *(f'-e ".[{extra}]"' for extra in extras)}
    assert {words.strip() for words in asked} <= known


def test_the_named_versions_of_python_are_the_ones_that_are_taken():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    named = re.search(r"Python (3\.\d+), (3\.\d+) or (3\.\d+)", README.read_text())
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert list(named.groups()) == [f"3.{minor}" for minor in range(int(low), int(high))]


# --- Scripts and commands ------------------------------------------------------------------------


def python_blocks():
    return [block for block in BLOCKS if block.language == "python"]


def command_line_blocks():
    return [
        block for block in shell_blocks() if any(line.startswith("cifar-lab ") for line in block.commands)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_the_script(block, few, tmp_path):
    (tmp_path / "script.py").write_text(block.body)
    start = "import runpy, sys; from tests import few_images; few_images.apply(); runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", start, str(tmp_path / "script.py")],
        env=few,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "images_per_second" in done.stdout  # the last column of the history
    assert 0 <= float(done.stdout.splitlines()[-1]) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("block", command_line_blocks(), ids=str)
def test_the_command_line(block, few):
    done = bash(block, few)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "base_cnn-" in done.stdout  # the run that was just trained stands on the leaderboard


# --- For a newcomer ------------------------------------------------------------------------------


def test_it_is_read_in_three_minutes():
    text = prose(README)
    words = re.findall(r"[^\W_]{2,}[\w./-]*", re.sub(r"\]\([^)]*\)|https?://\S+", "", text))
    assert len(words) <= WORDS_IN_THREE_MINUTES
    assert len(README.read_text().split()) <= MOST_WORDS

"""Files around the code agree with it: container, citation, contributors' checks, package metadata."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from cifar_core.base.version import __version__

CHECKOUT = Path(__file__).parent.parent


def text(name):
    return (CHECKOUT / name).read_text()


def dockerfile():
    """(instruction, arguments) of each line, continued lines joined."""
    joined = text("Dockerfile").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_the_container_copies_what_is_there_and_docker_is_let_to_see_it():
    seen = {line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")}
    copied = [shlex.split(arguments)[0] for instruction, arguments in dockerfile() if instruction == "COPY"]
    assert set(copied) == seen
    assert all((CHECKOUT / name).exists() for name in copied)


def test_the_container_runs_as_an_ordinary_user_on_a_supported_python():
    (base,) = [arguments for instruction, arguments in dockerfile() if instruction == "FROM"]
    version = re.fullmatch(r"python:3\.(\d+)-slim", base)
    allowed = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"]
    low, high = map(int, re.findall(r"3\.(\d+)", allowed))
    assert low <= int(version[1]) < high
    instructions = [instruction for instruction, _ in dockerfile()]
    assert instructions.index("USER") < instructions.index("CMD")
    assert {"VOLUME", "HEALTHCHECK", "EXPOSE"} <= set(instructions)


def test_the_citation_names_this_version_and_licence():
    citation = yaml.safe_load(text("CITATION.cff"))
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert citation["version"] == __version__
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]


def test_what_contributors_check_before_a_commit_is_what_is_checked_afterwards():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    checked = text(".ci/run").splitlines()
    for hook in repository["hooks"]:
        assert {hook["entry"], f"{hook['entry']} ."} & set(checked), hook["entry"]


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (CHECKOUT / ".github/ISSUE_TEMPLATE").iterdir())
)
def test_an_issue_form_asks_for_something(name):
    form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}"))
    assert form["name"]
    assert form["description"]
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_workflow_and_the_development_container_use_what_everybody_uses():
    steps = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["check"]["steps"]
    assert steps[-1]["run"] == "bash .ci/run"
    container = json.loads(text(".devcontainer/devcontainer.json"))
    assert container["forwardPorts"] == [8501]
    install = shlex.split(container["postCreateCommand"])
    assert install in [
        shlex.split(line.split(" && ")[0])
        for line in text(".github/CONTRIBUTING.md").splitlines()
        if line.startswith("python -m pip ")
    ]


def test_the_container_file_has_no_findings():
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    linter = shutil.which("hadolint", path=here)
    if linter is None:
        pytest.skip('no hadolint: pip install -e ".[test]"')
    done = subprocess.run([linter, "--no-color", "Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


# --- Packages ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """{"sdist": file, "wheel": file} of what git tracks, or would; the wheel is made of the sdist."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    copy_tracked(source)
    build = [sys.executable, "-m", "build", "--outdir", str(built), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    [sdist], [wheel] = built.glob("*.tar.gz"), built.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


def copy_tracked(folder):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.split("\0"):
        if name and (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)


def borrowing_environment(folder, *, with_pip=False):
    """A new virtual environment that sees the packages of this one; returns its folder of commands."""
    venv.create(folder, with_pip=with_pip)
    python = str(folder / "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip())
    ours = {path for path in map(Path, sys.path) if path.name == "site-packages"}
    (site / "others.pth").write_text("\n".join(map(str, ours)))
    return folder / "bin"


@pytest.fixture(params=["wheel", "sdist"])
def installed(request, packages, tmp_path):
    """The folder of commands of an environment into which a package was installed."""
    commands = borrowing_environment(tmp_path / "venv")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(commands / "python"),
        "install",
        "--quiet",
        "--no-deps",
    ]
    # The borrowed packages may hold the lab itself, which pip would take for the wheel.
    subprocess.run(
        [*install, "--ignore-installed", str(packages[request.param])], check=True, capture_output=True
    )
    return commands


@pytest.mark.slow
def test_every_file_of_the_app_and_the_core_is_in_the_wheel(packages):
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.split())
    wanted = {name for name in tracked if re.match(r"app\.py|pages/|cifar_core/|\.streamlit/config", name)}
    inside = {
        re.sub(r"^.*share/cifar-lab/", "", name) for name in zipfile.ZipFile(packages["wheel"]).namelist()
    }
    assert wanted - inside == set()


@pytest.mark.slow
def test_an_installed_package_starts_the_app_and_completes_commands(installed, tmp_path, home):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "CIFAR_LAB_HOME": str(home),
        "CIFAR_LAB_SUPERVISE": "0",
        "PATH": f"{installed}{os.pathsep}{environment['PATH']}",
    }
    version = subprocess.run(
        ["cifar-lab", "--version"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert version.stdout == f"cifar-lab {__version__}\n"
    assert completed("cifar-lab doc", environment, tmp_path) == ["doctor"]
    assert completed("cifar-lab completion b", environment, tmp_path) == ["bash"]
    port = unused_port()
    command = ["cifar-lab", "app", "--no-browser", "--port", str(port)]
    with started(command, environment, tmp_path) as process:
        assert healthy(process, port)


def completed(line, environment, folder):
    """What the Tab key offers in bash at the end of a line."""
    script = (
        'eval "$(cifar-lab completion bash)"; '
        f"COMP_WORDS=({line}); COMP_CWORD={len(line.split()) - 1}; "
        '_cifar_lab_completion cifar-lab; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=folder, capture_output=True, text=True)
    return done.stdout.split()


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def started(command, environment, folder):
    process = subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def healthy(process, port):
    """Whether the app answers within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "the app ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1) as health:
                return health.read() == b"ok"
        except OSError:
            time.sleep(0.2)
    return False


@pytest.mark.slow
def test_the_steps_of_the_container_run_in_a_clean_environment(tmp_path):
    """Its folders are below `tmp_path`, its packages are borrowed (pip checks each), it makes no user, its
    port is a free one."""
    source, root, port = tmp_path / "source", tmp_path / "root", unused_port()
    copy_tracked(source)
    root.mkdir()
    commands = borrowing_environment(tmp_path / "venv", with_pip=True)
    stand_ins = {
        "useradd": ":",
        "install": 'while [[ $1 != /* ]]; do shift; done; mkdir "$@"',
        "streamlit": 'exec python -m streamlit "$@"',  # borrowed packages have no commands
    }
    for name, body in stand_ins.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    environment = {"PATH": f"{commands}:/usr/bin:/bin", "HOME": str(root), "STREAMLIT_SERVER_PORT": str(port)}
    environment |= {"STREAMLIT_SERVER_HEADLESS": "true", "CIFAR_LAB_SUPERVISE": "0"}
    folder, last = root, {}
    for instruction, arguments in dockerfile():
        text_here = re.sub(r"(?<![\w.])/(lab|app)\b", rf"{root}/\1", arguments)
        if instruction == "WORKDIR":
            folder = Path(text_here)
            folder.mkdir()
        elif instruction == "ENV":
            environment |= dict(word.split("=") for word in shlex.split(text_here))
        elif instruction == "COPY":
            copied, target = shlex.split(arguments)
            (folder / target).parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-r", source / copied, folder / target], check=True)
        elif instruction == "RUN":
            subprocess.run(["bash", "-ec", text_here], env=environment, cwd=folder, check=True)
        elif instruction in ("CMD", "HEALTHCHECK"):
            last[instruction] = json.loads(arguments[arguments.index("[") :].replace("8501", str(port)))
    assert Path(environment["CIFAR_LAB_HOME"]).is_dir()
    with started(last["CMD"], environment, folder) as process:
        assert healthy(process, port)
        subprocess.run(last["HEALTHCHECK"], env=environment, cwd=folder, check=True)

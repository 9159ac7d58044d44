"""The pages under docs/: they build without a warning, and what they name exists."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib

import click
import pytest

from tests.documents import CHECKOUT, blocks, documents, inline, prose

FILES = [pytest.param(file, id=str(file.relative_to(CHECKOUT))) for file in documents()]
PAGES_OF_DOCS = [file for file in documents() if file.parent != CHECKOUT]

NOT_HERE = {
    "cifar_core/models/mynet.py": "the reader is about to write it",
}
OTHER_TOOLS = {
    "--strict": "mkdocs",
}
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<target>[^)\s#]*)(?:#[^)]*)?\)")
SENT_TO = re.compile(
    r"\*\*([\w ]+?)\*\* in the menu|[Oo]n the page \*\*([\w ]+?)\*\*|\*\*([\w ]+?) → |"
    r"^\d\. \*\*([\w ]+?)\*\*:",
    re.MULTILINE,
)
"""A page of the app by its title, as the reader is sent to it."""
FOLDERS = ("cifar_core/", "pages/", "docs/", "tests/", ".ci/")


# --- The build -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip('no mkdocs: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ".mkdocs.yml", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_page_is_built(site):
    for file in PAGES_OF_DOCS:
        name = file.relative_to(CHECKOUT / "docs").with_suffix("")
        page = site / ("" if name.name == "index" else name) / "index.html"
        assert page.is_file(), f"{file} is in no navigation"


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    loads = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?:[^\s\">]+)")
    for page in site.rglob("*.html"):
        assert loads.findall(page.read_text()) == [], page


@pytest.mark.slow
def test_settings_stand_in_the_pages_as_they_are_declared(site):
    from cifar_core.base.fields import describe
    from cifar_core.models import MODELS
    from cifar_core.settings.train_config import TrainConfig

    text = (site / "api" / "training" / "index.html").read_text()
    for cls in (TrainConfig, *MODELS.values()):
        for name in describe(cls):
            assert f"<code>{name}</code>" in text, name


@pytest.mark.slow
def test_every_public_name_is_in_the_pages(site):
    import cifar_core

    text = "".join(page.read_text() for page in (site / "api").rglob("*.html"))
    for name in set(cifar_core.__all__) - {"PAPER_RESULTS"}:  # made on use; its function is shown
        anchor = rf'id="?cifar_core\.([\w.]+\.)?{name}["\s>]'
        assert re.search(anchor, text), f"no page under docs/api shows {name}"


# --- Links and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_links_and_pictures_lead_somewhere(file):
    targets = {found["target"] for found in LINK.finditer(prose(file))} - {""}
    missing = [target for target in targets if not (file.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("file", FILES)
def test_named_files_exist(file):
    words = {word for words in inline(file) for word in words.split() if word.startswith(FOLDERS)}
    missing = [word for word in words - NOT_HERE.keys() if not (CHECKOUT / word).exists()]
    assert not missing


@pytest.mark.parametrize("file", FILES)
def test_named_variables_exist(file):
    named = set(re.findall(r"CIFAR_LAB_\w+", file.read_text()))
    assert named <= variables()


@functools.cache
def variables():
    folders = [CHECKOUT / name for name in ("cifar_core", "pages", "tests")]
    sources = "".join(file.read_text() for folder in folders for file in folder.rglob("*.py"))
    return set(re.findall(r"[\"'](CIFAR_LAB_\w+)[\"']", sources))


@pytest.mark.parametrize("file", FILES)
def test_named_pages_of_the_app_exist(file):
    from pages.shared.navigation import PAGES

    addresses = {entry.path for entry in PAGES}
    named = [re.fullmatch(r"/(\w+)\?.*", words) for words in inline(file)]
    assert {found[1] for found in named if found} <= addresses
    titles = {entry.title for entry in PAGES}
    assert {title for name in SENT_TO.findall(prose(file)) for title in name if title} <= titles


@pytest.mark.parametrize("file", FILES)
def test_named_presets_exist(file):
    from cifar_core.models import MODELS
    from cifar_core.settings.presets import PRESETS
    from cifar_core.tuning import SEARCH_PRESETS

    models = "|".join(MODELS)
    named = re.findall(rf"\b(?:{models})/[a-z][\w-]*", file.read_text())
    assert {name for name in named if not name.endswith(".py")} <= {*PRESETS, *SEARCH_PRESETS}


@pytest.mark.parametrize("file", FILES)
def test_named_parts_of_cifar_core_exist(file):
    for name in set(re.findall(r"\bcifar_core(?:\.\w+)+", file.read_text())):
        assert resolved(name) is not None, name


def resolved(name):
    """What `cifar_core.a.b` is: a module as far as there are modules, and attributes of it."""
    parts = name.split(".")
    value, path = importlib.import_module(parts[0]), parts[0]
    for part in parts[1:]:
        path = f"{path}.{part}"
        if not hasattr(value, part):
            if not inspect.ismodule(value) or importlib.util.find_spec(path) is None:
                return None
            importlib.import_module(path)
        value = getattr(value, part)
    return value


def test_the_rooms_of_the_architecture_page_are_those_that_are_checked():
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]
    [checked] = [contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers"]
    [drawn] = [
        block for block in blocks(CHECKOUT / "docs" / "architecture.md") if block.body.startswith("cli ")
    ]
    assert [line.split()[0] for line in drawn.body.splitlines()] == checked


# --- Commands ------------------------------------------------------------------------------------


def command_lines(file):
    """Every `cifar-lab ...` in a file, from blocks and from the text."""
    lines = [line for block in blocks(file) for line in block.commands if block.language in ("sh", "bash")]
    lines = [re.sub(r"^(\w+=\S+ )+", "", line) for line in (*lines, *inline(file))]
    return sorted({line for line in lines if line.startswith("cifar-lab ")})


COMMANDS = sorted({line for file in documents() for line in command_lines(file)})


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line, monkeypatch):
    """Each is parsed as it would be if somebody typed it; nothing is carried out."""
    from cifar_core.cli.app import root

    monkeypatch.setenv("CIFAR_LAB_TOKEN", "the one that the chief printed")
    words = [word for word in shlex.split(line)[1:] if word != "COMMAND"]
    command, context = root, click.Context(root, info_name="cifar-lab")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, command, words = command.resolve_command(context, words)
        context = click.Context(command, info_name=name, parent=context)
    if words:  # a command's bare name, in a text, only has to be one
        with contextlib.suppress(click.exceptions.Exit):  # --help and --version
            command.parse_args(context, words)
            settings_are_allowed(command.name, dict(context.params))


def settings_are_allowed(command, given):
    """Raises where a flag's value is none: these commands read values only once they are carried out."""
    from cifar_core.cli import train, tune
    from cifar_core.serving.formats import check_format

    if command == "train":
        others = [given.pop(name) for name in ("preset", "config_file", "seeds", "store", "queue", "as_json")]
        train.seeded(train.requested(others[0], others[1], given), others[2])
    if command == "tune":
        others = {name: given.pop(name) for name in ("spaces", *given.keys() & NOT_OF_A_SEARCH)}
        tune.search_config(others["spaces"], given)
    if command == "export":
        check_format(given["form"], given["quantize"])


NOT_OF_A_SEARCH = {"store", "isolation", "as_json", "listen", "token", "local"}


@pytest.mark.parametrize("file", FILES)
def test_named_flags_exist(file):
    named = {words.split()[0].split("=")[0] for words in inline(file) if words.startswith("--")}
    assert named <= flags() | OTHER_TOOLS.keys()


@functools.cache
def flags():
    from cifar_core.cli.app import COMMANDS as ROOT_COMMANDS
    from cifar_core.cli.app import root

    context = click.Context(root)
    commands = [root.get_command(context, name) for name in ROOT_COMMANDS]
    groups = [command for command in commands if isinstance(command, click.Group)]
    commands += [command for group in groups for command in group.commands.values()]
    options = [option for command in commands for option in command.get_params(context)]
    beside = re.findall(r'\badd\("(--[\w-]+)"', (CHECKOUT / ".ci" / "gpu_check.py").read_text())
    return {flag for option in options for flag in (*option.opts, *option.secondary_opts)} | set(beside)


@pytest.mark.parametrize("file", FILES)
def test_named_extras_exist(file):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = {name for names in re.findall(r"\.\[([\w,]+)\]", file.read_text()) for name in names.split(",")}
    assert extras <= set(project["optional-dependencies"])


# --- Code ----------------------------------------------------------------------------------------

CODE = [
    pytest.param(block, id=str(block))
    for file in documents()
    for block in blocks(file)
    if block.language == "python"
]


@pytest.mark.parametrize("block", CODE)
def test_code_calls_what_exists(block):
    """Each name of `cifar_core` that it uses exists, and takes the arguments that it is given."""
    tree = ast.parse(block.body)
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node, names)):
            assert resolved(name) is not None, f"{name} does not exist"
        if isinstance(node, ast.Call) and (name := dotted(node.func, names)):
            problem = refused(name, node)
            assert problem is None, f"{name}: {problem}"


def imported(tree):
    """Names that stand for something of `cifar_core`; `store` is a RunStore wherever it is met."""
    names = {"store": "cifar_core.RunStore", "lab": "cifar_core"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.startswith("cifar_core")]
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in ours}
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cifar_core"):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            for alias in node.names:
                assert resolved(f"{node.module}.{alias.name}") is not None, alias.name
    return names


def dotted(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, names)):
        return f"{before}.{node.attr}"
    return None


def refused(name, call):
    """Why the call can't be bound to what it calls, or None. A TrainConfig takes the settings of its model
    beside its own."""
    from cifar_core.settings.train_config import train_settings

    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    keywords = {word.arg: word.value for word in call.keywords if word.arg}
    if name.endswith(".TrainConfig"):
        model = keywords["model"].value if "model" in keywords else "base_cnn"
        unknown = keywords.keys() - train_settings(model).keys()
        return f"no settings {unknown}" if unknown else None
    itself = [None] if ".RunStore." in name else []
    try:
        inspect.signature(resolved(name)).bind(*itself, *call.args, **keywords)
    except TypeError as error:
        return str(error)
    return None


def test_the_model_of_the_guide_joins_the_registry(monkeypatch):
    from cifar_core.models import MODELS, create_model
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.settings.train_config import TrainConfig

    [block] = blocks(CHECKOUT / "docs" / "adding-a-model.md")[:1]
    scope = {"__name__": "mynet"}
    exec(compile(block.body, "mynet.py", "exec"), scope)
    monkeypatch.setitem(MODELS, "mynet", scope["MyNet"])
    assert TrainConfig(model="mynet", width=64).hyperparameters.width == 64
    assert SearchConfig(model="mynet", space={"width": (16, 32)}).model == "mynet"
    assert create_model("mynet", width=8).count_params() == (3 * 9 + 1) * 8 + (8 + 1) * 10


EXAMPLES = sorted((CHECKOUT / "docs" / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_examples_run(example, tmp_path, home):
    small = {"DATASET": "synthetic", "SCALE": "0.02", "FIGURES": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **small},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Published 66.48%, here " in done.stdout
    assert "drawn scenes, which compare with nothing" in done.stdout
    assert {file.name for file in tmp_path.glob("*.html")} == {"curves.html", "published_and_here.html"}
    assert not home.exists(), "an example without a store leaves nothing at home"

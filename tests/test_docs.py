"""The pages under docs/: they build without a warning, and what they name exists."""

import ast
import contextlib
import functools
import html
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib

import click
import pytest

from tests.documents import CHECKOUT, Block, blocks, documents, inline, prose

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
    done = subprocess.run(build, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=600)
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
    from cifar_core.settings.search_config import SearchConfig
    from cifar_core.settings.train_config import TrainConfig

    text = (site / "settings" / "index.html").read_text()
    declared = {name for cls in (TrainConfig, SearchConfig, *MODELS.values()) for name in describe(cls)}
    assert declared == set(re.findall(r"<td><code>(\w+)</code></td>\n<td>", text))


@pytest.mark.slow
def test_every_command_has_a_section_with_each_of_its_options_and_no_other(site):
    text = html.unescape((site / "command-line" / "index.html").read_text())
    documented = set(re.findall(r"--[\w-]+", " ".join(re.findall(r"<td><code>([^<]+)</code>", text))))
    assert flags() - documented == {"--help", "--debug"}
    assert documented <= flags()
    for words in command_paths():
        assert f"<code>{words}" in text, words


@pytest.mark.slow
def test_every_model_has_a_page_with_its_drawing_presets_and_results(site):
    from cifar_core.analysis.study.reference_runs import reference_runs
    from cifar_core.models import MODELS
    from cifar_core.settings.presets import presets

    overview = (site / "models" / "index.html").read_text()
    for name, cls in MODELS.items():
        text = (site / "models" / name / "index.html").read_text()
        assert f">{cls.title}<" in overview
        assert 'class="lab-strip"' in text
        assert [known for known in presets(name) if f"<code>{known}</code>" not in text] == []
        runs = [run for run in reference_runs() if run.config.model == name]
        assert text.count("<polyline") == 2 * len(runs)
        assert [run.command for run in runs if f"<code>{run.command}</code>" not in text] == []


@pytest.mark.slow
def test_notebooks_stand_in_the_pages_with_their_files(site):
    for name in TINY:
        page = (site / "examples" / name / "index.html").read_text()
        assert {f"{name}.ipynb", f"{name}.py"} <= {
            href.split("/")[-1] for href in re.findall(r'href="?([^" >]+)', page)
        }
        assert (site / "examples" / f"{name}.ipynb").is_file()


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
    found = [(file.parent / target).resolve() for target in targets]
    assert [path for path in found if not path.exists() and path not in generated_pages()] == []


@functools.cache
def generated_pages():
    """Pages that are in no folder, but written when the documentation is built."""
    from cifar_core.models import MODELS
    from docs.notebooks import notebooks

    docs = CHECKOUT / "docs"
    notes = {docs / "examples" / file.with_suffix(".md").name for file in notebooks()}
    return {docs / "models" / f"{name}.md" for name in MODELS} | notes


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


# --- Spelling ------------------------------------------------------------------------------------

SPELLED = [
    *FILES,
    *(pytest.param(file, id=file.name) for file in sorted((CHECKOUT / ".github").glob("*.md"))),
]
NOT_WORDS = re.compile(
    r"`[^`]*`|<!--.*?-->|<[^>]+>|\]\([^)]*\)|^:::.*$|https?://\S+|\.?\w*[_./]\w[\w./]*", re.M | re.S
)
"""What in a page is no prose: code, markup, links, paths."""


@pytest.mark.parametrize("file", SPELLED)
def test_words_are_spelled_as_in_the_dictionary(file):
    """English as pyspellchecker has it, and the words of this field in tests/words.txt."""
    misspelled = unknown_words(prose(file))
    assert not misspelled, f"{sorted(misspelled)}: put them right, or add what is a word to tests/words.txt"


def test_notebooks_are_spelled_as_in_the_dictionary():
    from docs.notebooks import cells, notebooks

    texts = [body for file in notebooks() for kind, body in cells(file.read_text()) if kind == "markdown"]
    assert not unknown_words("\n".join(texts))


@pytest.mark.parametrize("text", ["Teh curves", "it is recieved", "a trainning of `misspeled_name`"])
def test_a_misspelled_word_is_found(text):
    assert len(unknown_words(text)) == 1


def unknown_words(text):
    """Lower-case words of a text that are in neither dictionary."""
    words = {word.lower() for word in re.findall(r"\b[A-Za-z][a-z]+\b", NOT_WORDS.sub(" ", text))}
    return dictionary().unknown(words - set((CHECKOUT / "tests" / "words.txt").read_text().split()))


@functools.cache
def dictionary():
    return pytest.importorskip("spellchecker", reason='pip install -e ".[docs]"').SpellChecker()


# --- Commands ------------------------------------------------------------------------------------


def command_lines(file):
    """Every `cifar-lab ...` in a file, from blocks and from the text."""
    lines = [line for block in blocks(file) for line in block.commands if block.language in ("sh", "bash")]
    lines = [re.sub(r"^(\w+=\S+ )+", "", line) for line in (*lines, *inline(file))]
    return sorted({line for line in lines if line.startswith("cifar-lab ")})


COMMANDS = sorted({line for file in documents() for line in command_lines(file)})


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    """Each is parsed as it would be if somebody typed it; nothing is carried out."""
    from cifar_core.cli.app import root

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
        if others["widen"] is None:  # else they change the settings of a search that is in no store here
            tune.search_config(others["spaces"], given)
    if command == "export":
        check_format(given["form"], given["quantize"])


NOT_OF_A_SEARCH = {"widen", "store", "isolation", "as_json", "listen", "token", "local"}


@pytest.mark.parametrize("file", FILES)
def test_named_flags_exist(file):
    named = {words.split()[0].split("=")[0] for words in inline(file) if words.startswith("--")}
    assert named <= flags() | other_flags() | OTHER_TOOLS.keys()


@functools.cache
def command_paths():
    """Every command by what is typed: "cifar-lab data import"."""
    from cifar_core.cli.app import COMMANDS as ROOT_COMMANDS
    from cifar_core.cli.app import root

    found = {f"cifar-lab {name}": root.get_command(click.Context(root), name) for name in ROOT_COMMANDS}
    groups = {name: command for name, command in found.items() if isinstance(command, click.Group)}
    below = {
        f"{name} {word}": command
        for name, group in groups.items()
        for word, command in group.commands.items()
    }
    return {**found, **below}


@functools.cache
def flags():
    """Options of all commands."""
    commands = [(command, click.Context(command)) for command in command_paths().values()]
    options = [option for command, context in commands for option in command.get_params(context)]
    words = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    return {word for word in words if word.startswith("--")}


@functools.cache
def other_flags():
    """Options of the group itself, and of the script that measures a GPU."""
    from cifar_core.cli.app import root

    script = re.findall(r'\badd\("(--[\w-]+)"', (CHECKOUT / ".ci" / "gpu_check.py").read_text())
    return {flag for option in root.get_params(click.Context(root)) for flag in option.opts} | set(script)


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
CODE += [
    pytest.param(Block(file.name, "python", file.read_text()), id=file.name)
    for file in sorted((CHECKOUT / "docs" / "examples").glob("*.py"))
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


# --- Examples ------------------------------------------------------------------------------------

EXAMPLES = CHECKOUT / "docs" / "examples"
TINY: dict[str, dict[str, object]] = {
    "train_and_study": {"EPOCHS": 1, "LIMIT": 200},
    "tune_and_compare": {"TRIALS": 5, "TRIAL_EPOCHS": 1, "EPOCHS": 1, "SEEDS": (0, 1), "LIMIT": 200},
    "your_own_pictures": {"EPOCHS": 1, "LIMIT": 200},
}
"""Notebooks, and values of their constants with which they take seconds."""


def run_example(source, folder, **environment):
    """What a script prints that is run in a folder."""
    (folder / "script.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_example_of_one_row_runs(tmp_path, home):
    small = {"DATASET": "synthetic", "SCALE": "0.02", "FIGURES": str(tmp_path)}
    printed = run_example((EXAMPLES / "reproduce_one_row.py").read_text(), tmp_path, **small)
    assert "Published 66.48%, here " in printed
    assert "drawn scenes, which compare with nothing" in printed
    assert {file.name for file in tmp_path.glob("*.html")} == {"curves.html", "published_and_here.html"}
    assert not home.exists(), "an example without a store leaves nothing at home"


def test_every_notebook_is_run_and_has_a_page():
    from docs.notebooks import cells, ipynb, notebooks

    assert {file.stem for file in notebooks()} == set(TINY)
    for file in notebooks():
        written = json.loads(ipynb(file))["cells"]
        assert [("".join(cell["source"]), cell["cell_type"]) for cell in written] == [
            (body, kind) for kind, body in cells(file.read_text())
        ]
        assert written[0]["source"][0].startswith("# ")
        assert {cell["cell_type"] for cell in written} == {"markdown", "code"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_notebooks_run_from_top_to_end(name, tmp_path):
    source = (EXAMPLES / f"{name}.py").read_text()
    for constant, value in TINY[name].items():
        source, replaced = re.subn(
            rf"^{constant} = .*$", f"{constant} = {value!r}", source, flags=re.MULTILINE
        )
        assert replaced == 1, constant
    source += "\nfrom cifar_core import RunStore\nprint(len(RunStore().runs(state='finished')), 'finished')\n"
    printed = run_example(source, tmp_path)
    assert printed.splitlines()[-1] == {"tune_and_compare": "4 finished"}.get(name, "1 finished")

"""`tune`: a search for good settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cifar_core.base.fields import Setting, describe
from cifar_core.cli.app import FAILED, PROGRAM, GroupedOption, command, json_option, load_framework, stopping
from cifar_core.cli.options import model_options, read_value, read_values, setting_options
from cifar_core.cli.output import percent, print_json, print_pairs, records, run_document, run_summary
from cifar_core.cli.progress import reporting, search_reporter
from cifar_core.errors import ConfigError
from cifar_core.settings.presets import find_preset
from cifar_core.settings.search_config import SearchConfig
from cifar_core.settings.train_config import TrainConfig, train_settings

if TYPE_CHECKING:
    from cifar_core.data import Dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import SearchResult

_SEARCH = describe(SearchConfig)
_SHARED = {name: s for name, s in describe(TrainConfig).items() if name not in _SEARCH and name != "variant"}


@command("tune")
@click.option(
    "--space",
    "spaces",
    metavar="NAME=LOW:HIGH or NAME=A,B,...",
    multiple=True,
    cls=GroupedOption,
    heading="Search",
    help="Values to search, once per setting; by default all settings with a search range.",
)
@click.option(
    "--widen",
    metavar="SEARCH",
    cls=GroupedOption,
    heading="Search",
    help="Take the trials of this finished search along into a new one, with a larger --max-trials, "
    "--max-epochs, --hyperband-iterations or --epochs.",
)
@click.option("--store/--no-store", default=True, help="Record the search and its trials.")
@click.option(
    "--isolation",
    type=click.Choice(("none", "process")),
    help="process: train trials in worker processes, so that memory use stays constant; always so with "
    "several workers.",
)
@json_option("Print one JSON document at the end; progress goes to stderr.")
def tune(
    spaces: Sequence[str], widen: str | None, store: bool, isolation: Any, as_json: bool, **given: Any
) -> int:
    """Search for good settings of a model, and train the best one in full.

    Options that are not about the search itself fix a setting for all trials.
    """
    from cifar_core.data import load_dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import check_search
    from cifar_core.tuning.space import trial_config

    record = RunStore() if store else None
    config = search_config(spaces, given) if widen is None else _widened(record, widen, spaces, given)
    check_search(config)
    return run_search(
        config,
        store=record,
        dataset=load_dataset(trial_config(config).dataset),
        isolation=isolation,
        as_json=as_json,
    )


tune.params += [
    *setting_options(_SEARCH.values()),
    *setting_options(_SHARED.values()),
    *model_options([*_SEARCH, *_SHARED]),
]


def search_config(spaces: Sequence[str], given: dict[str, Any]) -> SearchConfig:
    """The search given on the command line; --preset may name a search preset or a training preset.

    Raises:
        ConfigError: a value or a combination that is not allowed.
    """
    from cifar_core.tuning import SEARCH_PRESETS, search_preset

    own = {name: read_value(_SEARCH[name], text) for name, text in given.items() if name in _SEARCH}
    own = {name: value for name, value in own.items() if value is not None}
    others = {name: text for name, text in given.items() if name not in _SEARCH}
    named = SEARCH_PRESETS.get(own.get("preset", ""))
    model = own.get("model") or _model_of(own.get("preset"))
    parts: dict[str, Any] = {"base": read_values(model, others)}
    parts |= {"space": read_space(model, spaces)} if spaces else {}
    if named is None:
        return SearchConfig(**{**own, "model": model, **parts})
    if model != named.values["model"]:
        raise ConfigError(f"{named.name} is a search of {named.values['model']}, not of {model}.")
    return search_preset(own.pop("preset"), **own, **parts)


def _widened(
    store: RunStore | None, search_id: str, spaces: Sequence[str], given: dict[str, Any]
) -> SearchConfig:
    """
    Raises:
        ConfigError: as `tuning.widened`, --space, or no store.
    """
    from cifar_core.tuning import widened

    if store is None or spaces:
        other = "--space would begin a new search" if spaces else "it is in the store: leave out --no-store"
        raise ConfigError(f"--widen takes the trials of {search_id} along; {other}.")
    known, changes = {**_SEARCH, **_SHARED}, {name: text for name, text in given.items() if text is not None}
    read = {name: read_value(known[name], text) if name in known else text for name, text in changes.items()}
    return widened(store, search_id, **read)


def _model_of(preset: str | None) -> str:
    """The model of a search preset or training preset; the default model without a preset."""
    from cifar_core.tuning import SEARCH_PRESETS

    if preset is not None and preset in SEARCH_PRESETS:
        return str(SEARCH_PRESETS[preset].values["model"])
    return find_preset(preset).model if preset else _SEARCH["model"].default


def read_space(model: str, spaces: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """ "dropout=0:0.5" and "batch_size=64,128" as {"dropout": (0.0, 0.5), "batch_size": (64, 128)}.

    Raises:
        ConfigError: malformed text, an unknown setting or one given twice, or values that it does not allow.
    """
    known = train_settings(model)
    found: dict[str, tuple[Any, ...]] = {}
    for name, values in (_dimension(model, known, text) for text in spaces):
        if name in found:
            raise ConfigError(f"--space names {name} twice; give all of its values in one.")
        found[name] = values
    return found


def _dimension(model: str, known: dict[str, Setting], text: str) -> tuple[str, tuple[Any, ...]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not values:
        raise ConfigError(f"--space must be NAME=LOW:HIGH or NAME=A,B,...; got {text!r}.")
    if name not in known:
        raise ConfigError(f"Unknown setting {name!r} for {model}; known are: {', '.join(sorted(known))}.")
    parts = values.split(":") if ":" in values else values.split(",")
    if ":" in values and (len(parts) != 2 or known[name].kind not in ("int", "float")):
        raise ConfigError(f"LOW:HIGH is for numbers; {name} must be {known[name].allowed()}; got {values!r}.")
    return name, tuple(read_value(known[name], part.strip()) for part in parts)


def run_search(
    config: SearchConfig | None,
    search_id: str | None = None,
    *,
    store: RunStore | None,
    dataset: Dataset | None,
    isolation: Any,
    as_json: bool,
) -> int:
    """Start a search or resume one, and print its result; returns the exit status."""
    from cifar_core.store import RunState
    from cifar_core.tuning import tune as carry_out
    from cifar_core.tuning.space import trial_config

    known = config if config is not None or store is None else store.get_search(str(search_id)).config
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework(trial_config(known) if known is not None else None)
        result = carry_out(
            config,
            search_id=search_id,
            store=store,
            dataset=dataset,
            isolation=isolation,
            progress=search_reporter(progress),
            should_stop=stop.requested,
        )
    if as_json:
        print_json(_document(result))
    else:
        _print(result)
    if result.state is RunState.FINISHED:
        return 0
    hint = f"; continue with: {PROGRAM} resume {result.id}" if result.id else ""
    click.echo(f"{PROGRAM}: stopped{hint}", err=True)
    return stop.exit_status if stop.requested() else FAILED


def _document(result: SearchResult) -> dict[str, Any]:
    return {
        "search": result.id,
        "state": result.state,
        "trials_done": result.status.trials_done,
        "trials_planned": result.status.trials_planned,
        "impossible": result.impossible,
        "best_trial": result.best_trial,
        "best_score": result.best_score,
        "best_settings": result.best_config.flat() if result.best_config else None,
        "run": run_document(result.run) if result.run else None,
        "trials": records(result.trials),
    }


def _print(result: SearchResult) -> None:
    name = f"search {result.id}" if result.id else "search (not stored)"
    best = "" if result.best_score is None else f", best validation accuracy {percent(result.best_score)}"
    done = f"{result.status.trials_done} of {result.status.trials_planned} trials"
    left_out = f", {result.impossible} impossible combinations left out" if result.impossible else ""
    click.echo(f"{name} {result.state}: {done}{left_out}{best}")
    if result.best_trial is not None:
        trials = {row["trial_id"]: row for row in records(result.trials)}
        print_pairs(trials[result.best_trial]["settings"])
    if result.run is not None:
        click.echo(run_summary(result.run))

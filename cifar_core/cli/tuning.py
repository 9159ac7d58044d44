"""`tune`: a search for good settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from cifar_core.cli.base import PROGRAM, GroupedOption, command, json_option
from cifar_core.cli.framework import load_framework
from cifar_core.cli.options import model_options, read_value, read_values, setting_options
from cifar_core.cli.output import percent, print_json
from cifar_core.cli.progress import reporting
from cifar_core.cli.signals import stopping
from cifar_core.config import SearchConfig, TrainConfig, train_settings
from cifar_core.errors import ConfigError
from cifar_core.fields import Setting, describe

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
    help="What to explore, once for each setting; where none is named, all that have a range for it.",
)
@click.option("--store/--no-store", default=True, help="Record the search and its trials.")
@json_option("Print one JSON document at the end; progress goes to stderr.")
def tune(spaces: Sequence[str], store: bool, as_json: bool, **given: Any) -> int:
    """Search for good settings of a model, and train the winner in full.

    Flags that are not about the search itself fix a setting for all trials.
    """
    config = search_config(spaces, given)
    return _search(config, store=store, as_json=as_json)


tune.params += [
    *setting_options(_SEARCH.values()),
    *setting_options(_SHARED.values()),
    *model_options([*_SEARCH, *_SHARED]),
]


def search_config(spaces: Sequence[str], given: dict[str, Any]) -> SearchConfig:
    """The search that the command line asks for.

    Raises:
        ConfigError: anything about it that is not allowed.
    """
    own = {name: read_value(_SEARCH[name], text) for name, text in given.items() if name in _SEARCH}
    own = {name: value for name, value in own.items() if value is not None}
    model = own.setdefault("model", _SEARCH["model"].default)
    base = read_values(model, {name: text for name, text in given.items() if name not in _SEARCH})
    return SearchConfig(**own, base=base, space=read_space(model, spaces))


def read_space(model: str, spaces: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """ "dropout=0:0.5" and "batch_size=64,128" as {"dropout": (0.0, 0.5), "batch_size": (64, 128)}.

    Raises:
        ConfigError: another form, an unknown setting, or values that it does not take.
    """
    known = train_settings(model)
    return dict(_dimension(model, known, text) for text in spaces)


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


def _search(config: SearchConfig, *, store: bool, as_json: bool) -> int:
    from cifar_core.data import load_dataset
    from cifar_core.store import RunStore
    from cifar_core.tuning import tune as carry_out

    seed = config.base.get("seed", config.seed)
    dataset = load_dataset(config.base.get("dataset", "cifar10"), seed=seed)
    with stopping() as stop, reporting(as_json=as_json) as progress:
        load_framework()
        result = carry_out(
            config,
            store=RunStore() if store else None,
            dataset=dataset,
            progress=progress,
            should_stop=stop.requested,
        )
    if as_json:
        print_json(result)
    else:
        click.echo(f"best setting: validation accuracy {percent(result.best_score)}")
    if stop.requested():
        click.echo(f"{PROGRAM}: stopped", err=True)
        return stop.exit_status
    return 0

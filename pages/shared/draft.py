"""Settings that a session is putting together: kept while other pages are open, named in the address.

The Train page and the Tune page each have one draft, with what both do in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import streamlit as st

from cifar_core.errors import ConfigError
from cifar_core.models import MODELS
from cifar_core.settings.presets import preset, presets
from cifar_core.settings.train_config import TrainConfig, train_settings
from pages.shared.words import model_title, plain

Settings = dict[str, Any]
CHOSEN_ELSEWHERE = frozenset({"model", "variant", "preset", "dataset"})
"""Settings without a widget in the groups of settings."""
PRESET_LABELS = {"paper-baseline": "The study's baseline", "paper-tuned": "The study's tuned"}


@dataclass(frozen=True)
class Draft:
    """The draft of one page; `page` ("train", "tune") begins its session keys and its widgets' keys."""

    page: str

    @property
    def stored(self) -> str:
        """Session key of the settings."""
        return f"{self.page}_settings"

    @property
    def settings(self) -> Settings:
        """The settings themselves; writing to them changes the draft."""
        settings: Settings = st.session_state[self.stored]
        return settings

    def replace(self, settings: Settings) -> None:
        """Use these settings from now on, with new widgets."""
        st.session_state[self.stored] = settings
        self.renew_widgets()

    def renew_widgets(self) -> None:
        """Make the widgets show the settings' values instead of their own state."""
        generation = f"_{self.page}_generation"
        st.session_state[generation] = st.session_state.get(generation, 0) + 1

    def key(self, name: str) -> str:
        """Key of the widget of this setting."""
        return f"{self.page}_{st.session_state[f'_{self.page}_generation']}_{name}"

    def report(self, text: object) -> None:
        """Show this text on the page's next run."""
        st.session_state[f"_{self.page}_said"] = str(text)

    def show_report(self) -> None:
        if text := st.session_state.pop(f"_{self.page}_said", None):
            st.info(plain(text))

    def address(
        self, known: Collection[str], none: str, find: Callable[[str], object]
    ) -> tuple[str | None, str | None]:
        """(preset, model) that the address asks for; unknown ones are reported and returned as None.

        Args:
            known: names of presets.
            none: stands for "no preset" in the address.
            find: raises a ConfigError that explains why a preset is unknown.
        """
        asked, model = st.query_params.get("preset"), st.query_params.get("model")
        if asked is not None and asked != none and asked not in known:
            try:
                find(asked)
            except ConfigError as error:
                self.report(error)
            return None, None
        if model is not None and model not in MODELS:
            self.report(f"Unknown model {model!r} in the address; known are: {', '.join(MODELS)}.")
            model = None
        return asked, model

    def write_address(self, preset_name: str) -> None:
        """Put model and preset into the address, so that a copied link opens the same choice."""
        wanted = {"model": self.settings["model"], "preset": preset_name}
        if any(st.query_params.get(name) != value for name, value in wanted.items()):
            st.query_params.update(wanted)

    def choose_model(self, choose: Callable[[str], None]) -> None:
        """The row of models; `choose` is called with the one that is clicked."""
        key = f"{self.page}_model"
        self._pills("Model", list(MODELS), self.settings["model"], key, choose, model_title)

    def choose_preset(
        self, label: str, names: list[str], chosen: str, choose: Callable[[str], None], **options: Any
    ) -> None:
        """A row of presets, whose last one starts from none.

        Args:
            label: of the row.
            names: of presets, "model/kind"; the last one stands for the model's defaults.
            chosen: the one in use.
            choose: called with the one that is clicked.
            options: further arguments of `st.pills`.
        """
        shown = {name: _preset_label(name) for name in names[:-1]} | {names[-1]: "Plain defaults"}
        self._pills(label, names, chosen, f"{self.page}_start", choose, shown.__getitem__, **options)

    def _pills(
        self,
        label: str,
        names: list[str],
        chosen: str,
        key: str,
        choose: Callable[[str], None],
        shown: Callable[[str], str],
        **options: Any,
    ) -> None:
        st.session_state[key] = chosen
        st.pills(
            label,
            names,
            format_func=shown,
            required=True,
            wrap=True,
            key=key,
            on_change=lambda: choose(st.session_state[key]),
            **options,
        )


def _preset_label(name: str) -> str:
    kind = name.partition("/")[2]
    return PRESET_LABELS.get(kind, kind.capitalize())


def presets_of(model: str) -> list[str]:
    """Names of a model's training presets; empty where it has none."""
    try:
        return presets(model)
    except ConfigError:
        return []


def starting_point(preset_name: str | None, model: str) -> TrainConfig:
    """A preset's settings, or a model's defaults where no preset is named."""
    values: Settings = {"model": model}
    return preset(preset_name) if preset_name else TrainConfig(**values)


def groups_of(model: str, hidden: Collection[str] = CHOSEN_ELSEWHERE) -> dict[str, list[str]]:
    """Names of a model's settings by the heading under which they are shown, its own settings first."""
    groups: dict[str, list[str]] = {}
    for name, declared in train_settings(model).items():
        if name not in hidden:
            groups.setdefault(declared.group, []).append(name)
    return groups

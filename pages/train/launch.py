"""What will run, what it will cost, and the button that starts it."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from cifar_core.base.fields import number
from cifar_core.errors import ConfigError
from cifar_core.models.cost import Architecture
from cifar_core.settings import presets
from cifar_core.settings.compute import suggestion
from cifar_core.settings.train_config import TrainConfig, train_settings
from cifar_core.training.estimate import Estimate, estimate, split_sizes
from pages.shared import navigation, resources
from pages.shared.launch_button import LaunchButton
from pages.shared.table import STYLE, facts_html
from pages.shared.words import count, plain, size
from pages.train import draft

MOST_SEEDS = 10
ONCE = LaunchButton("train")
SEEDS = "train_seeds"
SHOWN_CHANGES = 12


def show(settings: draft.Settings, network: Architecture | None) -> None:
    """The whole panel."""
    st.subheader("Start", anchor=False)
    here = _dataset(settings)
    config, problem = _checked(settings)
    seeds = _seeds(settings)
    if config is not None:
        _sizes(config)
        _cost(estimate(config, network, resources.store()), seeds)
        _faster(config)
    _button(config, seeds, problem=problem, here=here)
    _changes(settings)


def _checked(settings: draft.Settings) -> tuple[TrainConfig | None, str]:
    try:
        return draft.config(settings), ""
    except ConfigError as error:
        return None, str(error)


# --- Data ----------------------------------------------------------------------------------------


def _dataset(settings: draft.Settings) -> bool:
    """The dataset in use and the way to the other; False where its images are not there."""
    name = settings["dataset"]
    found = name == "synthetic" or resources.dataset_state().found
    if found:
        other = "cifar10" if name == "synthetic" else "synthetic"
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"On **{resources.DATASETS[name]}**", width="content")
            _use_button(f"Use {_named(other)} instead", other, key="train_other_dataset", kind="tertiary")
        if name == "synthetic":
            st.caption(
                "Drawn scenes, no photographs: results never stand beside those of CIFAR-10. "
                f"{presets.SCENES_EPOCHS} epochs are enough for a first look at them."
            )
        return True
    st.warning("CIFAR-10 is not on this machine yet. Get the images, or train on drawn scenes.")
    with st.container(horizontal=True, gap="small"):
        _use_button("Use synthetic scenes", "synthetic", key="train_synthetic", kind="secondary")
        if st.button("Get the images", key="train_get"):
            navigation.go("dataset", dataset="cifar10")
    return False


def _named(dataset: str) -> str:
    return "CIFAR-10" if dataset == "cifar10" else "synthetic scenes"


def _use_button(label: str, dataset: str, *, key: str, kind: Literal["secondary", "tertiary"]) -> None:
    """A callback is never lost to a click that follows at once, and runs before the sidebar is drawn."""
    st.button(label, key=key, type=kind, on_click=resources.choose_dataset, args=(dataset,))


def _sizes(config: TrainConfig) -> None:
    train, validation, test = split_sizes(config)
    held = f"{count(validation)} to choose by"
    if config.protocol == "test-selected":
        held = "chosen by the test images: the result will flatter"
    st.caption(f"{count(train)} images to train on, {held}, {count(test)} to test on · {_standing(config)}")


def _standing(config: TrainConfig) -> str:
    if config.preset and config.variant != "custom":
        return f"counts as the study's {config.variant} run"
    if config.variant == "tuned":
        return "counts as tuned"
    return "counts as custom"


# --- Cost ----------------------------------------------------------------------------------------


def _seeds(settings: draft.Settings) -> list[int]:
    """Seeds of the runs that one click starts."""
    several = st.number_input(
        "Runs, each with a seed of its own",
        1,
        MOST_SEEDS,
        value=1,
        key=SEEDS,
        help="Chance decides a good part of a result: three to five runs of the same settings tell how "
        f"much. They get the seeds {settings['seed']}, {settings['seed'] + 1} and so on, and train one after "
        "the other.",
    )
    return [settings["seed"] + place for place in range(int(several))]


def _cost(told: Estimate | None, seeds: list[int]) -> None:
    if told is None:
        st.caption("How long it will take is known once the network has been counted.")
        return
    total = told.total_seconds * len(seeds)
    rows = [
        ("Per epoch", f"≈ {roughly(told.seconds_per_epoch)}", ""),
        (
            "In all" if len(seeds) == 1 else f"All {len(seeds)} runs",
            f"≈ {roughly(total)}",
            f"{roughly(total / told.factor)} to {roughly(total * told.factor)}",
        ),
    ]
    if told.memory is not None:
        rows.append(("Memory", f"≈ {size(told.memory.total)}", f"{size(told.available_bytes)} free"))
    st.html(STYLE + facts_html(rows))
    st.caption(f"{told.why} With the device to itself.", help=_memory_in_words(told))
    if told.memory is not None and not told.fits:
        st.warning(
            f"It wants about {size(told.memory.total)} of memory, and {size(told.available_bytes)} are free: "
            "a smaller batch size needs less."
        )


def _faster(config: TrainConfig) -> None:
    """Another batch size, where this machine's own measurement says that it pays."""
    said = suggestion(config)
    if said is not None:
        st.caption(said)


def roughly(seconds: float) -> str:
    """An estimated time without more digits than it is worth: "40 s", "13 min", "7.6 h", "3 days"."""
    if seconds < 1:
        return "1 s"
    for length, unit in ((48 * 3600, "days"), (5400, "h"), (90, "min")):
        if seconds >= length:
            amount = seconds / {"days": 86_400, "h": 3600, "min": 60}[unit]
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{seconds:.0f} s"


def _memory_in_words(told: Estimate) -> str | None:
    if told.memory is None:
        return None
    return (
        f"Memory: {size(told.memory.framework)} for the framework and the images, "
        f"{size(told.memory.weights)} for weights, gradients and the optimizer, "
        f"{size(told.memory.activations)} for what a batch leaves behind on its way forward."
    )


# --- Button --------------------------------------------------------------------------------------


def _button(config: TrainConfig | None, seeds: list[int], *, problem: str, here: bool) -> None:
    many = f"Launch {len(seeds)} runs" if len(seeds) > 1 else "Launch"
    start = None if config is None or not here else lambda: ",".join(create_runs(config, seeds))
    if runs := ONCE.button(many, start, problem=problem):
        if navigation.known("runs"):
            navigation.go("runs", runs=runs)
        st.success(f"In the queue: {runs.replace(',', ', ')}.")


def create_runs(config: TrainConfig, seeds: list[int]) -> list[str]:
    """Queue one run for each seed; their ids.

    Raises:
        StoreError: it cannot be written to.
        ConfigError: a seed out of range; then none is queued.
    """
    configs = [config.replace(seed=seed) for seed in seeds]
    return [resources.store().create_run(each) for each in configs]


# --- What differs --------------------------------------------------------------------------------


def _changes(settings: draft.Settings) -> None:
    """Each setting that was changed, as a button that puts it back."""
    changed = draft.changes(settings)
    origin = f"the preset {settings['preset']}" if settings["preset"] else "the plain defaults"
    if not changed:
        st.caption(f"Exactly {plain(origin)}.")
        return
    st.markdown(f"**Differs from {plain(origin)}** :small[(click to put back)]")
    declared = train_settings(settings["model"])
    with st.container(gap=None, key="train_changes"):
        for name, (before, now) in list(changed.items())[:SHOWN_CHANGES]:
            st.button(
                f"{plain(declared[name].label)}: {_shown(before)} → **{_shown(now)}**",
                key=f"back_{name}",
                type="tertiary",
                icon=":material/undo:",
                on_click=draft.put_back,
                args=(name, before),
            )
        if len(changed) > SHOWN_CHANGES:
            st.caption(f"and {len(changed) - SHOWN_CHANGES} more")
    st.button("Put all back", key="train_reset", on_click=draft.reset)


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return number(value) if isinstance(value, int | float) else plain(str(value))


def why(preset: str) -> str:
    """A preset's one line of explanation, as markdown."""
    return plain(presets.find_preset(preset).why)

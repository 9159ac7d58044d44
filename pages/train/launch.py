"""The Train page's launch panel: dataset, cost, launch button, and what differs from the preset."""

from __future__ import annotations

import streamlit as st

from cifar_core.base.fields import value_text
from cifar_core.errors import ConfigError, DataNotFoundError
from cifar_core.models.cost import Architecture
from cifar_core.settings.compute import suggestion
from cifar_core.settings.presets import SCENES_EPOCHS
from cifar_core.settings.train_config import TrainConfig, split_sizes, train_settings
from cifar_core.training.estimate import Estimate, estimate
from pages.shared import navigation, resources
from pages.shared.draft import Settings
from pages.shared.launch import dataset_in_use, roughly
from pages.shared.launch_button import LaunchButton
from pages.shared.table import STYLE, facts_html
from pages.shared.words import count, plain, size
from pages.train import draft

MAX_SEEDS = 10
ONCE = LaunchButton("train")
SEEDS = "train_seeds"
MAX_CHANGES = 12
FEW_IMAGES = 500
"""Below so many training images a launch is questioned."""


def show(settings: Settings, network: Architecture | None) -> None:
    """The whole panel."""
    st.subheader("Start", anchor=False)
    available = dataset_in_use(
        "train",
        settings["dataset"],
        note="Drawn scenes, not photographs: their results are never ranked with those of CIFAR-10. "
        f"{SCENES_EPOCHS} epochs are enough for a first look at them.",
        missing="CIFAR-10 is not on this machine yet. Get the images, or train on drawn scenes.",
    )
    config, problem = None, ""
    try:
        config = draft.config(settings)
        _images(config)
    except (ConfigError, DataNotFoundError) as error:
        config, problem = None, str(error)
    button = st.container(key="train_go")
    seeds = _seeds(settings["seed"])
    with button:
        _button(config if available else None, seeds, problem)
    if config is not None:
        with st.container(key="train_cost"):
            _cost(estimate(config, network, resources.store()), len(seeds))
        if faster := suggestion(config):
            st.caption(faster)
    _changes(settings)


def _seeds(first: int) -> list[int]:
    """Seeds of the runs that one click starts."""
    number = st.number_input(
        "Number of runs, each with its own seed",
        1,
        MAX_SEEDS,
        value=1,
        key=SEEDS,
        help="Results vary by chance: three to five runs of the same settings show how much. They get the "
        f"seeds {first}, {first + 1} and so on, and train one after the other.",
    )
    return list(range(first, first + int(number)))


def _images(config: TrainConfig) -> None:
    """Sizes of the splits, and the variant that the run counts as."""
    train, validation, test = split_sizes(config)
    chosen = f"{count(validation)} for validation"
    if config.protocol == "test-selected":
        chosen = "best epoch chosen on the test images, so the result is optimistic"
    study = f" · the study's {config.variant} setting" if config.preset and config.variant != "custom" else ""
    st.caption(f"{count(train)} images to train on, {chosen}, {count(test)} to test on{study}")


def _cost(cost: Estimate | None, runs: int) -> None:
    if cost is None:
        st.caption("The time and memory needed are shown once the model's layers are counted.")
        return
    total = cost.total_seconds * runs
    span = f"{roughly(total / cost.factor)} to {roughly(total * cost.factor)}"
    rows = [
        ("Per epoch", f"≈ {roughly(cost.seconds_per_epoch)}", ""),
        ("In total" if runs == 1 else f"All {runs} runs", f"≈ {roughly(total)}", span),
    ]
    explanation = None
    if cost.memory is not None:
        rows.append(("Memory", f"≈ {size(cost.memory.total)}", f"{size(cost.available_bytes)} free"))
        explanation = (
            f"Memory: {size(cost.memory.framework)} for the framework and the images, "
            f"{size(cost.memory.weights)} for weights, gradients and optimizer state, "
            f"{size(cost.memory.activations)} for the activations of one batch."
        )
    st.html(STYLE + facts_html(rows))
    st.caption(f"{cost.why} If nothing else uses the device.", help=explanation)
    if cost.memory is not None and not cost.fits:
        st.warning(
            f"It needs about {size(cost.memory.total)} of memory, and {size(cost.available_bytes)} are free: "
            "a smaller batch size needs less."
        )


def _button(config: TrainConfig | None, seeds: list[int], problem: str) -> None:
    label = f"Launch {len(seeds)} runs" if len(seeds) > 1 else "Launch"
    if config is not None and (images := split_sizes(config)[0]) < FEW_IMAGES:
        st.warning(
            f"It would learn from {count(images)} images only, which is too few for anything but a test."
        )
        label += f" on {count(images)} images anyway"
    start = None if config is None else lambda: ",".join(create_runs(config, seeds))
    if runs := ONCE.button(label, start, problem=problem):
        navigation.go("runs", runs=runs)


def create_runs(config: TrainConfig, seeds: list[int]) -> list[str]:
    """Queue one run for each seed; returns their ids.

    Raises:
        StoreError: the store can't be written to.
        ConfigError: a seed is out of range; then no run is queued.
    """
    configs = [config.replace(seed=seed) for seed in seeds]
    runs = [resources.store().create_run(each) for each in configs]
    if source := st.session_state.get(navigation.CLONED):
        for run_id in runs:
            resources.store().event(run_id, navigation.CLONED, source)
    return runs


def _changes(settings: Settings) -> None:
    """Each changed setting, as a button that undoes the change."""
    changed = draft.changes(settings)
    start = plain(f"the preset {settings['preset']}" if settings["preset"] else "the defaults")
    if not changed:
        st.caption(f"Exactly {start}.")
        return
    st.markdown(f"**Differs from {start}** :small[(click a change to undo it)]")
    declared = train_settings(settings["model"])
    with st.container(gap=None, key="train_changes"):
        for name, (before, now) in list(changed.items())[:MAX_CHANGES]:
            label = f"{plain(declared[name].label)}: {_shown(before)} → **{_shown(now)}**"
            st.button(
                label,
                key=f"back_{name}",
                type="tertiary",
                icon=":material/undo:",
                on_click=draft.undo,
                args=(name, before),
            )
        if len(changed) > MAX_CHANGES:
            st.caption(f"and {len(changed) - MAX_CHANGES} more")
    st.button("Undo all", key="train_reset", on_click=draft.reset)


def _shown(value: object) -> str:
    text = value_text(value)
    return text if isinstance(value, int | float) else plain(text)

import subprocess
import sys

import pandas as pd
import pytest

from cifar_core.analysis.study.paper import (
    PAPER_FAULTS,
    PAPER_RESULTS,
    paper_curves,
    paper_faults,
    paper_results,
)
from cifar_core.models import models
from cifar_core.settings.presets import presets

PUBLISHED = {
    "base_cnn/paper-baseline": 0.6648,
    "alexnet/paper-baseline": 0.73,
    "alexnet/paper-tuned": 0.8055,
    "resnet18/paper-baseline": 0.7822,
    "resnet18/paper-tuned": 0.8985,
    "mobilenet/paper-baseline": 0.2463,
    "mobilenet/paper-tuned": 0.3113,
}


def test_the_seven_figures():
    assert dict(zip(PAPER_RESULTS["preset"], PAPER_RESULTS["test_accuracy"], strict=True)) == PUBLISHED
    assert PAPER_RESULTS["source"].str.startswith("study").all()
    tuned = PAPER_RESULTS["variant"] == "tuned"
    assert (PAPER_RESULTS.loc[tuned, "protocol"] == "test-selected").all()
    assert (PAPER_RESULTS.loc[~tuned, "protocol"] == "held-out").all()


def test_the_seven_are_presets_of_models_there_are():
    assert set(PAPER_RESULTS["preset"]) == {name for name in presets() if "/paper-" in name}
    assert set(PAPER_RESULTS["model"]) <= set(models())


def test_what_one_reader_changes_no_other_sees():
    results, curves = paper_results(), paper_curves()
    results.loc[0, "test_accuracy"] = 1
    curves.loc[0, "accuracy"] = 1
    assert paper_results().loc[0, "test_accuracy"] == 0.6648
    assert paper_curves().loc[0, "accuracy"] == 0.8986


def test_curves_of_six_runs():
    epochs = paper_curves().groupby("preset")["epoch"].agg(["min", "max", "count"])
    assert (epochs["min"] == 1).all()
    assert epochs["count"].to_dict() == {
        name: 50 if name.endswith("tuned") or name.startswith("base") else 10
        for name in PUBLISHED
        if name != "alexnet/paper-tuned"
    }


def test_one_step_epochs_are_marked():
    for model in ("resnet18", "mobilenet"):
        tuned = paper_curves(model, "tuned")
        assert tuned["complete"].tolist() == [True, False] * 25
        assert tuned["passes"].iloc[-1] == 25
        assert tuned.loc[~tuned["complete"], "seconds"].max() < 50
    others = paper_curves()[lambda rows: rows["variant"] == "baseline"]
    assert others["complete"].all(), "an epoch that took long, or varied by a second, is still a whole one"
    assert (others["passes"] == others["epoch"]).all()


def test_published_figures_agree_with_the_curves():
    """What the study tested is the last epoch's weights; its tuned runs validated on the test set."""
    last = paper_curves("resnet18", "tuned").iloc[-1]
    assert last["val_accuracy"] == pytest.approx(PUBLISHED["resnet18/paper-tuned"], abs=1e-4)
    printed = PAPER_RESULTS.set_index("preset").loc["mobilenet/paper-tuned", "notebook_accuracy"]
    assert paper_curves("mobilenet", "tuned")["val_accuracy"].iloc[-1] == pytest.approx(printed, abs=1e-3)


def test_curves_that_the_study_does_not_have_are_empty():
    assert paper_curves("alexnet", "tuned").empty
    assert paper_curves("vit").empty


def test_the_seven_faults_name_runs_that_there_are():
    assert len(paper_faults()) == len(PAPER_FAULTS) == 7
    assert all(set(fault.runs) <= set(PUBLISHED) and fault.runs for fault in PAPER_FAULTS)
    assert all(len(text) > 80 for text in paper_faults())


@pytest.mark.slow
def test_importing_the_module_does_not_pay_for_pandas():
    code = (
        "import sys, cifar_core.analysis.study.paper as p; "
        "print('pandas' in sys.modules, len(p.PAPER_RESULTS))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "7"]
    assert isinstance(PAPER_RESULTS, pd.DataFrame)


def test_no_other_name_is_made_up():
    import cifar_core.analysis.study.paper

    with pytest.raises(AttributeError, match="no attribute 'NOTHING'"):
        _ = cifar_core.analysis.study.paper.NOTHING

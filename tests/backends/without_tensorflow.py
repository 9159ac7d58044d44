"""A machine without TensorFlow, played in a process that has it: `python without_tensorflow.py HOME`.

Trains, stops, resumes, evaluates, explains and ranks, on drawn scenes; prints what came of it as JSON.
"""

import json
import os
import sys
from pathlib import Path


class Refuse:
    """An import hook in front of all others."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name.partition(".")[0] in ("tensorflow", "tf_keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(home: str) -> None:
    sys.meta_path.insert(0, Refuse())
    os.environ.update(KERAS_BACKEND="jax", CIFAR_LAB_HOME=home, JAX_PLATFORMS="cpu")
    import keras

    from cifar_core.analysis.evaluation import evaluate
    from cifar_core.analysis.explain import METHODS, saliency
    from cifar_core.data.synthetic import synthetic_dataset
    from cifar_core.models.model_file import load_model
    from cifar_core.serving.formats import export_model
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunStore
    from cifar_core.training.run import resume, train

    data, store = synthetic_dataset(0, 60, 20), RunStore()
    config = TrainConfig(
        model="base_cnn", dataset="synthetic", epochs=2, batch_size=16, flip=True, rotation=15, mixup=0.2
    )
    asked = []
    stopped = train(config, dataset=data, store=store, should_stop=lambda: len(asked.append(0) or asked) > 6)
    run = resume(stopped.id, store=store, dataset=data)
    model = load_model(run.folder / "model.keras")
    export_model(model, "keras", Path(home) / "copy.keras")
    again = evaluate(model, data.x_test, data.y_test)
    board = store.leaderboard()

    def greatest(method: str) -> float:  # of all classes: nothing may speak for some
        return max(float(saliency(model, data.x_test[0], label, method).max()) for label in range(10))

    print(
        json.dumps(
            {
                "backend": keras.backend.backend(),
                "tensorflow": "tensorflow" in sys.modules,
                "stopped_after": stopped.epochs_done,
                "state": str(run.state),
                "epochs": run.epochs_done,
                "accuracy": run.report.accuracy,
                "accuracy_of_the_file": again.accuracy,
                "board": board["best_run"].tolist(),
                "run": run.id,
                "recorded_backend": store.get(run.id).environment["backend"],
                "greatest": {name: greatest(name) for name in METHODS},
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])

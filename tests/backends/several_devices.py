"""A machine with two devices, played on a CPU: `python several_devices.py HOME`.

Trains the same settings on one device and on two, stops and resumes, records answers, and prints what came
of it as JSON. The backend is KERAS_BACKEND's.
"""

import json
import os
import sys

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
SETTINGS = {
    "model": "base_cnn",
    "dataset": "synthetic",
    "epochs": 2,
    "batch_size": 40,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "ema_momentum": 0.9,
    "weight_decay": 1e-3,
    "flip": True,
    "shift": 0.1,
    "dropout": 0.0,
    "precision": "float32",
    "record_answers": True,
}


def two_devices() -> None:
    """Before the framework has looked at the machine."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # JAX's
    if BACKEND == "tensorflow":
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def main(home: str) -> None:
    os.environ["CIFAR_LAB_HOME"] = home
    two_devices()
    import numpy as np

    from cifar_core.analysis.answers_by_epoch import answers_by_epoch
    from cifar_core.data.synthetic import synthetic_dataset
    from cifar_core.errors import ConfigError
    from cifar_core.models.model_file import load_model
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunStore
    from cifar_core.training.run import resume, train

    store = RunStore()

    def trained(images: int, devices: int, *, stop_after: int | None = None):
        data, asked = synthetic_dataset(0, images, 51), []
        config = TrainConfig(**SETTINGS, devices=devices, validation_fraction=0.25)
        stop = None if stop_after is None else lambda: len(asked.append(0) or asked) > stop_after
        run = train(config, dataset=data, store=store, should_stop=stop)
        return run if stop is None else resume(run.id, store=store, dataset=data)

    def apart(one, other) -> float:
        pairs = zip(one.model.get_weights(), other.model.get_weights(), strict=True)
        return max(float(np.abs(a - b).max()) for a, b in pairs)

    def refused(devices: int) -> str:
        try:
            trained(160, devices)
        except ConfigError as error:
            return str(error)
        return ""

    one, two, gone_on = trained(160, 1), trained(160, 2), trained(160, 2, stop_after=5)
    odd = trained(161, 2)
    alike = [answers_by_epoch(store, run.id).answers.tolist() for run in (one, two)]
    saved = load_model(two.folder / "model.keras")
    print(
        json.dumps(
            {
                "apart": apart(one, two),
                "apart_when_resumed": apart(two, gone_on),
                "moved": max(float(np.abs(w).max()) for w in two.model.get_weights()),
                "losses": [run.history["val_loss"].tolist() for run in (one, two)],
                "answers_agree": float(np.mean(np.equal(*alike))),
                "states": [str(run.state) for run in (one, two, gone_on, odd)],
                "odd_epochs": odd.epochs_done,
                "saved_is_tested": all(
                    np.array_equal(a, b)
                    for a, b in zip(saved.get_weights(), two.model.get_weights(), strict=True)
                ),
                "refused": refused(4),
                "runs": store.count("finished"),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])

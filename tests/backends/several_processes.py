"""One of two machines that train together, played by a process: `several_processes.py HOME ADDRESS RANK`.

Without address and rank it is a single process with two devices. Prints what came of the training as JSON.
Then the second process is gone in the middle of an epoch, and the first one says what it makes of it.
"""

import json
import os
import sys

SETTINGS = {
    "model": "base_cnn",
    "dataset": "synthetic",
    "devices": 2,
    "epochs": 2,
    "batch_size": 40,
    "learning_rate": 0.002,
    "schedule": "plateau",
    "early_stopping_patience": 2,
    "ema_momentum": 0.9,
    "flip": True,
    "shift": 0.1,
    "mixup": 0.2,
    "dropout": 0.2,
    "record_answers": True,
    "validation_fraction": 0.25,
}


def main(home: str, address: str = "", rank: str = "0") -> None:
    os.environ["CIFAR_LAB_HOME"] = home
    os.environ["XLA_FLAGS"] = "" if address else "--xla_force_host_platform_device_count=2"
    from cifar_core.training.parallel import join, processes

    if address:
        join(address, 2, int(rank))
    from cifar_core.analysis.answers_by_epoch import answers_by_epoch
    from cifar_core.data.synthetic import synthetic_dataset
    from cifar_core.errors import CifarLabError
    from cifar_core.settings.train_config import TrainConfig
    from cifar_core.store import RunStore
    from cifar_core.training.run import train

    store, data = RunStore(), synthetic_dataset(0, 161, 51)

    def trained(**changes):
        return train(TrainConfig(**{**SETTINGS, **changes}), dataset=data, store=store, progress=progress)

    def progress(report):
        if address and rank == "1" and store.count("finished") and report.kind == "epoch":
            os._exit(9)

    def refused(**changes):
        try:
            trained(**changes)
        except CifarLabError as error:
            return f"{type(error).__name__}: {error}"
        return ""

    run = trained(precision=("float32", "mixed_bfloat16")[int(rank)])
    told = {
        "processes": list(processes()),
        "history": run.history[["loss", "accuracy", "val_loss", "val_accuracy"]].to_numpy().tolist(),
        "precision": run.environment["precision"],
        "weights": [float(abs(w).sum()) for w in run.model.get_weights()],
        "accuracy": run.metrics["accuracy"],
        "answers": answers_by_epoch(store, run.id).answers.tolist(),
    }
    if address:
        told["budget"] = refused(time_budget=1.0)
    print(json.dumps(told), flush=True)
    if address:
        lost = refused(epochs=3)
        print(json.dumps([lost, store.runs(state="running")["id"].size]), flush=True)
        os._exit(0)  # without waiting for the other one


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The networks of the whole story: pre-training, training, prediction, pictures.

Every step goes on where an interrupted run stopped: training resumes, predictions and pictures are
made anew.
"""

from pathlib import Path

from common.files import read_json
from network.start import start_tensorflow
from runs.cohort import step
from runs.pictures import draw_set
from runs.prediction import predict_weights
from runs.pretrain import train_stream
from runs.twostream import train
from settings import (
    BESIDE,
    DEVICE,
    MODEL,
    PICTURES,
    PREDICTION,
    PRETRAIN,
    TASK,
    TRAINING,
    Settings,
    class_weight,
    with_defaults,
)

SHARED = ("nframes", "nrows", "ncols", "depth", "width", "seed", "device", "debug")
FLAGS = {"recalculate": False, "no_aug": False, "rotate_flow": False, "eval_test_each_epoch": False}


def pretrain_settings(stream: str, echonet: Path, run_dir: Path, settings: dict) -> Settings:
    """Return what ``pretrain_<stream>.py`` would read from its command line."""
    return with_defaults(
        PRETRAIN,
        MODEL,
        DEVICE,
        **TASK
        | {name: settings[name] for name in SHARED}
        | {
            "root": Path(echonet),
            "ckptdir": run_dir,
            "recalculate": False,
            "model_prefix": f"pretrain_{stream}",
            "epoch": settings["pretrain_epoch"],
            "batch_size": settings["pretrain_batch_size"],
            "lr": settings["pretrain_lr"],
            "ef_bias": settings["ef_bias"],
        },
    )


def training_settings(root: Path, run_dir: Path, weights: dict, settings: dict) -> Settings:
    """Return what ``train_twostream.py`` would read from its command line."""
    names = ("splitnum", "model_prefix", "batch_size", "epoch", "lr", "ckpt_monitor", "val_clips")
    return with_defaults(
        TRAINING,
        MODEL,
        DEVICE,
        **FLAGS
        | {name: settings[name] for name in (*SHARED, *names, "workers")}
        | {
            "root": root,
            "ckptdir": run_dir,
            "grey_weights": str(weights["grey"]),
            "OF_weights": str(weights["of"]),
            "class_weight": class_weight(settings["class_weight"]),
            "ckpt_mode": "min" if settings["ckpt_monitor"] == "val_loss" else "max",
        },
    )


def run_networks(root: Path, run_dir: Path, settings: dict, *, echonet: Path | None) -> dict:
    """Run every network and return the paths and numbers of the results.

    Args:
        root: folder of the cohort, prepared.
        run_dir: folder of the run, for everything but movies.
        settings: those of ``main.py``.
        echonet: prepared EchoNet-Dynamic folder for pre-training, or None.

    Returns:
        dict with ``metrics`` and ``beside`` (of predict.py), ``info`` (of the weights),
        ``predictions`` and ``pictures`` (folders), ``weights``, ``name``.
    """
    weights = {"grey": "none", "of": "none"}

    def start():
        # Every step draws from the seed anew, as the script of its name does.
        return start_tensorflow(seed=settings["seed"], device=settings["device"])

    if echonet is not None:
        for stream in weights:
            step(f"pre-train the {stream} stream")
            train_stream(pretrain_settings(stream, echonet, run_dir, settings), stream, start())
            weights[stream] = run_dir / f"pretrain_{stream}.weights.h5"
    step("train the two-stream network")
    train(training_settings(root, run_dir, weights, settings), start())
    name = f"{settings['model_prefix']}{settings['splitnum']}"
    path = run_dir / f"{name}.weights.h5"
    shared = {key: settings[key] for key in ("splitnum", "seed", "device", "debug")}
    shared |= {"root": root, "weights": path, "out": run_dir}
    step("predict")
    start()
    predict_weights(
        with_defaults(
            PREDICTION,
            DEVICE,
            **shared | BESIDE | {"baseline": True, "fan_only": True},
            sets="val,test",
            n_sample=settings["n_sample"],
        )
    )
    predictions = run_dir / "predictions" / f"output_split{settings['splitnum']}"
    step("guided back-propagation")
    start()
    draw_set(
        with_defaults(
            PICTURES,
            DEVICE,
            **shared,
            set="test",
            nsamples=settings["nsamples"],
            recalculate=True,
            no_center=False,
            predictions=predictions / "predictions.csv",
        )
    )
    return {
        "metrics": read_json(predictions / "metrics.json"),
        "beside": read_json(predictions / "beside.json"),
        "info": read_json(run_dir / f"{name}.json"),
        "predictions": predictions,
        "pictures": run_dir / "guidedbackprop_visualization",
        "weights": path,
        "name": name,
    }

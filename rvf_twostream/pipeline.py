"""The whole story as one function: DICOMs to report, by the scripts of this folder in turn.

Used by ``main.py`` and ``run_demo.py``. Every step goes on where an interrupted run stopped: sorted
and computed movies are kept, training resumes, predictions and pictures are made anew.
"""

import csv
import sys
from pathlib import Path

from common.files import read_json


def flags(**values):
    """Return command-line flags: None and False are left out, True is a switch."""
    arguments = []
    for name, value in values.items():
        if value is True:
            arguments.append(f"--{name}")
        elif value is not None and value is not False:
            arguments += [f"--{name}", str(value)]
    return arguments


def step(text):
    """Print the heading of a step."""
    print(f"-- {text}", flush=True)


def prepare_cohort(root, settings):
    """Sort, resize, normalise and link the movies of a cohort; write a split file if there is none.

    Args:
        root: folder with DICOMs and REDcap_class.csv.
        settings: see ``main.py``.
    """
    import optical_flow_calculator
    import preprocess
    import split_data

    size = {"nframes": settings["nframes"], "nrows": settings["nrows"], "ncols": settings["ncols"]}
    shared = {"root": root, "debug": settings["debug"]}
    common = {**shared, "workers": settings["workers"], "stats": settings["stats"]}
    if not (Path(root) / f"split_allocation_{settings['splitnum']}.csv").exists():
        step(f"no split file {settings['splitnum']}: drawing one by patient")
        split_data.main(
            flags(
                **shared,
                make_splits=settings["splitnum"] + 1,
                stratify=True,
                seed=settings["seed"],
                val_fraction=settings["val_fraction"],
                test_fraction=settings["test_fraction"],
            )
        )
    step("preprocess")
    failed = preprocess.main(
        flags(
            **common,
            **size,
            splitnum=settings["splitnum"],
            crop=settings["crop"],
            deid=settings["deid"],
            resample_fps=settings["resample_fps"],
        )
    )
    step("optical flow")
    failed |= optical_flow_calculator.main(
        flags(**common, **size, splitnum=settings["splitnum"], flow_size=settings["flow_size"])
    )
    step("split")
    failed |= split_data.main(
        flags(**shared, splitnum=settings["splitnum"], workers=settings["workers"])
    )
    if failed:
        print("warning: some files failed, see manifest.csv", file=sys.stderr)


def pretrain_streams(echonet, run_dir, settings):
    """Prepare an EchoNet folder and pre-train both streams; return their weights.

    One after the other in this process: TensorFlow is imported once for all steps, and each stream
    has every core, or the whole GPU.
    """
    import prepare_echonet

    size = {"nframes": settings["nframes"], "nrows": settings["nrows"], "ncols": settings["ncols"]}
    step("EchoNet movies and flow")
    shared = {"root": echonet, "debug": settings["debug"], **size}
    prepare_echonet.main(flags(**shared, workers=settings["workers"]))
    import pretrain_greyscale
    import pretrain_OF

    weights = {}
    for stream, script in (("grey", pretrain_greyscale), ("of", pretrain_OF)):
        step(f"pre-train the {stream} stream")
        script.main(
            flags(
                **shared,
                ckptdir=run_dir,
                model_prefix=f"pretrain_{stream}",
                epoch=settings["pretrain_epoch"],
                batch_size=settings["pretrain_batch_size"],
                lr=settings["pretrain_lr"],
                ef_bias=settings["ef_bias"],
                depth=settings["depth"],
                width=settings["width"],
                seed=settings["seed"],
                device=settings["device"],
            )
        )
        weights[stream] = run_dir / f"pretrain_{stream}.weights.h5"
    return weights


def run_pipeline(root, run_dir, settings, *, echonet=None):
    """Run every step and return the paths and numbers of the results.

    Args:
        root: folder of the cohort.
        run_dir: folder of the run, for everything but movies.
        settings: dict of the globals of ``main.py`` in lower case, and seed, device.
        echonet: EchoNet-Dynamic folder for pre-training, or None.

    Returns:
        dict with ``metrics`` (of predict.py), ``info`` (of the weights), ``predictions`` and
        ``pictures`` (folders), ``weights``.
    """
    root, run_dir = Path(root), Path(run_dir)
    prepare_cohort(root, settings)
    weights = {"grey": "none", "of": "none"}
    if echonet is not None:
        weights = pretrain_streams(echonet, run_dir, settings)
    # TensorFlow starts only now: the workers of the steps above need no copy of it.
    import predict
    import train_twostream
    import visualize_GBP

    name = f"{settings['model_prefix']}{settings['splitnum']}"
    shared = {
        "root": root,
        "splitnum": settings["splitnum"],
        "seed": settings["seed"],
        "device": settings["device"],
        "debug": settings["debug"],
    }
    step("train the two-stream network")
    train_twostream.main(
        flags(
            **shared,
            grey_weights=weights["grey"],
            OF_weights=weights["of"],
            ckptdir=run_dir,
            ckpt_mode="min" if settings["ckpt_monitor"] == "val_loss" else "max",
            **{
                key: settings[key]
                for key in (
                    "model_prefix",
                    "nframes",
                    "nrows",
                    "ncols",
                    "depth",
                    "width",
                    "batch_size",
                    "epoch",
                    "lr",
                    "class_weight",
                    "ckpt_monitor",
                    "val_clips",
                    "workers",
                )
            },
        )
    )
    path = run_dir / f"{name}.weights.h5"
    step("predict")
    predict.main(flags(**shared, weights=path, out=run_dir, n_sample=settings["n_sample"]))
    step("guided back-propagation")
    visualize_GBP.main(
        flags(**shared, weights=path, out=run_dir, nsamples=settings["nsamples"], recalculate=True)
    )
    predictions = run_dir / "predictions" / f"output_split{settings['splitnum']}"
    return {
        "metrics": read_json(predictions / "metrics.json"),
        "info": read_json(run_dir / f"{name}.json"),
        "predictions": predictions,
        "pictures": run_dir / "guidedbackprop_visualization",
        "weights": path,
        "name": name,
    }


def read_rows(path):
    """Return the rows of a CSV as dicts of text."""
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def cohort_table(root):
    """Return (header, rows) of the cohort: each fact of the manifest with the number of files."""
    from pydicom.uid import UID

    rows = read_rows(Path(root) / "manifest.csv")
    used = [row for row in rows if row["status"] not in ("skipped", "failed")]
    facts = [("DICOM files", len(rows)), ("movies used", len(used))]
    facts.append(("patients", len({row["id"] for row in used})))
    for column, text, shown in (
        ("class", "class", str),
        ("fps", "frames per second", lambda rate: f"{float(rate):g}" if rate else "unknown"),
        ("transfer_syntax", "transfer syntax", lambda uid: UID(uid).name),
    ):
        for value in sorted({row[column] for row in used}):
            facts.append((f"{text} {shown(value)}", sum(row[column] == value for row in used)))
    frames = sorted(int(row["frames"]) for row in used)
    if frames:
        facts.append(("frames per movie", f"{frames[0]} to {frames[-1]}"))
    for reason in sorted({row["reason"] for row in rows if row["reason"]}):
        facts.append((f"left out: {reason}", sum(row["reason"] == reason for row in rows)))
    return ("fact", "number"), facts


def result_figures(run_dir, results):
    """Return the figure entries that every report shows: curves, ROC, calibration, gallery."""
    run_dir = Path(run_dir)
    figures = [
        (
            f"{results['name']}_curves.png",
            "Training and validation over the epochs.",
            "Curves of training and validation over the epochs",
        ),
        (
            results["predictions"] / "roc.png",
            "ROC over patients.",
            "ROC curves of movies and patients",
        ),
        (
            results["predictions"] / "calibration.png",
            "Calibration over patients.",
            "Observed share of RV failure over the predicted probability",
        ),
    ]
    for row in read_rows(results["pictures"] / "index.csv"):
        text = f"{row['name']}: {row['file']}, probability {float(row['probability']):.2f}"
        for suffix, what in (
            (".gif", "Input movie above the guided gradient of the logit"),
            ("_gradcam.png", "Grad-CAM of both streams over the mean picture"),
        ):
            path = results["pictures"] / f"{row['name']}{suffix}"
            figures.append((path, f"{text}. {what}.", what))
    return [
        {"path": str((run_dir / path).relative_to(run_dir)), "caption": caption, "alt": alt}
        for path, caption, alt in figures
    ]

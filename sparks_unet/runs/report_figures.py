"""The figures of a finished run, and their records for its report.

Source: specification section 8.12.
"""

import re
from collections.abc import Sequence

from analysis.event_figures import (
    plot_class_bars,
    plot_confusion,
    plot_curves,
    plot_event,
    plot_iou,
    plot_montage,
    plot_snr,
)
from analysis.event_traces import Trace, read_traces
from analysis.outcome_figures import (
    event_outcomes,
    matched_truth,
    plot_outcomes,
    plot_space_time,
    plot_truth,
)
from analysis.preds_processing_tools import calibrated_post
from common.locks import visible
from common.tables import read_rows
from inputs.data_processing import signal_to_noise
from settings.config import EVENT_CLASSES, Params


def draw_figures(
    params: Params,
    results: dict[str, tuple],
    metrics: dict | None,
    intervals: dict[str, tuple] | None,
    labelled: Sequence[str],
) -> list[dict]:
    """Draw all figures of the run; return their records for the report."""
    folder = params.output_dir / "figures"
    figures = []
    if labelled:
        figures += _label_figures(folder, params, results, metrics, intervals, labelled)
    if (params.output_dir / "loss.csv").is_file():
        figures.append(
            _figure(
                folder,
                "training",
                plot_curves,
                params.output_dir / "loss.csv",
                params.output_dir / "metrics.csv",
                caption="Training loss, mean since the last log; the loss changes its kind at "
                f"iteration {params.switch_iteration}."
                if params.criterion == "nll_then_lovasz"
                else "Training loss, mean since the last log.",
                alt="Curve of the training loss over the iterations",
            )
        )
    for kind in EVENT_CLASSES:
        strongest = _strongest(results, kind)
        if strongest is None:
            continue
        sample, row = strongest
        post = calibrated_post(sample.movie, post=params.postprocessing)
        figures.append(
            _figure(
                folder,
                f"event_{kind}",
                plot_event,
                sample.movie.data,
                row,
                calibration=post.calibration,
                trace=newest_traces(params, sample.id).get(int(row["id"])),
                caption=f"Strongest of the {kind}: movie {sample.id}, event {row['id']}.",
                alt=f"Trace over time and peak frame of the strongest event among the {kind}",
            )
        )
        if kind == "waves":
            figures.append(
                _figure(
                    folder,
                    "wave_in_space_and_time",
                    plot_space_time,
                    sample.movie.data,
                    row,
                    calibration=post.calibration,
                    caption=f"The same wave along x over time: movie {sample.id}.",
                    alt="Brightness along x over time as the strongest wave passes",
                )
            )
    return figures


def _label_figures(folder, params, results, metrics, intervals, labelled):
    first = labelled[0]
    sample, prediction = results[first][:2]
    post = calibrated_post(sample.movie, post=params.postprocessing)
    ratios = {}
    for name in labelled:
        one = results[name][0]
        ratios[name] = signal_to_noise(one.movie.data, one.classes)
    return [
        *_outcome_figures(folder, params, results, labelled),
        _figure(
            folder,
            "montage",
            plot_montage,
            sample.movie.data,
            prediction.classes,
            sample.classes,
            calibration=post.calibration,
            caption=f"Movie {first}, annotation left, prediction right.",
            alt="Frames of a test movie, annotated events left and predicted ones right",
        ),
        _figure(
            folder,
            "class_bars",
            plot_class_bars,
            metrics,
            intervals,
            caption="Event metrics with 95 % intervals over movies.",
            alt="Bars of the event metrics of each class with their intervals",
        ),
        _figure(
            folder,
            "iou",
            plot_iou,
            metrics,
            caption="Overlap of voxels, label 4 left out.",
            alt="Bars of the intersection over union of each class",
        ),
        _figure(
            folder,
            "confusion",
            plot_confusion,
            metrics["confusion"],
            caption="Voxels: rows truth, columns prediction; label 4 left out.",
            alt="Matrix of voxels by annotated and predicted class",
        ),
        _figure(
            folder,
            "snr",
            plot_snr,
            ratios,
            caption="Signal-to-noise ratio of the test movies.",
            alt="Bars of the signal-to-noise ratio of each test movie",
        ),
    ]


def _outcome_figures(folder, params, results, labelled):
    """Return the records of what was found, missed and false, and of planted numbers."""
    movies, pairs = [], []
    for name in labelled:
        sample, prediction, table, _ = results[name]
        post = calibrated_post(sample.movie, post=params.postprocessing)
        outcomes = event_outcomes(sample.classes, sample.events, prediction, post)
        labels = prediction.classes, sample.classes
        movies.append((name, sample.movie.data, labels, outcomes))
        truth = params.data_dir / f"{name}_truth.csv"
        if truth.is_file():
            pairs += matched_truth(sample.events, prediction, table, read_rows(truth))
    figures = [
        _figure(
            folder,
            "outcomes",
            plot_outcomes,
            movies,
            calibration=post.calibration,
            caption="Events that were found, missed, or predicted where none is annotated; the "
            "number in brackets counts all of them. Lines: prediction and annotation.",
            alt="Rows of small pictures of found, missed and false events",
        )
    ]
    if pairs:
        figures.append(
            _figure(
                folder,
                "planted_and_measured",
                plot_truth,
                pairs,
                caption="Amplitude and width of planted events that were found; the line is "
                "equality. Events whose data do not determine a number are left out.",
                alt="Measured against planted amplitude and width",
            )
        )
    return figures


def _strongest(results, kind):
    """Return (sample, row) of the event of ``kind`` with the largest amplitude, or None."""
    best = None
    for sample, _, table, _ in results.values():
        rows = table[(table["class"] == kind) & table["amplitude_df_f0"].notna()]
        for _, row in rows.iterrows():
            if best is None or row["amplitude_df_f0"] > best[1]["amplitude_df_f0"]:
                best = (sample, row)
    return best


def _figure(folder, name, function, *args, caption, alt, **options):
    path = function(folder / f"{name}.png", *args, **options)
    return {"path": str(path.relative_to(folder.parent)), "caption": caption, "alt": alt}


def newest_traces(params: Params, name: str) -> dict[int, Trace]:
    """Return {event id: Trace} of a movie as the newest network of the run predicts it."""
    stem = re.compile(
        rf"{re.escape(params.run_name)}_(\d+)_{re.escape(name)}_{params.inference}_traces"
    )
    paths = visible(params.output_dir / "predictions", "*_traces.csv")
    own = {int(m[1]): path for path in paths if (m := stem.fullmatch(path.stem))}
    return read_traces(own[max(own)]) if own else {}

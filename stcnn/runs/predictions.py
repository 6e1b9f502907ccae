"""Calcium predicted for stimuli that need no data set: families, recorded movies, a user's movie.

Everything here computes and returns records; prediction_output.py writes and draws them. Letters:
T frames.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from common.files import InputError
from inputs.ca_dataloader import CalciumDataset, Layout, shift_movie
from inputs.display import Display
from inputs.recordings import read_movies, read_recordings
from inputs.stimuli import Stimulus, make_family
from inputs.user_movies import UserMovie
from network.checkpoints import load_model, resolve_checkpoint
from network.models import STCNN
from network.predict import predict_movies, settled_stream

log = logging.getLogger(__name__)
BEFORE_S = 2.0  # grey shown left of the onset
AFTER_S = 4.0  # predicted after the onset
PEAK_S = 2.1  # 378 frames at 180 Hz: the peak is taken over this long after the onset
UNSEEN = 0.01  # contrast of less is none
STILLS = 8  # frames of a user's movie drawn above its traces


@dataclass(frozen=True)
class How:
    """How a prediction is made."""

    tau: str = "auto"  # trained time constant of the indicator, or legacy
    who: str | int = "mean_param"  # mean_param, mean_response, all, or a neuron's number


@dataclass(frozen=True)
class Shown:
    """Stimuli to show, with what was recorded on them."""

    family: str
    stimuli: list[Stimulus]
    variants: list[list[torch.Tensor]] | None = None  # movies whose predictions are averaged
    # {barcode: {type: (seconds from onset (T,), (neurons, T))}}
    recorded: dict | None = None
    first: dict = field(default_factory=dict)  # {barcode: tick of the first frame, where not 0}


@dataclass(frozen=True)
class FamilyPrediction:
    """Predicted calcium of a family of stimuli, dF/F."""

    shown: Shown
    seconds: np.ndarray  # (T,) from stimulus onset
    curves: dict[str, np.ndarray]  # {series: (stimuli, T)}, the mean over the models
    spreads: dict[str, np.ndarray]  # {series: (stimuli, T)} standard deviation; empty for one model
    peaks: dict[str, np.ndarray] = field(default_factory=dict)  # {series: (stimuli,)}
    peak_frames: dict[str, np.ndarray] = field(default_factory=dict)  # of seconds

    def peak_sd(self, series: str) -> np.ndarray | None:
        """Return the spread over the models at the peaks (stimuli,), or None."""
        if series not in self.spreads:
            return None
        at = self.peak_frames[series]
        return self.spreads[series][np.arange(len(at)), at]


@dataclass(frozen=True)
class MoviePrediction:
    """Predicted calcium of one movie, dF/F."""

    name: str
    title: str
    seconds: np.ndarray  # (T,)
    curves: dict[str, np.ndarray]  # {series: (T,)}
    spreads: dict[str, np.ndarray]
    stills: list[tuple[float, np.ndarray]]  # (seconds, contrast (rows, columns))


def load_models(
    checkpoints: Sequence[str], *, configs: Sequence[str] | None, **options
) -> tuple[list[STCNN], str]:
    """Return models and a label of the first checkpoint; all must share rate and field.

    Args:
        checkpoints: run folders or files.
        configs: config.json of each, one for all, or None for those beside them.
        options: readout, impl and device of load_model.
    """
    models = []
    for i, checkpoint in enumerate(checkpoints):
        path = resolve_checkpoint(checkpoint)
        config = configs[min(i, len(configs) - 1)] if configs else path.parent / "config.json"
        models.append(load_model(path, config=config, **options))
    _say_types(models, checkpoints)
    other = {text for model in models for text in models[0].display.differences(model.display)}
    if other or len({model.field for model in models}) > 1:
        raise InputError(
            "the checkpoints have different displays "
            f"({'; '.join(sorted(other)) or 'fields of other sizes'}); predict them one by one"
        )
    return models, resolve_checkpoint(checkpoints[0]).stem


def with_display(model: STCNN, display: Display) -> STCNN:
    """Return the model with ``display`` in place of its own."""
    model.display = display
    return model


def _say_types(models, checkpoints):
    """Say which cell types are not in all the checkpoints; refuse those that share none."""
    shared = [name for name in models[0].cell_types if all(name in m.cell_types for m in models)]
    if not shared:
        pairs = zip(checkpoints, models, strict=True)
        named = "; ".join(f"{path}: {', '.join(model.cell_types)}" for path, model in pairs)
        raise InputError(f"the checkpoints share no cell type ({named}); predict them one by one")
    left = {name for model in models for name in model.cell_types} - set(shared)
    if left:
        log.warning("cell types %s are not in all checkpoints; the ensemble leaves them out",
                    ", ".join(sorted(left)))  # fmt: skip


def shared_types(models: Sequence[STCNN]) -> list[str]:
    """Return the cell types that all the models have, in the order of the first."""
    return [name for name in models[0].cell_types if all(name in m.cell_types for m in models)]


def check_neurons(models: Sequence[STCNN], who: str | int) -> None:
    """Refuse neurons that a cell type of a model lacks, or that are others in another model."""
    if who in ("mean_param", "mean_response"):
        return
    for kind in shared_types(models):
        counts = {len(model.calcium_of(kind)["beta"]) for model in models}
        if isinstance(who, int) and who >= min(counts):
            raise InputError(f"--who {who}: {kind} has {min(counts)} neurons, from 0")
        uids = {tuple(model.neuron_uids.get(kind, ())) for model in models}
        if len(uids) > 1 or len(counts) > 1:
            raise InputError(
                f"--who {who}: the neurons of {kind} are not the same in all checkpoints; predict "
                "them one by one, or --who mean_response"
            )


def predict_ensemble(
    models: list[STCNN], contrasts: list[list[torch.Tensor]], *, n_frames: int, how: How
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return ({series: mean (stimuli, T)}, {series: sd}) over the models; sd is empty for one.

    Series are cell types or neurons. ``contrasts`` holds a list of movies per stimulus; the
    predictions of a list are averaged.
    """
    runs = []
    for model in models:
        flat = predict_movies(
            model,
            [frames for group in contrasts for frames in group],
            n_frames=n_frames,
            tau=how.tau,
            who=how.who,
        )
        cuts = np.cumsum([len(group) for group in contrasts])[:-1]
        curves = {
            kind: np.stack([part.mean(0) for part in np.split(array, cuts)])
            for kind, array in flat.items()
        }
        if how.who == "all":
            curves = {
                f"{kind}_n{i}": array[:, i]
                for kind, array in curves.items()
                for i in range(array.shape[1])
            }
        runs.append(curves)
    names = [name for name in runs[0] if all(name in run for run in runs)]  # shared types
    stacks = {name: np.stack([run[name] for run in runs]) for name in names}  # (models, stimuli, T)
    spreads = {name: stack.std(0, ddof=1) for name, stack in stacks.items() if len(runs) > 1}
    return {name: stack.mean(0) for name, stack in stacks.items()}, spreads


def predict_family(models: list[STCNN], shown: Shown, how: How) -> FamilyPrediction:
    """Predict a list of stimuli, grey before and after each."""
    display = models[0].display
    lead, n_peak = display.frames(BEFORE_S), display.frames(PEAK_S)
    starts = [max(shown.first.get(stimulus.barcode, 0), -lead) for stimulus in shown.stimuli]
    ends = zip(starts, shown.stimuli, strict=True)
    longest = max(start + len(stimulus.contrast) for start, stimulus in ends)
    n_after = max(display.frames(AFTER_S), longest)
    variants = shown.variants or [[stimulus.contrast] for stimulus in shown.stimuli]
    contrasts = [
        [torch.cat([frames.new_zeros(lead + start, *frames.shape[1:]), frames]) for frames in group]
        for start, group in zip(starts, variants, strict=True)
    ]
    curves, spreads = predict_ensemble(models, contrasts, n_frames=lead + n_after, how=how)
    stop = lead + max(n_peak, longest)
    prediction = FamilyPrediction(
        shown, (np.arange(lead + n_after) - lead) / display.rate_hz, curves, spreads
    )
    for series, mean in curves.items():
        prediction.peaks[series] = mean[:, lead:stop].max(1)
        prediction.peak_frames[series] = mean[:, lead:stop].argmax(1) + lead
    return prediction


def predict_user_movie(
    models: list[STCNN], movie: UserMovie, how: How, *, called: str | None = None
) -> MoviePrediction:
    """Predict a user's movie by streaming; memory does not depend on its length.

    ``called`` is the name of the results, default the file's.
    """
    display = models[0].display
    rate = display.rate_hz
    streams = [settled_stream(model, display.field, tau=how.tau) for model in models]
    curves, stills, n_done, kinds = [{} for _ in models], [], 0, shared_types(models)
    total = max(1, round(movie.seconds * rate))
    every = max(1, total // STILLS)
    for piece in movie.pieces(display):
        for i in range(len(piece)):
            if (n_done + i) % every == every // 2 and len(stills) < STILLS:
                stills.append(((n_done + i) / rate, piece[i].numpy()))
        n_done += len(piece)
        for model, stream, own in zip(models, streams, curves, strict=True):
            activity = stream.push_frames(piece)
            shared = {kind: activity[kind] for kind in kinds}
            for name, series in _responses(model, shared, how.who):
                own.setdefault(name, []).append(series)
    joined = [{name: np.concatenate(parts) for name, parts in own.items()} for own in curves]
    stacks = {name: np.stack([own[name] for own in joined]) for name in joined[0]}  # (models, T)
    return MoviePrediction(
        called or movie.path.stem,
        f"{movie.path.name}: predicted calcium\n{movie.view.describe()}",
        np.arange(n_done) / rate,
        {name: stack.mean(0) for name, stack in stacks.items()},
        {name: stack.std(0, ddof=1) for name, stack in stacks.items() if len(models) > 1},
        stills,
    )


def layer_maps(model: STCNN, movie: UserMovie, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return {layer: (T, channels, H, W)} over the first four seconds of a user's movie."""
    frames, wanted = [], model.display.frames(AFTER_S)
    for piece in movie.pieces(model.display):
        frames.append(piece)
        if sum(map(len, frames)) >= wanted:
            break
    contrast = torch.cat(frames)[:wanted]
    lead = contrast.new_zeros(model.display.frames(BEFORE_S), *contrast.shape[1:])
    shown = torch.cat([lead, contrast]).to(model.pr.x_weight.device)
    with torch.no_grad():
        maps = model.generate_feature_maps(shown[None, :, None])
    unknown = [name for name in layers if name not in maps]
    if unknown:
        raise InputError(f"--feature-maps {', '.join(unknown)}: known layers are {', '.join(maps)}")
    return {name: maps[name][0, len(lead) :].cpu().numpy() for name in layers}


def family_stimuli(model: STCNN, family: str) -> Shown:
    """Return a family made for the model's display; what cannot be seen on its grey is said."""
    display = model.display
    for what, contrast in (("dark", display.dark), ("bright", display.bright)):
        if abs(contrast) < UNSEEN:
            log.warning(
                "the background of this model is %.3g: %s stimuli cannot be seen on it, and their "
                "predictions are those of no stimulus", display.background, what,
            )  # fmt: skip
    return Shown(family, make_family(family, model.display))


def data_stimuli(
    ca_path: Path, mov_path: Path, model: STCNN, family: str, shift: str, *, nan: str = "reject"
) -> Shown:
    """Return the stimuli of a data set with their movies, shifted, and the recorded traces.

    Args:
        ca_path, mov_path: folders in the published format.
        model: gives the display: rate, degrees per pixel, background.
        family: size_tuning, looming, grating or data.
        shift: none, first (the published way: as shifted for the first neuron of the stimulus) or
            each (mean over the movies as shifted for every neuron).
        nan: reject or drop_trial, as in training.
    """
    display = model.display
    recordings = read_recordings(ca_path, nan=nan)
    movies = read_movies(mov_path, rate_hz=display.rate_hz)
    size = next(iter(movies.values())).shape[1:]
    if tuple(size) != tuple(display.field):
        raise InputError(
            f"{mov_path}: movies of {size[0]} x {size[1]} px, the model was trained on "
            f"{display.field[0]} x {display.field[1]}; give movies of its field"
        )
    dataset = CalciumDataset(recordings, movies, Layout.of_display(display), display=display)
    wanted = None
    if family != "data":
        wanted = {s.barcode: s for s in make_family(family, display)}
    stimuli, recorded, variants = [], {}, []
    for barcode in sorted({item.barcode for item in dataset.items}):
        if wanted is not None and barcode not in wanted:
            continue
        items = [dataset.items[row] for row in dataset.rows_of("any", barcode)]
        contrast = movies[barcode] - display.background
        steps = {"none": [(0, 0)], "first": [dataset.pixel_shift(items[0])]}.get(shift)
        steps = steps or sorted({dataset.pixel_shift(item) for item in items})
        variants.append([shift_movie(contrast, step) for step in steps])
        known = wanted[barcode] if wanted else None
        label, parameters = (known.label, known.parameters) if known else (f"vstim_{barcode}", {})
        stimuli.append(Stimulus(barcode, label, family, variants[-1][0], parameters,
                                display.background))  # fmt: skip
        recorded[barcode] = _recorded_traces(dataset, items)
    if not stimuli:
        raise InputError(f"{ca_path}: no stimulus of the family {family} in these recordings")
    return Shown(family, stimuli, variants, recorded, movies.first)


def _recorded_traces(dataset, items):
    """Return {type: (seconds, (neurons, T))} of the items of one stimulus."""
    kinds = {}
    for item in items:
        entry = dataset.session_of(item)
        trace = entry["neuron"][item.uid]["traces"].mean(0).numpy()
        seconds, traces = kinds.setdefault(item.cell_type, (entry["t_axis"].numpy(), []))
        if len(seconds) == len(trace):
            traces.append(trace)
    return {kind: (seconds, np.array(traces)) for kind, (seconds, traces) in kinds.items()}


def _responses(model, activity, who):
    for kind, values in activity.items():
        with torch.no_grad():
            response = model.respond(values, kind, who)[0].cpu().numpy()
        if response.ndim == 2:
            yield from ((f"{kind}_n{i}", row) for i, row in enumerate(response))
        else:
            yield kind, response

"""Everything that a finished run shows: metrics, plots, maps, movies, onset map."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.heatmap import (
    MAP_LABELS,
    compute_map,
    map_agreement,
    times_uniform,
    to_image,
    write_movie,
)
from analysis.importance import (
    block_importance,
    gradient_importance,
    gradient_of_states,
    pixel_blocks,
    take_windows,
)
from analysis.map_figures import draw_bars, draw_stills
from analysis.metrics import auc, metric_rows, persistence, ridge_prediction, verdict
from analysis.onset import write_onset
from analysis.plots import create_plots
from common.files import InputError, atomic_path, write_json
from common.tables import write_columns
from inputs.custom_types import DaRnnNet
from inputs.prepare import Prepared
from network.checkpoints import last_states, load_network
from network.device import choose_device
from runs.drivers import show_drivers
from settings import OnsetSettings, RunSettings

FRAME_MAPS = ("attention", "control", "reference", "signed")
SMALL_GIF_FRAMES = 40
SMALL_GIF_BYTES = 1_000_000


def show_run(
    prepared: Prepared,
    settings: RunSettings,
    run_dir: Path,
    saved: dict,
    *,
    before: int | None = None,
    outline: np.ndarray | None = None,
) -> dict:
    """Write metrics, plots, maps, movies and the onset map of a finished run.

    Args:
        prepared: Prepared recording of the run.
        settings: RunSettings.
        saved: dict with y_pred (n_test, o), attention (n_test, N), iter_losses, epoch_losses.
        before: first frame of the CSD when it is known: adds a row of metrics for what precedes.
        outline: (H, W) bool of planted driver pixels, drawn into the maps.

    Returns:
        dict: rows (metrics), permutation and gradient (o, N), maps, onset, picture.
    """
    run_dir = Path(run_dir)
    rows = evaluate(prepared, saved["y_pred"], before)
    words = dict(zip(prepared.target_labels, prepared.target_words, strict=True))
    shown = {"rows": rows, "verdict": verdict(rows, "test", words), "picture": None, "onset": None}
    draw_predictions(prepared, saved, run_dir / "plots", save=settings.save_plots)
    if settings.maps:
        shown |= importance_maps(prepared, settings, run_dir)
        shown["maps"] = draw_maps(prepared, run_dir, saved["attention"], shown, outline)
    if settings.error_rate:
        shown["drivers"] = show_drivers(prepared, settings, run_dir, outline)
        print("\n".join(shown["drivers"]))
    shown["onset"] = draw_onset(prepared, settings, run_dir)
    if prepared.recording.shape is not None and settings.movie != "none":
        draw_movie(prepared, settings, run_dir, saved["attention"])
        shown |= draw_small_movie(prepared, settings, run_dir, saved["attention"], shown, outline)
    write_metrics(run_dir, shown)
    return shown


def evaluate(
    prepared: Prepared,
    y_pred: np.ndarray,
    before: int | None = None,
    starts: np.ndarray | None = None,
) -> list[dict]:
    """Return the metric rows of network, persistence and ridge on the test part.

    Args:
        y_pred: (n, o) z-units.
        starts: windows (n,) of the prediction; by default those of the test part.
        before: frame number; the test frames before it are a part of their own.
    """
    rule, data = prepared.rule, prepared.data
    starts = prepared.test_starts if starts is None else starts
    predictions = {
        "network": y_pred,
        "persistence": persistence(data.targs, starts, rule),
        "ridge": ridge_prediction(data, rule.train_starts(prepared.fit_size), starts, rule),
    }
    parts = {"test": np.ones(len(starts), bool)}
    if before is not None:
        parts["before_csd"] = rule.target_rows(starts) < before
    rows = []
    for name, mask in parts.items():
        if mask.any():
            chosen = {model: values[mask] for model, values in predictions.items()}
            rows += metric_rows(
                data, chosen, starts[mask], rule, prepared.scaler, prepared.targets, name
            )
    words = dict(zip(prepared.target_labels, prepared.target_words, strict=True))
    head = "model", "part", "target"  # the place stands beside the label
    return [
        {name: row[name] for name in head} | {"target_place": words[row["target"]]} | row
        for row in rows
    ]


def write_metrics(run_dir: Path, shown: dict) -> None:
    """Write metrics.json and metrics.csv."""
    record = {"rows": shown["rows"], "verdict": shown["verdict"], "maps": shown.get("maps", {})}
    record["drivers"] = shown.get("drivers", [])
    record["picture_map"] = shown.get("picture_map")
    write_json(run_dir / "metrics.json", record)
    names = list(shown["rows"][0])
    write_columns(
        run_dir / "metrics.csv", {name: [row[name] for row in shown["rows"]] for name in names}
    )


def draw_predictions(prepared: Prepared, saved: dict, folder: Path, *, save: bool = True) -> None:
    """Draw the published plots; with several targets one prediction plot each."""
    truth = prepared.data.targs[prepared.train_size :]
    names = zip(prepared.target_labels, prepared.target_words, strict=True)
    for position, (label, words) in enumerate(names):
        create_plots(
            saved["iter_losses"],
            saved["epoch_losses"],
            truth[:, position],
            saved["y_pred"][:, position],
            folder=folder,
            first_frame=prepared.train_size,
            label=words,
            rate_hz=prepared.recording.scales.rate_hz.value,
            suffix=f"_{label}" if position else "",
            save=save,
        )


def compute_importance(
    prepared: Prepared,
    settings: RunSettings,
    net: DaRnnNet,
    permutation: np.ndarray,
    states: Sequence[dict] = (),
) -> dict:
    """Return permutation and gradient importance on every k-th training window.

    Args:
        states: of the last epochs, over which the gradient is averaged; none: that of ``net``.

    Returns:
        dict: base_mse (o,), permutation, permutation_sd and gradient (o, N), window_starts.
    """
    starts = prepared.rule.train_starts(prepared.fit_size)[:: settings.importance_every]
    windows = take_windows(net, prepared.data, starts, prepared.rule, permutation)
    blocks = pixel_blocks(
        len(prepared.features),
        prepared.feature_pixels,
        prepared.recording.shape,
        settings.block,
    )
    base, mean, spread = block_importance(
        windows, blocks, repeats=settings.importance_repeats, seed=settings.seed
    )
    return {
        "base_mse": base,
        "permutation": mean,
        "permutation_sd": spread,
        "gradient": gradient_of_states(windows, states) if states else gradient_importance(windows),
        "window_starts": starts,
    }


def importance_maps(prepared: Prepared, settings: RunSettings, run_dir: Path) -> dict:
    """Compute the importance with the saved network, write importance.npz and return it."""
    device, _ = choose_device(settings.device)
    net, record = load_network(run_dir, device)
    states = last_states(run_dir) if settings.gradient_epochs > 1 else ()
    importance = compute_importance(prepared, settings, net, record["permutation"], states)
    places = prepared.feature_pixels
    with atomic_path(run_dir / "importance.npz") as temporary, open(temporary, "wb") as handle:
        pixels = prepared.features if places is None else places
        np.savez(handle, feature_pixels=pixels, **importance)
    return {name: importance[name] for name in ("permutation", "gradient")}


def frame_maps(
    prepared: Prepared, attention: np.ndarray, names: Sequence[str] = FRAME_MAPS
) -> dict:
    """Return dict of map name -> (n_test, N) by driving series (section 8.2)."""
    if prepared.rule.steps < 2:
        names = [name for name in names if name == "attention"]
    x_step1 = None
    if set(names) - {"attention"}:
        x_step1 = prepared.data.feats[prepared.rule.x_rows(prepared.test_starts)[:, 1]]
    return {name: compute_map(name, attention, x_step1) for name in names}


def draw_maps(
    prepared: Prepared,
    run_dir: Path,
    attention: np.ndarray,
    importance: dict,
    outline: np.ndarray | None = None,
) -> dict:
    """Draw the still maps, the control beside the attention; return their agreement with it.

    With several targets the permutation and gradient maps are drawn once for each.
    """
    control = frame_maps(prepared, attention, ("control",)).get("control")
    stills, agreement = {}, {}
    for kind in FRAME_MAPS:  # one at a time: each takes as much room as the attention
        for name, values in frame_maps(prepared, attention, (kind,)).items():
            stills[name] = values.mean(axis=0)
            if name != "control" and control is not None:
                agreement[name] = map_agreement(values, control)
    stills["attention"] = times_uniform(stills["attention"])
    for position, label in enumerate(prepared.target_labels):
        own = {name: importance[name][position] for name in ("gradient", "permutation")}
        if control is not None:
            for name, values in own.items():
                key = name if position == 0 else f"{name} {label}"
                agreement[key] = map_agreement(values, control.mean(axis=0))
        path = run_dir / "plots" / (f"maps_{label}.png" if position else "maps.png")
        draw_still_maps(prepared, path, stills | own, agreement, outline)
    return agreement


def draw_still_maps(
    prepared: Prepared,
    path: Path,
    values: dict[str, np.ndarray],
    agreement: dict,
    outline: np.ndarray | None,
) -> None:
    """Draw maps (N,) as images, or as bars for named series."""
    if prepared.recording.shape is None:
        names = [prepared.recording.columns[position] for position in prepared.features]
        draw_bars(path, values, names)
        return
    images = {
        name: to_image(vector, prepared.feature_pixels, prepared.recording.shape)
        for name, vector in values.items()
    }
    if outline is None:
        notes = {
            name: f"likeness to brightness: r {likeness['correlation']:.2f}"
            for name, likeness in agreement.items()
            if name in values and likeness["correlation"] is not None
        }
    else:
        notes = {
            name: f"AUC for the driver {score:.2f}"
            for name, image in images.items()
            if (score := driver_auc(image, outline)) is not None
        }
    draw_stills(
        path,
        images,
        target_pixels=prepared.target_pixels,
        notes=notes,
        outline=outline,
        outline_label="planted driver" if outline is not None else "",
        scales=prepared.recording.scales,
    )


def driver_auc(image: np.ndarray, drivers: np.ndarray) -> float | None:
    """Return the chance that the size of ``image`` (H, W) is larger in ``drivers`` than outside."""
    known = np.isfinite(image)
    return auc(np.abs(image[known]), drivers[known])


def draw_onset(prepared: Prepared, settings: RunSettings, run_dir: Path) -> dict | None:
    """Write the CSD onset map, or say which scale it lacks and return None."""
    recording = prepared.recording
    if recording.shape is None:
        return None
    if missing := recording.scales.missing():
        print(f"the onset map is left out: give {' and '.join(missing)}, or call onset.py")
        return None
    try:
        recipe = OnsetSettings(seed=settings.seed)
        return write_onset(run_dir, recording.movie(), recording.scales, recipe)
    except InputError as error:
        # A dF/F movie, for example, has no onset map, but its prediction stands.
        print(f"the onset map is left out: {error}")
        return None


def background(prepared: Prepared, align: str) -> np.ndarray:
    """Return the movie frames (n_test, H, W) that lie behind the map.

    ``align``: "target" (published) is the frame that is predicted, "input" the frame whose
    weighted input is drawn.
    """
    starts = prepared.test_starts
    if align == "target":
        rows = prepared.rule.target_rows(starts)
    else:
        rows = prepared.rule.x_rows(starts)[:, min(1, prepared.rule.steps - 1)]
    return prepared.recording.movie()[rows]


def movie_maps(
    prepared: Prepared, settings: RunSettings, attention: np.ndarray
) -> tuple[np.ndarray, dict]:
    """Return the maps (n_test, H, W) of --map, and the look of their movie."""
    name, recording = settings.map, prepared.recording
    values = frame_maps(prepared, attention, (name,)).get(name)
    if values is None:
        raise InputError(f"--map {name}: needs T >= 3; use --map attention")
    if name == "attention":
        values = times_uniform(values)
    look = {
        "clim": settings.clim,
        "title": MAP_LABELS[name],
        "target_pixels": [pixel for pixel in prepared.target_pixels if pixel >= 0],
        "diverging": name == "signed",
        "scales": recording.scales,
        "first_frame": prepared.train_size,
    }
    return to_image(values, prepared.feature_pixels, recording.shape), look


def draw_movie(
    prepared: Prepared, settings: RunSettings, run_dir: Path, attention: np.ndarray
) -> None:
    """Write heatmap.mp4 and heatmap.gif of the map that --map names."""
    maps, look = movie_maps(prepared, settings, attention)
    frames, kinds = background(prepared, settings.align), settings.movie.split("+")
    write_movie(run_dir / "heatmap", frames, maps, fps=settings.fps, kinds=kinds, **look)


def draw_small_movie(
    prepared: Prepared,
    settings: RunSettings,
    run_dir: Path,
    attention: np.ndarray,
    shown: dict,
    outline: np.ndarray | None,
) -> dict:
    """Write the GIF that a report leads with; return its path (None: too large) and its map.

    It shows the permutation importance where that was computed, one map over all frames: the map
    of --map repeats brightness and its scale changes from frame to frame.
    """
    maps, look = movie_maps(prepared, settings, attention)
    name = settings.map
    if "permutation" in shown:
        name, own = "permutation", shown["permutation"][0]
        image = to_image(own, prepared.feature_pixels, prepared.recording.shape)
        maps = np.broadcast_to(image, maps.shape)
        look |= {"clim": "global", "diverging": True}  # gray is 0: no rise of the error
        look["title"] = f"{MAP_LABELS[name]}; gray: none\none map for all frames, one scale"
    if outline is not None:
        look["title"] += "\nframe: planted driver; hatched: target"
    path = write_movie(
        run_dir / "heatmap_small",
        background(prepared, settings.align),
        maps,
        fps=settings.fps,
        kinds=("gif",),
        most_gif_frames=SMALL_GIF_FRAMES,
        steady=True,
        outline=outline,
        **look,
    )[0]
    return {
        "picture": path if path.stat().st_size < SMALL_GIF_BYTES else None,
        "picture_map": name,
    }

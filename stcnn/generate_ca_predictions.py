"""Show any movie to a trained model and write the calcium it predicts, without any data set.

    python generate_ca_predictions.py --checkpoint RUN --stimulus size_tuning,looming
    python generate_ca_predictions.py --checkpoint RUN1 RUN2 RUN3 --stimulus movie.mp4 --out DIR

RUN is a run folder of train.py, or a model_chkpnt_<e>.pt or .safetensors with its config.json.
Several
checkpoints give mean and spread. Stimuli: size_tuning, looming, grating, flicker, speed, direction,
loom_rv, rf_map, a .npy, .npz or video file, a folder of images (resampled to the model's rate and
one
degree per pixel), or "data" with --ca-path and --mov-path. Before every movie the model sees grey.
Writes, per family, <chk>_<type>_<family>.png, <family>_traces.npz (series x stimuli x frames),
<family>_traces.csv, <family>_peaks.csv, <family>_indices.csv. Source: specification 8.3, 8.4.
"""

import logging
import sys
from pathlib import Path

import numpy as np

from common.files import (
    InputError,
    Parser,
    atomic_path,
    one_line_faults,
    raise_faults,
    write_settings,
)

HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parent / "results" / "stcnn" / "predictions"
FAMILIES = (
    "size_tuning",
    "looming",
    "grating",
    "flicker",
    "speed",
    "direction",
    "loom_rv",
    "rf_map",
)
GRIDS = {"size_tuning": (7, 7), "rf_map": (7, 9)}
BEFORE_S = 2.0  # grey shown left of the onset; the figures' axis has the onset at 4 s
AFTER_S = 4.0  # predicted after the onset
PEAK_S = 2.1  # 378 frames at 180 Hz: the peak is taken over this long after the onset
STILLS = 8  # frames of a user's movie drawn above its traces

log = logging.getLogger("generate_ca_predictions")


def predict_ensemble(models, contrasts, *, n_frames, tau, who):
    """Return {series: (mean, sd or None)} over the models; series are cell types or neurons.

    ``contrasts`` holds a list of movies per stimulus; the predictions of a list are averaged.
    """
    from predict import predict_movies

    runs = []
    for model in models:
        flat = predict_movies(
            model,
            [frames for group in contrasts for frames in group],
            n_frames=n_frames,
            tau=tau,
            who=who,
        )
        cuts = np.cumsum([len(group) for group in contrasts])[:-1]
        curves = {
            kind: np.stack([part.mean(0) for part in np.split(array, cuts)])
            for kind, array in flat.items()
        }
        if who == "all":
            curves = {
                f"{kind}_n{i}": array[:, i]
                for kind, array in curves.items()
                for i in range(array.shape[1])
            }
        runs.append(curves)
    names = [name for name in runs[0] if all(name in run for run in runs)]
    found = {}
    for name in names:
        stack = np.stack([run[name] for run in runs])  # (models, stimuli, T)
        found[name] = stack.mean(0), stack.std(0, ddof=1) if len(runs) > 1 else None
    return found


def predict_family(
    models,
    family,
    stimuli,
    out,
    *,
    label,
    tau="auto",
    who="mean_param",
    recorded=None,
    variants=None,
):
    """Predict a list of stimuli, write figures and tables; return {series: peaks (stimuli,)}.

    Args:
        models: list of STCNN at one rate.
        family: name used in the files.
        stimuli: list of Stimulus.
        out: folder.
        label: prefix of the figures, the checkpoint's name.
        tau, who: see predict.predict_movies.
        recorded: {barcode: {type: (seconds from onset (T,), (neurons, T))}} to draw behind, or
        None.
        variants: per stimulus the movies whose predictions are averaged, or None for its own movie.
    """
    import torch

    from training import write_csv
    from tuning import tuning_indices
    from util_analysis import plot_peaks, plot_size_tuning, plot_trace_grid

    rate = round(1.0 / models[0].dt)
    lead, n_peak = round(BEFORE_S * rate), round(PEAK_S * rate)
    longest = max(len(stimulus.contrast) for stimulus in stimuli)
    n_after = max(round(AFTER_S * rate), longest)
    variants = variants or [[stimulus.contrast] for stimulus in stimuli]
    contrasts = [
        [torch.cat([frames.new_zeros(lead, *frames.shape[1:]), frames]) for frames in group]
        for group in variants
    ]
    found = predict_ensemble(models, contrasts, n_frames=lead + n_after, tau=tau, who=who)
    seconds = (np.arange(lead + n_after) - lead) / rate + 4.0
    stop = lead + max(n_peak, longest)
    names = [stimulus.label for stimulus in stimuli]
    peaks, spreads, rows, table = {}, {}, [], []
    for series, (mean, sd) in found.items():
        kind = series.split("_n")[0] if who == "all" else series
        behind = None
        if recorded is not None:
            empty = (np.zeros(0), np.zeros((0, 0)))
            behind = [_shifted(recorded.get(s.barcode, {}).get(kind, empty)) for s in stimuli]
        titles = [
            str(s.barcode) if family in ("size_tuning", "looming", "data") else s.label
            for s in stimuli
        ]
        plot_trace_grid(
            out / f"{label}_{series}_{family}.png",
            seconds,
            mean,
            titles,
            shape=GRIDS.get(family) or _grid(len(stimuli)),
            spread=sd,
            recorded=behind,
            onset_s=4.0,
        )
        peaks[series] = mean[:, lead:stop].max(1)
        at = mean[:, lead:stop].argmax(1) + lead
        spreads[series] = None if sd is None else sd[np.arange(len(at)), at]
        for i, stimulus in enumerate(stimuli):
            rows.append(
                {
                    "series": series,
                    "barcode": stimulus.barcode,
                    "stimulus": stimulus.label,
                    "peak": float(peaks[series][i]),
                    "peak_sd": "" if sd is None else float(spreads[series][i]),
                    "peak_time_s": float((at[i] - lead) / rate),
                }
            )
        table.append({"series": series, **tuning_indices(family, stimuli, peaks[series])})
        if family == "size_tuning":
            plot_size_tuning(
                out / f"{label}_{series}_size_peaks.png",
                peaks[series].reshape(7, 7),
                [s.parameters["width_deg"] for s in stimuli[:7]],
                f"{series}: peak response to a dark rectangle",
            )
    if len(stimuli) <= 12:
        spread = spreads if all(value is not None for value in spreads.values()) else None
        plot_peaks(out / f"{label}_{family}_peaks.png", names, peaks, spread=spread, title=family)
    write_csv(out / f"{family}_peaks.csv", rows)
    write_csv(out / f"{family}_indices.csv", table)
    _write_traces(out, family, stimuli, seconds - 4.0, found)
    return peaks


def predict_user_movie(models, movie, out, *, label, tau="auto", who="mean_param"):
    """Predict a user's movie by streaming; memory does not depend on its length.

    Returns {series: (T,) mean curve}.
    """
    from predict import settled_stream
    from training import write_csv
    from util_analysis import plot_movie_traces

    rate = round(1.0 / models[0].dt)
    size = models[0].field
    print(movie.describe(rate_hz=rate, size=size))
    streams = [settled_stream(model, size, tau=tau) for model in models]
    curves, stills, n_done = [{} for _ in models], [], 0
    total = max(1, round(movie.n_frames * rate / movie.rate_hz))
    every = max(1, total // STILLS)
    for piece in movie.pieces(rate_hz=rate, size=size):
        for i in range(len(piece)):
            if (n_done + i) % every == every // 2 and len(stills) < STILLS:
                stills.append(((n_done + i) / rate, piece[i].numpy()))
        n_done += len(piece)
        for model, stream, own in zip(models, streams, curves, strict=True):
            for name, series in _respond(
                model, stream.push(model.pr.sample(piece)[None, :, None]), who
            ):
                own.setdefault(name, []).append(series)
    joined = [{name: np.concatenate(parts) for name, parts in own.items()} for own in curves]
    mean = {name: np.mean([own[name] for own in joined], axis=0) for name in joined[0]}
    seconds = np.arange(n_done) / rate
    name = movie.path.stem
    sd = (
        {key: np.std([own[key] for own in joined], axis=0, ddof=1) for key in mean}
        if len(models) > 1
        else {}
    )
    columns = {"seconds": seconds, **mean, **{f"{key}_sd": value for key, value in sd.items()}}
    with atomic_path(out / f"{name}_traces.npz") as temporary:
        np.savez(temporary, **columns)
    _write_table(out / f"{name}_traces.csv", columns)
    write_csv(
        out / f"{name}_peaks.csv",
        [
            {"series": k, "peak": float(v.max()), "peak_time_s": float(v.argmax() / rate)}
            for k, v in mean.items()
        ],
    )
    plot_movie_traces(
        out / f"{label}_{name}.png",
        [frame for _, frame in stills],
        [second for second, _ in stills],
        seconds,
        mean,
        f"{movie.path.name}: predicted calcium",
    )
    return mean


def animate_layers(model, movie, layers, out):
    """Animate the channels of ``layers`` over the first four seconds of a user's movie."""
    import torch

    from animations import animate_maps

    rate = round(1.0 / model.dt)
    frames, wanted = [], round(AFTER_S * rate)
    for piece in movie.pieces(rate_hz=rate, size=model.field):
        frames.append(piece)
        if sum(map(len, frames)) >= wanted:
            break
    contrast = torch.cat(frames)[:wanted]
    lead = contrast.new_zeros(round(BEFORE_S * rate), *contrast.shape[1:])
    with torch.no_grad():
        maps = model.generate_feature_maps(torch.cat([lead, contrast])[None, :, None])
    unknown = [name for name in layers if name not in maps]
    if unknown:
        raise InputError(f"--feature-maps {', '.join(unknown)}: known layers are {', '.join(maps)}")
    for name in layers:
        shown = maps[name][0, len(lead) :].numpy()
        animate_maps(out / f"{movie.path.stem}_{name}.mp4", shown, name, rate_hz=rate)


def load_models(checkpoints, *, configs, readout, impl, device):
    """Return models and a label of the first checkpoint; all must share rate and field."""
    from checkpoints import load_model, resolve_checkpoint

    models = []
    for i, checkpoint in enumerate(checkpoints):
        path = resolve_checkpoint(checkpoint)
        config = configs[min(i, len(configs) - 1)] if configs else path.parent / "config.json"
        model = load_model(path, config=config, readout=readout, impl=impl, device=device)
        models.append(model)
    if len({(model.dt, model.field) for model in models}) > 1:
        raise InputError(
            "the checkpoints have different frame rates or fields; predict them one by one"
        )
    return models, resolve_checkpoint(checkpoints[0]).stem


def data_stimuli(ca_path, mov_path, model, family, shift):
    """Return (stimuli, shifted movies of each, recorded traces) of a data set.

    Args:
        ca_path, mov_path: folders in the published format.
        model: gives the rate.
        family: size_tuning, looming, grating or data.
        shift: none, first (the published way: as shifted for the first neuron of the stimulus) or
            each (mean over the movies as shifted for every neuron).
    """
    from ca_dataloader import CalciumDataset, Layout, shift_movie
    from recordings import read_movies, read_recordings
    from stimuli import BACKGROUND, Stimulus, make_family

    rate = round(1.0 / model.dt)
    recordings = read_recordings(ca_path, rate_hz=rate)
    movies = read_movies(mov_path, rate_hz=rate)
    dataset = CalciumDataset(recordings, movies, Layout(n_prepad=0, loss_start_s=0.0))
    wanted = None
    if family != "data":
        wanted = {s.barcode: s for s in make_family(family, rate_hz=rate, size=(83, 83))}
    stimuli, recorded, shown = [], {}, {}
    for barcode in sorted({item.barcode for item in dataset.items}):
        if wanted is not None and barcode not in wanted:
            continue
        items = [dataset.items[row] for row in dataset.rows_of("any", barcode)]
        contrast = movies[barcode] - BACKGROUND
        steps = {"none": [(0, 0)], "first": [dataset.pixel_shift(items[0])]}.get(shift)
        steps = steps or sorted({dataset.pixel_shift(item) for item in items})
        shown[barcode] = [shift_movie(contrast, step) for step in steps]
        parameters = wanted[barcode].parameters if wanted else {}
        stimuli.append(Stimulus(barcode, f"vstim_{barcode}", family, shown[barcode][0], parameters))
        for item in items:
            entry = dataset.session_of(item)
            trace = entry["neuron"][item.uid]["traces"].mean(0).numpy()
            own = recorded.setdefault(barcode, {}).setdefault(
                item.cell_type, (entry["t_axis"].numpy(), [])
            )
            if len(own[0]) == len(trace):
                own[1].append(trace)
    if not stimuli:
        raise InputError(f"{ca_path}: no stimulus of the family {family} in these recordings")
    return (
        stimuli,
        [shown[s.barcode] for s in stimuli],
        {
            code: {kind: (t, np.array(traces)) for kind, (t, traces) in kinds.items()}
            for code, kinds in recorded.items()
        },
    )


def _respond(model, activity, who):
    import torch

    for kind, values in activity.items():
        with torch.no_grad():
            response = model.respond(values, kind, who)[0].cpu().numpy()
        if response.ndim == 2:
            yield from ((f"{kind}_n{i}", row) for i, row in enumerate(response))
        else:
            yield kind, response


def _shifted(recorded):
    seconds, traces = recorded
    return seconds + 4.0, traces


def _grid(n):
    return (1, n) if n <= 9 else (-(-n // 8), 8)


def _write_traces(out, family, stimuli, seconds, found):
    arrays = {"seconds": seconds, "barcode": np.array([s.barcode for s in stimuli])}
    for series, (mean, sd) in found.items():
        arrays[series] = mean
        if sd is not None:
            arrays[f"{series}_sd"] = sd
    with atomic_path(out / f"{family}_traces.npz") as temporary:
        np.savez(temporary, **arrays)
    columns = {"seconds": seconds}
    for series, (mean, _) in found.items():
        columns |= {
            f"{series}_vstim_{s.barcode}": row for s, row in zip(stimuli, mean, strict=True)
        }
    _write_table(out / f"{family}_traces.csv", columns)


def _write_table(path, columns):
    with atomic_path(path) as temporary:
        np.savetxt(
            temporary, np.column_stack(list(columns.values())), delimiter=",", fmt="%.6g",
            header=",".join(columns), comments="",
        )  # fmt: skip


def parse(argv):
    """Return the parsed flags."""
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", nargs="+", required=True, help="run folders or checkpoint files")
    add("--config", nargs="+", default=None, help="config.json of each checkpoint (one for all)")
    add("--stimulus", default="size_tuning,looming", help="families, movie files, comma-separated")
    add("--out", type=Path, default=DEFAULT_OUT, help="folder of figures and tables")
    add(
        "--tau", choices=("auto", "legacy"), default="auto", help="indicator: trained, or published"
    )
    add("--who", default="mean_param", help="mean_param, mean_response, all, or a neuron's number")
    add("--readout", choices=("legacy", "center"), default=None, help="default: as in config.json")
    add("--temporal-impl", choices=("recursive", "chunk", "fft", "conv"), default="recursive")
    add(
        "--device",
        choices=("auto", "cpu", "gpu", "cuda"),
        default="auto",
        help="where to compute: auto, cpu, gpu or cuda",
    )
    add("--movie-rate", type=float, default=None, help="Hz of a user's movie")
    add("--deg-per-px", type=float, default=None, help="degrees per pixel of a user's movie")
    add("--ca-path", type=Path, default=None, help="recordings drawn behind the predictions")
    add(
        "--mov-path",
        type=Path,
        default=None,
        help="their movies, used instead of reconstructed ones",
    )
    add(
        "--shift",
        choices=("none", "first", "each"),
        default="none",
        help="show the movies of --mov-path as shifted for no, the first or each neuron",
    )
    add(
        "--feature-maps",
        default=None,
        help="animate these layers, such as norm_layer_3, for a movie",
    )
    add("--debug", action="store_true", help="show the traceback of a fault")
    args = parser.parse_args(argv)
    if args.who not in ("mean_param", "mean_response", "all"):
        if not args.who.isdigit():
            parser.error(f"--who {args.who}: expected mean_param, mean_response, all or a number")
        args.who = int(args.who)
    for name in ("movie_rate", "deg_per_px"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if (args.ca_path is None) != (args.mov_path is None):
        parser.error("--ca-path and --mov-path belong together")
    return args


@one_line_faults
def main(argv=None):
    """Predict every stimulus asked for and say where the results are."""
    args = parse(sys.argv[1:] if argv is None else argv)
    from training import pick_device

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wishes = args.stimulus.split(",")
    raise_faults(
        [
            f"--stimulus {wish}: no family ({', '.join(FAMILIES)}) and no such file"
            for wish in wishes
            if wish not in (*FAMILIES, "data") and not Path(wish).exists()
        ]
    )
    models, label = load_models(
        args.checkpoint, configs=args.config, readout=args.readout, impl=args.temporal_impl,
        device=pick_device(args.device),
    )  # fmt: skip
    if isinstance(args.who, int):
        for kind, parameters in models[0].ca_param.items():
            if args.who >= len(parameters["beta"]):
                raise InputError(
                    f"--who {args.who}: {kind} has {len(parameters['beta'])} neurons, from 0"
                )
    args.out.mkdir(parents=True, exist_ok=True)
    write_settings(
        args.out, {k: str(v) for k, v in vars(args).items()}, libraries=("torch", "numpy")
    )
    predict_all(models, wishes, args, label)
    print(f"predictions: {args.out}")


def predict_all(models, wishes, args, label):
    """Predict families, data and movies in turn."""
    from stimuli import make_family
    from user_movies import UserMovie

    rate = round(1.0 / models[0].dt)
    for wish in wishes:
        if wish not in (*FAMILIES, "data"):
            movie = UserMovie(wish, rate_hz=args.movie_rate, deg_per_px=args.deg_per_px)
            predict_user_movie(models, movie, args.out, label=label, tau=args.tau, who=args.who)
            if args.feature_maps:
                animate_layers(models[0], movie, args.feature_maps.split(","), args.out)
            continue
        recorded = variants = None
        if args.ca_path is not None:
            stimuli, variants, recorded = data_stimuli(
                args.ca_path, args.mov_path, models[0], wish, args.shift
            )
        elif wish == "data":
            raise InputError("--stimulus data needs --ca-path and --mov-path")
        else:
            stimuli = make_family(wish, rate_hz=rate, size=models[0].field)
        predict_family(
            models,
            wish,
            stimuli,
            args.out,
            label=label,
            tau=args.tau,
            who=args.who,
            recorded=recorded,
            variants=variants,
        )


if __name__ == "__main__":
    main()

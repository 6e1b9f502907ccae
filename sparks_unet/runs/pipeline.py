"""The whole story of a run: check the data, train, predict unseen movies, measure, draw, report."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from joblib import Parallel, delayed

from analysis.disc_output_tools import rounding_words
from common.device import describe_device
from common.files import InputError, atomic_path, open_run, read_json
from common.report import close_run
from inputs.dataset_tools import adapted, read_samples
from network.checkpoints import available_iterations, checkpoint_path, load_network
from runs.prediction import Files, predict_and_write
from runs.run_report import write_run_report
from runs.train import calibrations, own_split, prepare, resumed, run, write_record
from runs.training_tools import Place, choose_device, seeded_model, set_up_logging
from settings.config import Params, logger, settings_of

# settings that may differ between two calls of the same run
FREE = (
    "calibration",
    "training.cuda",
    "dataset.num_workers",
    "general.verbosity",
    "general.logfile",
)
# keys of later versions: a run that does not name them was made with these values
LATER = {"postprocessing.wave_rims": 0.0, "postprocessing.split_puffs": 0.0}
BITS = "inference.raw_bits"


def is_complete(run_dir: Path, settings: dict, *, fresh: bool) -> bool:
    """Return whether ``run_dir`` holds a finished run of these settings; clear it when ``fresh``.

    Raises:
        InputError: the folder holds a run of other settings, or files of something else.
    """
    # import_checkpoint.py makes a folder with a network and without settings
    imported = not (run_dir / "settings.json").is_file() and any(run_dir.glob("network_*.pth"))
    return not imported and open_run(
        run_dir, settings, fresh=fresh, free=[*FREE, *_same_by_age(run_dir, settings)]
    )


def _same_by_age(run_dir, settings):
    """Return names of settings that an earlier version wrote otherwise, or not, and meant the same.

    Earlier versions saved probabilities with all bits: they serve who asks for rounded ones.
    """
    try:
        old = read_json(run_dir / "settings.json")["settings"]
    except (InputError, KeyError):
        return []  # open_run tells what is wrong
    if not isinstance(old, dict):
        return []
    names = [one for one, value in LATER.items() if one not in old and settings.get(one) == value]
    return names if old.get(BITS, 0) else [*names, BITS]


def copy_log(run_dir: Path) -> None:
    """Write log.csv, the name that all pipelines share, from the published loss.csv."""
    if (run_dir / "loss.csv").is_file():
        with atomic_path(run_dir / "log.csv") as temporary:
            shutil.copyfile(run_dir / "loss.csv", temporary)


def predict_all(params: Params, place: Place, ids: Sequence[str]) -> dict[str, tuple]:
    """Predict the movies ``ids`` with the newest network; return {id: (sample, results)}.

    On a CPU each thread takes one movie at a time in a process of its own: the event tables and
    overlays cost as much as the network.
    """
    iteration = available_iterations(params.output_dir)[-1]
    model = seeded_model(params, place.device)
    load_network(model, checkpoint_path(params.output_dir, "network", iteration))
    options = {"labels": None, "events": None, "sparks_type": params.sparks_type}
    samples = read_samples(params.data_dir, ids, **options, given=params.given)
    samples = adapted(samples, params)
    workers = 1 if place.device.type == "cuda" else min(torch.get_num_threads(), len(samples))
    folder = params.output_dir / "predictions"
    logger.info("%s", rounding_words(params.raw_bits))
    results = Parallel(n_jobs=workers)(
        delayed(predict_and_write)(
            *(model, sample, params),
            folder / f"{params.run_name}_{iteration}_{sample.id}_{params.inference}",
            Files(overlay="gif"),
        )
        for sample in samples
    )
    return {sample.id: (sample, *one) for sample, one in zip(samples, results, strict=True)}


def say_device(params: Params, wanted: str) -> None:
    """Print where the run computes; the first of the processes of torchrun speaks for all."""
    name, asked = choose_device(params, wanted)
    if int(os.environ.get("RANK", 0)) == 0:
        print(describe_device("torch", name, asked=asked), flush=True)


def story(
    params: Params,
    *,
    device: str = "auto",
    threads: int | None = None,
    fresh: bool = False,
    demo: tuple[dict, Callable[[Path], None], str] | None = None,
) -> int:
    """Run everything for ``params``; return the exit code.

    Args:
        params: Params.
        device, threads: of ``pick_place``.
        fresh: start the run anew.
        demo: None for own data, or (settings of the synthetic movies as a dict, function of the
            data folder that makes them, id of the movie without events).
    """
    started = time.time()
    if demo is None:
        set_up_logging(params)
        params = own_split(params)
    extra = {} if demo is None else {"demo": demo[0]}
    settings = settings_of(params) | extra
    if not fresh and is_complete(params.output_dir, settings, fresh=False):
        print(f"{params.output_dir} is complete; --fresh starts anew")
        return close_run(params.output_dir)
    say_device(params, device)  # before --fresh removes a run: it may be refused
    is_complete(params.output_dir, settings, fresh=fresh)
    control_id = None
    if demo is not None:
        _, make_movies, control_id = demo
        make_movies(params.data_dir)
    todo = resumed(params)
    place, train, val = prepare(todo, device=device, threads=threads)
    if place.first:
        samples = [*(train or []), *val]
        write_record(params, samples, calibration=calibrations(samples), **extra)
    if params.training:
        resuming = todo is not params
        run(dataclasses.replace(todo, testing=False), place, train, val, resuming=resuming)
    if not place.first:
        return 0
    ids = [*params.ids("test"), *([control_id] if demo else [])]
    results = predict_all(params, place, ids)
    copy_log(params.output_dir)
    write_run_report(params, results, control_id=control_id, started=started)
    return close_run(params.output_dir)

"""A training from its data to its last validation: checks, record, run, and the dry run.

Source: section 7 of the specification (training of the paper, Cell Calcium 2024, 102893).
"""

import dataclasses
from collections.abc import Iterable

import torch

from common.files import (
    InputError,
    atomic_path,
    read_json,
    write_json,
    write_settings,
)
from common.hashes import check_hashes
from common.locks import hold
from inputs.dataset_tools import Sample, adapted, read_samples
from inputs.datasets import SparkDataset
from inputs.movie_io import movie_ids
from inputs.preprocessing import count_chunks, padding
from network.architecture import build_model
from network.checkpoints import available_iterations
from runs.training_tools import (
    Place,
    TrainingRun,
    open_loggers,
    pick_place,
    rows_before,
    set_up_logging,
)
from settings.config import (
    TEST_IDS,
    TRAIN_IDS,
    Params,
    describe,
    logger,
    settings_of,
    to_dict,
    to_ini,
)

LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "connected-components-3d", "tifffile")


def resumed(params: Params) -> Params:
    """Return ``params`` that continue the run from its newest checkpoint up to train_epochs."""
    iterations = available_iterations(params.output_dir)
    if not iterations:
        return params
    done = min(iterations[-1], params.train_epochs)
    logger.info("resuming after iteration %d of %d", done, params.train_epochs)
    if done == params.train_epochs:
        print(f"all {done} iterations are trained already")
    return dataclasses.replace(
        params, load_run_name="", load_epoch=done, train_epochs=params.train_epochs - done
    )


def check_run_folder(params: Params) -> None:
    """Refuse to mix a new run with the checkpoints of another one."""
    iterations = available_iterations(params.output_dir)
    newer = [n for n in iterations if n > params.load_epoch]
    own = params.load_epoch and params.load_dir == params.output_dir
    if params.training and (newer or (iterations and not own)):
        raise InputError(
            f"{params.output_dir}: holds a run with checkpoints up to iteration {iterations[-1]}; "
            f"use --resume, load_epoch = {iterations[-1]}, another run_name, or remove the folder"
        )


def read_data(params: Params) -> tuple[list[Sample] | None, list[Sample]]:
    """Return (training samples or None, validation samples) of the configuration."""

    def read(ids, **options):
        options |= {"sparks_type": params.sparks_type, "given": params.given}
        samples = read_samples(params.data_dir, ids, **options)
        return adapted(samples, params)

    train = read(params.ids("train")) if params.training else None
    return train, read(params.ids("val"), events=True)


def memory_estimate(params: Params, shape: tuple[int, int]) -> tuple[int, int]:
    """Return (parameters, bytes of the activations of one training batch).

    The network runs without data (meta tensors); every layer's output is counted once.
    """

    with torch.device("meta"):
        model = build_model(params)
        x = torch.empty(params.batch_size, params.input_channels, params.data_duration, *shape)
    sizes = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _m, _i, output: sizes.append(output.numel()))
    model(x)
    return sum(p.numel() for p in model.parameters()), 4 * sum(sizes)


def dry_run(params: Params) -> None:
    """Print the settings, the size of the data sets and of the network."""
    print("\n".join(describe(params)))
    train, val = read_data(dataclasses.replace(params, training=True))
    for title, samples, (duration, stride) in (
        ("training", train, (params.data_duration, params.data_stride)),
        ("validation", val, params.chunk),
    ):
        frames = [len(sample.movie.data) for sample in samples]
        chunks = [
            count_chunks(n + sum(padding(n, duration, stride)), duration, stride) for n in frames
        ]
        print(f"{title}: {len(samples)} movies, {sum(frames)} frames, {sum(chunks)} chunks")
    parameters, activations = memory_estimate(params, train[0].movie.data.shape[1:])
    states = 16 * parameters  # weights, gradients and two moments of Adam, float32
    print(
        f"network: {parameters} parameters; estimate for training: {activations / 1e9:.2f} GB of "
        f"activations (batch {params.batch_size}) + {states / 1e9:.2f} GB of weights and optimiser"
    )


def _refuse_leaks(train, val):
    """Refuse a recording that is in the training and in the validation, under one name or two."""
    seen = {one.movie.sha256: one.id for one in train or () if one.movie.sha256}
    for one in val:
        if one.movie.sha256 in seen:
            raise InputError(
                f"{one.movie.source}: the movie of id {one.id} is also trained on (id "
                f"{seen[one.movie.sha256]}): measures would be too good; change [dataset] "
                "train_ids, test_ids or val_ids"
            )


def own_split(params: Params) -> Params:
    """Return ``params`` with ids where the folder holds none of the published recordings.

    Without train_ids and test_ids every fourth movie, in the order of ids, is for the test.
    """
    if params.train_ids or params.test_ids or not params.data_dir.is_dir():
        return params
    available = movie_ids(params.data_dir)
    if len(available) < 2 or set(available) & set(TRAIN_IDS + TEST_IDS):
        return params
    test = tuple(available[3::4]) or (available[-1],)
    train = tuple(one for one in available if one not in test)
    logger.warning(
        "%s holds none of the published ids: trained on %s, tested on %s; choose with [dataset] "
        "train_ids and test_ids (--set dataset.test_ids=...)",
        *(params.data_dir, " ".join(train), " ".join(test)),
    )
    return dataclasses.replace(params, train_ids=train, test_ids=test)


def input_hashes(samples: Iterable[Sample]) -> dict[str, str]:
    """Return {file name: SHA-256} of the movies that were read, taken while reading."""
    movies = [sample.movie for sample in samples]
    return {movie.source.name: movie.sha256 for movie in movies if movie.sha256}


def _check_inputs(folder, samples):
    """Refuse to go on with a run whose movies are no longer those that it began with."""
    path = folder / "settings.json"
    recorded = read_json(path).get("inputs") if path.is_file() else None
    if recorded:
        # the record of an older version may hold fewer movies
        present = {n: sha for n, sha in input_hashes(samples).items() if n in recorded}
        recorded = {name: sha for name, sha in recorded.items() if name in present}
        check_hashes(folder, recorded, present)


def write_record(params: Params, samples: Iterable[Sample], **more: object) -> None:
    """Write the resolved settings of the run before work starts; ``more`` joins settings.json."""
    folder = params.output_dir
    inputs = input_hashes(samples)
    write_settings(folder, settings_of(params) | more, inputs=inputs, libraries=LIBRARIES)
    write_json(folder / "params.json", to_dict(params))
    with atomic_path(folder / "config.ini") as temporary:
        temporary.write_text(to_ini(params), encoding="utf-8")


def prepare(
    params: Params, *, device: str = "auto", threads: int | None = None
) -> tuple[Place, list[Sample] | None, list[Sample]]:
    """Check folder and data, open the log, choose the device.

    Returns:
        (Place, training samples or None, validation samples).
    """
    folder = params.output_dir
    hold(folder)
    check_run_folder(params)
    train, val = read_data(params)
    _refuse_leaks(train, val)
    if params.load_epoch and params.load_dir == folder:
        _check_inputs(folder, [*(train or []), *val])
    try:
        set_up_logging(params, folder / "log.txt")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); choose another folder") from None
    tell_calibrations([*(train or []), *val])
    return pick_place(params, device, threads), train, val


def tell_calibrations(samples: Iterable[Sample]) -> None:
    """Log the scale of recordings and its origin, once for all that share it."""
    ids = {}
    for sample in samples:
        ids.setdefault(sample.movie.calibration.line(), []).append(sample.id)
    for line, names in ids.items():
        logger.info("%s: %s", ", ".join(names), line)


def calibrations(samples: Iterable[Sample]) -> dict[str, dict]:
    """Return {id: values and origins} of recordings for settings.json."""
    return {sample.id: sample.movie.calibration.record() for sample in samples}


def run(
    params: Params,
    place: Place,
    train: list[Sample] | None,
    val: list[Sample],
    *,
    resuming: bool = False,
) -> tuple[dict, list[dict]] | None:
    """Train and validate as ``params`` say; return the last (metrics, per-movie counts) or None.

    Args:
        params, place, train, val: of ``prepare``.
        resuming: go on with an interrupted run, so that it ends as if it had not been: what it
            loads is validated only where the undisturbed run does that too. Without it a network
            that is loaded is always validated first (published rule for load_epoch).
    """
    folder = params.output_dir
    dataset = SparkDataset(train, params, augment=True) if params.training else None
    training_run = TrainingRun(params, dataset, val, place)
    if params.load_epoch:
        training_run.load(params.load_dir, params.load_epoch)
    if place.first:
        for line in describe(params):
            logger.debug(line)
        rows_before(folder / "loss.csv", params.load_epoch)
        rows_before(folder / "metrics.csv", params.load_epoch)
        training_run.loggers = open_loggers(params, folder)
    due = not resuming or params.load_epoch % params.test_every == 0
    result = None
    if params.load_epoch and params.training and due:
        result = training_run.validate()
    if params.training and not (resuming and params.train_epochs == 0):
        try:
            training_run.train(params.train_epochs)
        except KeyboardInterrupt:
            training_run.save()
            logger.warning("stopped at iteration %d; --resume goes on", training_run.iteration)
            raise
    if params.testing and training_run.validated_at == training_run.iteration:
        return training_run.validated
    return training_run.validate() if params.testing else result

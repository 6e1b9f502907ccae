"""Cut recordings (.mat) into normalised epochs and store them in TFRecord shards.

Follows section 2.2 of the paper's preprocessing (specification section 5).
"""

import argparse
import contextlib
import gzip
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import joblib
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from common.cluster import run_jobs
from common.files import InputError, atomic_path, raise_faults, write_json
from common.hashes import hashed_file
from common.limits import check_free_space
from common.locks import writing
from inputs.hypnogram import mouse_names
from inputs.names import files_below
from inputs.preprocess import (
    NORMALIZE,
    BlockAverage,
    Composition,
    compose,
    frames_of,
    still_text,
    to_frames,
    unchanged,
)
from inputs.recordings import Name, Recording, find_recordings, map_labels, parse_name, size_faults
from inputs.scores import doubt_lines
from inputs.shards import (
    FORMAT,
    MANIFEST,
    REFERENCE_NAME,
    SIZE_128,
    describe,
    read_manifest,
    read_shard_index,
    walk,
)
from inputs.states import FRAME_RATE_HZ, RATE_ORIGIN, STATE_NAMES
from inputs.storage import Conversion, Storage

log = logging.getLogger(__name__)
MOSTLY_NAN = 0.5  # fraction of missing values in the mask that raises a warning
GZIP_SHARE = 0.5  # of their size that compressed signals take at least
ALL_RECORDINGS = Conversion()


def epochs_of(
    recording: Recording, how: Storage, *, labelled: bool = True
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Yield the normalised epochs of an open recording, in time order.

    Args:
        recording: an open recording.
        how: composition, block averaging and normalisation.
        labelled: leave out artifacts and map the codes; otherwise every epoch comes, with label -1.

    Yields:
        (epoch, label, mask (H, W) bool, signals (F, P) float32).
    """
    labels = (
        map_labels(recording, unknown=how.unknown) if labelled else np.full(recording.shape[0], -1)
    )
    average = BlockAverage(recording.mask, how.downsample) if how.downsample > 1 else None
    mask = average.mask if average else recording.mask
    composition = Composition(how.seconds, how.edge, how.artifact_neighbours == "use")
    recent = {}  # an epoch serves itself and both neighbours: read from the disk once
    still = np.arange(int(recording.mask.sum()))  # pixels that have not changed so far

    def read(epoch):
        nonlocal still
        if epoch not in recent:
            for old in [e for e in recent if e < epoch - 2]:
                del recent[old]
            signals = recording.read(epoch)
            still = unchanged(signals, still)
            recent[epoch] = average(signals) if average else signals
        return recent[epoch]

    for epoch in np.flatnonzero((labels >= 0) | (not labelled)):
        signals = compose(read, int(epoch), composition, is_artifact=recording.is_artifact)
        if signals is None:
            continue
        missing = np.isnan(signals).mean()
        if missing > MOSTLY_NAN:
            log.warning(
                "%s: epoch %d is %.0f %% NaN inside the mask", recording.path, epoch, 100 * missing
            )
        signals, infinite = NORMALIZE[how.normalization](signals)
        if infinite:
            log.warning(
                "%s: epoch %d has %d pixels with infinite values, set to 0",
                recording.path,
                epoch,
                infinite,
            )
        yield int(epoch), int(labels[epoch]), mask, signals
    if recent and (text := still_text(still.size, int(recording.mask.sum()))):
        log.warning("%s: %s", recording.path, text)


def serialise(features: dict) -> bytes:
    """Return a tf.train.Example with one feature per key (bytes, float, int, or float array)."""
    example = tf.train.Example()
    for key, value in features.items():
        # Filled in place: messages put into messages are copied, megabytes each.
        feature = example.features.feature[key]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, np.ndarray):
            feature.float_list.value.extend(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def shard_path(recording_path: Path, des_path: Path, seconds: int) -> Path:
    """Return `<des_path>/<date>/<date>-<mouse>-fc<n>_<S>s.tfrecord`."""
    name = parse_name(recording_path)
    return des_path / name.date / f"{name.date}-{name.mouse}-fc{name.run}_{seconds}s.tfrecord"


def check_half(values: np.ndarray) -> None:
    """Raise an InputError for values that float16 turns into infinity, or keeps no digits of."""
    peak = float(np.abs(values).max(initial=0))
    limits = np.finfo(np.float16)
    if peak > float(limits.max) or 0 < peak < float(limits.tiny):
        raise InputError(
            f"values reach {peak:g}: float16 holds {limits.tiny:.1g} to {limits.max:g}; give "
            "--dtype float32, or a --normalization other than none"
        )


def _signal_bytes(signals: np.ndarray, mask: np.ndarray, how: Storage) -> dict:
    values = to_frames(signals, mask) if how.layout == "dense" else signals.T  # (F, H, W) or (P, F)
    if how.dtype == "float16":
        check_half(values)
    raw = np.ascontiguousarray(values, "<f2" if how.dtype == "float16" else "<f4").tobytes()
    return {"x_gzip": gzip.compress(raw, 6, mtime=0)} if how.compression == "gzip" else {"x": raw}


def spool_folder(path: Path) -> Path:
    """Return the folder of ``path``, made if need be: there is room for a recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


@contextlib.contextmanager
def identified(source: Path, mask_file: Path | None) -> Iterator[dict]:
    """Yield what the index keeps to tell whether a shard is of this very source and mask.

    Raises:
        InputError: one of the two changed during the block, so that it may be of neither state.
    """
    with hashed_file(source) as own, contextlib.ExitStack() as stack:
        mask = stack.enter_context(hashed_file(mask_file)).sha256 if mask_file else None
        size = os.fstat(own.handle.fileno()).st_size
        yield {"source_bytes": size, "source_sha256": own.sha256, "mask_sha256": mask}


def write_shard(source: Path, des_path: Path, how: Storage, mask_file: Path | None = None) -> dict:
    """Write the shard and the index of one recording; return the index."""
    path = shard_path(source, des_path, how.seconds)
    rows = []
    spool = spool_folder(path)
    with (
        atomic_path(path) as temporary,
        identified(source, mask_file) as known,
        Recording(source, mask_file=mask_file, codes=how.codes, spool_dir=spool) as recording,
    ):
        name, recording_codes = recording.name, recording.raw_labels
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for kept, (epoch, label, mask, signals) in enumerate(epochs_of(recording, how)):
                shared = {
                    "base": source.stem.encode(),
                    "date": name.date.encode(),
                    "mouse": name.mouse.encode(),
                    "run": name.run,
                    "height": mask.shape[0],
                    "width": mask.shape[1],
                    "frames": len(signals),
                    "fs": FRAME_RATE_HZ,
                    "dense": int(how.layout == "dense"),
                }
                own = {
                    "label": label,
                    "raw_label": int(recording.raw_labels[epoch]),
                    "epoch": epoch,
                    "kept": kept,
                }
                signal = _signal_bytes(signals, mask, how)
                payload = serialise(
                    {**shared, **own, **signal, "mask": np.packbits(mask).tobytes()}
                )
                writer.write(payload)
                rows.append(own)
        if not rows:
            raise InputError(
                f"{source}: no epoch is left after artifacts are dropped; leave this recording out"
            )
        for row, (offset, length) in zip(rows, walk(temporary), strict=True):
            row.update(offset=offset, length=length)
        index = describe(temporary, rows, shared)
    index["codes"] = [int(code) for code in recording_codes]
    index["storage"] = asdict(how)
    index |= known
    write_json(path.with_suffix(".index.json"), index)
    return index


def write_reference(
    source: Path, des_path: Path, how: Storage, mask_file: Path | None = None
) -> dict:
    """Write one published file per epoch, `<base>_epoch<k>.tfrecords`; return its index.

    Files of this recording that an earlier call left and this one does not write are removed.
    """
    rows, older = [], reference_files(des_path).get(source.stem, [])
    folder = des_path / parse_name(source).date
    spool = spool_folder(folder / "x")
    opened = Recording(source, mask_file=mask_file, codes=how.codes, spool_dir=spool)
    with opened as recording:
        for kept, (epoch, label, mask, signals) in enumerate(epochs_of(recording, how)):
            dense = to_frames(signals, mask).transpose(1, 2, 0)  # (H, W, F)
            target = folder / f"{source.stem}_epoch{kept}.tfrecords"
            payload = serialise({"features": dense.ravel(), "label": label})
            with atomic_path(target) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
                writer.write(payload)
            rows.append({"epoch": epoch, "label": label})
        written = {folder / f"{source.stem}_epoch{kept}.tfrecords" for kept in range(len(rows))}
        for path in set(older) - written:
            path.unlink()
        shape = (
            {"frames": len(signals), "height": mask.shape[0], "width": mask.shape[1]}
            if rows
            else {}
        )
        return {"base": source.stem, "date": recording.name.date, "records": rows, **shape}


def reference_files(des_path: Path) -> dict[str, list[Path]]:
    """Map the stem of every recording to its published files below ``des_path``."""
    files = {}
    for path in files_below(des_path, "*.tfrecords"):
        if named := REFERENCE_NAME.match(path.name):
            files.setdefault(named["base"], []).append(path)
    return files


def is_complete(source: Path, des_path: Path, how: Storage, mask_file: Path | None = None) -> bool:
    """Tell whether the shard is there, whole, of these settings, this source and this mask.

    The content of the source is compared: scores that are corrected in place leave its size alone.
    """
    path = shard_path(source, des_path, how.seconds)
    try:
        index = json.loads(path.with_suffix(".index.json").read_text(encoding="utf-8"))
        if index["storage"] != asdict(how) or index["bytes"] != path.stat().st_size:
            return False
        if index["source_bytes"] != source.stat().st_size:
            return False
        with identified(source, mask_file) as known:
            return all(index[key] == value for key, value in known.items())
    except (OSError, ValueError, KeyError):
        return False


def _convert(source: Path, des_path: Path, how: Storage, mask_file: Path | None) -> dict:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    write = write_reference if how.reference_format else write_shard
    return write(source, des_path, how, mask_file)


def write_dataset_json(
    des_path: Path, how: Storage, indexes: list[dict], sources: list[Path]
) -> None:
    """Write `dataset.json`: settings, counts per label and mouse, sources and software versions.

    Sources of earlier calls stay as long as their shard is there.
    """
    counts, bases = {}, {index["base"] for index in indexes}
    earlier = read_manifest(des_path).get("sources", {})
    kept = {name: size for name, size in earlier.items() if Path(name).stem in bases}
    for index, mouse in zip(
        indexes, mouse_names([Name(i["date"], i["mouse"], 0) for i in indexes]), strict=True
    ):
        row = counts.setdefault(mouse, dict.fromkeys(STATE_NAMES[3], 0))
        for record in index["records"]:
            row[STATE_NAMES[3][record["label"]]] += 1
    first = indexes[0]
    write_json(
        des_path / MANIFEST,
        {
            "format": FORMAT,
            **asdict(how),
            "fs": FRAME_RATE_HZ,
            "fs_origin": RATE_ORIGIN,
            **{key: first[key] for key in ("frames", "height", "width")},
            "counts": counts,
            "sources": kept | {path.name: path.stat().st_size for path in sources},
            "source_sha256": {
                i["base"]: i["source_sha256"] for i in indexes if "source_sha256" in i
            },
            "versions": {
                name: importlib.metadata.version(name) for name in ("numpy", "h5py", "tensorflow")
            },
        },
    )


def _check_target(des_path: Path, how: Storage, sizes: dict[Path, tuple], call: Conversion) -> None:
    """Refuse to mix settings or frame sizes in one folder, or to replace files that nobody asked to
    replace.
    """
    held, sources = read_manifest(des_path), list(sizes)
    if held:
        wanted = asdict(how) | dict(zip(("height", "width"), sizes[sources[0]], strict=True))
        differing = [
            key
            for key, value in wanted.items()
            if held.get(key, getattr(Storage, key, value)) != value
        ]
        if differing:
            raise InputError(
                f"{des_path / MANIFEST}: made with another {', '.join(differing)}; give another "
                "--des_path"
            )
    other = "*.tfrecord" if how.reference_format else "*.tfrecords"
    if strange := files_below(des_path, other):
        raise InputError(
            f"{strange[0]}: is of the other format, both would be read as different epochs; give "
            "another --des_path"
        )
    published = reference_files(des_path)
    ours = {parse_name(source): source for source in sources}
    for stem, paths in published.items():
        own = ours.get(parse_name(paths[0]))
        if own is not None and own.stem != stem:
            raise InputError(
                f"{paths[0]}: is an epoch of the run that {own} holds, from another file; both "
                "would be counted: give another --des_path"
            )
    if call.overwrite or call.resume:
        return
    if how.reference_format:
        old = [path for source in sources for path in published.get(source.stem, [])]
    else:
        old = [
            path
            for source in sources
            if (path := shard_path(source, des_path, how.seconds)).is_file()
        ]
    if old:
        raise InputError(
            f"{old[0]}: is already there ({len(old)} in all); give --resume or --overwrite"
        )


def room_for(recording: Recording, how: Storage) -> int:
    """Return the bytes that the epochs of a recording take, before gzip."""
    epochs, height, width = recording.shape
    dense = how.layout == "dense" or how.reference_format
    pixels = (height * width if dense else int(recording.mask.sum())) // how.downsample**2
    item = 2 if how.dtype == "float16" and not how.reference_format else 4
    return epochs * (pixels * frames_of(how.seconds) * item + 4096)


def create(
    data_path: Path, des_path: Path, how: Storage, call: Conversion = ALL_RECORDINGS
) -> list[dict]:
    """Convert every recording below ``data_path``; check all of them before the first is written.

    Returns:
        the index of every recording, in order of date, mouse and run.
    """
    frames_of(how.seconds)
    if call.workers < 1:
        raise InputError(f"workers is {call.workers}: expected 1 or more")
    with writing(des_path):
        sources = find_recordings(data_path, mice=call.mice, pattern=call.pattern)
        return _create(sources, des_path, how, call)


def _create(sources: list[Path], des_path: Path, how: Storage, call: Conversion) -> list[dict]:
    """Check the recordings ``sources``, then convert them; the folder is this process's own."""
    faults, sizes, codes, rooms = [], {}, {}, {}
    for source in sources:
        try:
            with Recording(source, mask_file=call.mask_file, codes=how.codes) as recording:
                map_labels(recording, unknown=how.unknown)
                animal = f"{recording.name.date}-{recording.name.mouse}"
                codes.setdefault(animal, []).append(recording.raw_labels)
                rooms[source] = room_for(recording, how)
                sizes[source] = tuple(n // how.downsample for n in recording.shape[1:])
        except InputError as error:
            faults.append(str(error))
    faults += size_faults(sizes)
    if how.reference_format:
        # Such files do not hold their shape: another one would be read as scrambled pixels.
        faults += [
            f"{source}: --reference_format holds frames of {SIZE_128} x {SIZE_128} pixels, these "
            f"are {size[0]} x {size[1]} after --downsample {how.downsample}: leave "
            "--reference_format out"
            for source, size in sizes.items()
            if size != (SIZE_128, SIZE_128)
        ]
    raise_faults(faults)
    _check_target(des_path, how, sizes, call)
    for line in doubt_lines(codes, how.codes):
        log.warning("%s", line)
    todo = sources
    if call.resume and not how.reference_format:
        todo = [s for s in sources if not is_complete(s, des_path, how, call.mask_file)]
    share = GZIP_SHARE if how.compression == "gzip" else 1
    check_free_space(des_path, sum(rooms[s] for s in todo) * share, "the tfrecords")
    jobs = (joblib.delayed(_convert)(source, des_path, how, call.mask_file) for source in todo)
    workers = min(call.workers, max(1, len(todo)))
    made = run_jobs(jobs, workers, cluster=call.cluster, folder=des_path)
    written = list(tqdm(made, total=len(todo), desc="recordings", disable=None))
    if how.reference_format:
        return written
    indexes = [read_shard_index(path) for path in files_below(des_path, "*.tfrecord")]
    write_dataset_json(des_path, how, indexes, sources)
    return [read_shard_index(shard_path(source, des_path, how.seconds)) for source in sources]


def convert(args: argparse.Namespace) -> None:
    """Convert the recordings that the flags ``args`` of storage.build_parser name."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    how = Storage(**{key: getattr(args, key) for key in asdict(Storage())})
    indexes = create(
        args.data_path,
        args.des_path,
        how,
        Conversion(
            mice=args.mice,
            pattern=args.pattern,
            mask_file=args.mask,
            workers=args.workers,
            cluster=args.cluster,
            overwrite=args.overwrite,
            resume=args.resume,
        ),
    )
    epochs = sum(len(index["records"]) for index in indexes)
    log.info("%d epochs of %d recordings in %s", epochs, len(indexes), args.des_path)

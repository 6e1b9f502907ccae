"""Read and write sleep epochs in TFRecord files: one shard per run, or the published one file per
epoch.

A shard record is a tf.train.Example with the signals of one epoch as raw bytes; beside each shard
lies an index (offset, length, label, epoch of every record) that allows a global shuffle by
``os.pread``.
Reading needs no TensorFlow: the few fields of a record are found by walking its protocol-buffer
tags, and the signals are taken from the bytes without a copy; the checksums of the TFRecord frame
are compared as TensorFlow does. Writing goes through TensorFlow.
Source: specification sections 4.3 and 4.4.
"""

import gzip
import json
import logging
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from common.files import InputError, write_json
from common.limits import check_shape
from common.names import file_name
from inputs.names import files_below, parse_name
from inputs.preprocess import to_frames
from inputs.states import FRAME_RATE_HZ

log = logging.getLogger(__name__)
FORMAT = 1
MANIFEST = "dataset.json"
SIZE_128 = 128  # rows and columns of the published one-epoch files
HEADER_BYTES = 12  # length (8), its checksum (4); the payload is followed by 4 bytes of checksum
REFERENCE_NAME = re.compile(r"(?P<base>.+)_epoch(?P<kept>\d+)\.tfrecords$")
FLOATS, INTEGERS = 2, 3  # field numbers of tf.train.Feature
CRC_MASK = 0xA282EAD8  # added to the rotated checksum by the TFRecord format


@dataclass(frozen=True)
class Record:
    """Where one epoch lies and what it is.

    Attributes:
        path: file that holds it.
        offset, length: position and size of the payload in bytes.
        label: 0 wake, 1 NREM, 2 REM; -1 unknown.
        date, mouse, run: from the name of the recording.
        epoch: index in the recording, before artifacts are dropped; in a published file the index
            kept.
        kept: index among the epochs kept.
        frames, height, width: shape of the stored epoch.
        name: published name of the epoch, `<base>_epoch<k>.tfrecords`, by which splits are sorted.
    """

    path: Path
    offset: int
    length: int
    label: int
    date: str
    mouse: str
    run: int
    epoch: int
    kept: int
    frames: int
    height: int
    width: int
    name: str


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return (value, next position) of a protocol-buffer variable-length integer."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(payload) -> dict[str, tuple[int, int, int]]:
    """Map every feature of an Example to (kind, start, stop) of its list within ``payload``."""
    fields = {}
    tag, at = _varint(payload, 0)
    length, at = _varint(payload, at)
    stop = at + length
    if tag != 0x0A or stop > len(payload):
        raise ValueError("no tf.train.Example")
    while at < stop:
        tag, at = _varint(payload, at)
        length, at = _varint(payload, at)
        end = at + length
        if tag != 0x0A or end > stop:
            raise ValueError("a feature runs past the end of the record")
        key, kind, bounds = "", 0, (end, end)
        while at < end:
            tag, at = _varint(payload, at)
            length, at = _varint(payload, at)
            if tag == 0x0A:
                key = bytes(payload[at : at + length]).decode("utf-8")
            elif tag == 0x12 and length:
                tag, inner = _varint(payload, at)
                size, inner = _varint(payload, inner)
                kind, bounds = tag >> 3, (inner, inner + size)
            at += length
        fields[key] = (kind, *bounds)
    return fields


def _value(payload, field: tuple[int, int, int]):
    """Decode one feature: bytes as memoryview, floats as array, integers as int."""
    kind, start, stop = field
    if start == stop:
        return b""
    tag, at = _varint(payload, start)
    size, at = _varint(payload, at)
    if kind == INTEGERS and tag == 0x08:  # not packed
        return _varint(payload, start + 1)[0]
    if kind == INTEGERS:
        return _varint(payload, at)[0]
    if kind == FLOATS and tag != 0x0A:
        raise ValueError("its floats are not packed")
    part = memoryview(payload)[at : at + size]
    return np.frombuffer(part, "<f4") if kind == FLOATS else part


def _signed(value: int) -> int:
    """Return a stored 64-bit integer, which is walked as an unsigned one, with its sign."""
    return value if value < 2**63 else value - 2**64


def _text(value) -> str:
    return bytes(value).decode("utf-8")


def masked_crc(data: bytes) -> bytes:
    """Return the checksum of ``data`` as a TFRecord holds it: CRC-32C, rotated and offset."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + CRC_MASK) & 0xFFFFFFFF)


def read_payload(record: Record) -> bytes:
    """Read the payload of a record and compare its checksum.

    Raises:
        InputError: the file is truncated or its bytes are damaged.
    """
    with open(record.path, "rb") as handle:
        payload = os.pread(handle.fileno(), record.length, record.offset)
        checksum = os.pread(handle.fileno(), 4, record.offset + record.length)
    if len(payload) != record.length or len(checksum) != 4:
        raise InputError(
            f"{record.path}: ends within epoch {record.epoch}; it is truncated: create it again"
        )
    if masked_crc(payload) != checksum:
        raise InputError(
            f"{record.path}: the bytes of epoch {record.epoch} do not have their checksum; they "
            "are damaged: create it again"
        )
    return payload


def checksums(records: list[Record]) -> list[bytes]:
    """Return the stored checksum (4 bytes) of every record's payload, the payload unread."""
    places, sums = {}, [b""] * len(records)
    for i, record in enumerate(records):
        places.setdefault(record.path, []).append(i)
    for path, own in places.items():
        with open(path, "rb") as handle:
            for i in own:
                at = records[i].offset + records[i].length
                sums[i] = os.pread(handle.fileno(), 4, at)
    return sums


def read_epoch(record: Record) -> np.ndarray:
    """Return the frames of a record, (F, H, W) float32, normalised, 0 outside the mask."""
    payload = read_payload(record)
    try:
        fields = _fields(payload)
        if _signed(_value(payload, fields["label"])) != record.label:
            raise ValueError("its label is not the one of the index")
        if "features" in fields:
            floats = _value(payload, fields["features"])
            return np.ascontiguousarray(
                floats.reshape(record.height, record.width, -1).transpose(2, 0, 1)
            )
        return _decode_shard(payload, fields)
    except (ValueError, IndexError, KeyError, struct.error, OSError, EOFError) as error:
        raise InputError(
            f"{record.path}: epoch {record.epoch} cannot be decoded ({error}); create it again"
        ) from error


def _decode_shard(payload, fields) -> np.ndarray:
    height, width, frames = (_value(payload, fields[key]) for key in ("height", "width", "frames"))
    if "x_gzip" in fields:
        raw = gzip.decompress(_value(payload, fields["x_gzip"]))
    else:
        raw = _value(payload, fields["x"])
    packed = _value(payload, fields["mask"])
    mask = np.unpackbits(np.frombuffer(packed, np.uint8), count=height * width).astype(bool)
    pixels = height * width if _value(payload, fields["dense"]) else int(mask.sum())
    kind = "<f4" if len(raw) == 4 * pixels * frames else "<f2"
    values = np.frombuffer(raw, kind)
    if pixels == height * width and _value(payload, fields["dense"]):
        return values.astype(np.float32, copy=False).reshape(frames, height, width)
    signals = values.reshape(pixels, frames)
    return to_frames(signals.T.astype(np.float32, copy=False), mask.reshape(height, width))


def read_mask_of(record: Record) -> np.ndarray:
    """Return the brain mask (H, W) bool of a record; of a published file, the pixels that are not
    all zero.
    """
    payload = read_payload(record)
    fields = _fields(payload)
    if "mask" not in fields:
        return (read_epoch(record) != 0).any(axis=0)
    packed = np.frombuffer(_value(payload, fields["mask"]), np.uint8)
    return (
        np.unpackbits(packed, count=record.height * record.width)
        .astype(bool)
        .reshape(record.height, record.width)
    )


def walk(path: Path) -> list[tuple[int, int]]:
    """List (payload offset, length) of every record by its header, without reading the payloads."""
    size, at, places = path.stat().st_size, 0, []
    with open(path, "rb") as handle:
        while at < size:
            header = os.pread(handle.fileno(), HEADER_BYTES, at)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER_BYTES else size
            if len(header) == HEADER_BYTES and masked_crc(header[:8]) != header[8:]:
                raise InputError(
                    f"{path}: the header of record {len(places)} is damaged; create the file again"
                )
            if at + HEADER_BYTES + length + 4 > size:
                raise InputError(
                    f"{path}: record {len(places)} is cut off at byte {size}; create the file again"
                )
            places.append((at + HEADER_BYTES, length))
            at += HEADER_BYTES + length + 4
    if not places:
        raise InputError(f"{path}: holds no record; create the file again")
    return places


def small_fields(path: Path, offset: int, length: int, *, limit: int = 4096) -> dict:
    """Decode the features of a record that are shorter than ``limit`` bytes; skip the signals
    unread.

    Returns:
        feature name -> value; ``"<name> bytes"`` -> size for a feature that is skipped.
    """
    with open(path, "rb") as handle:

        def fetch(at, n):
            return os.pread(handle.fileno(), min(n, offset + length - at), at)

        values, at = {}, offset
        head = fetch(at, 20)
        _, step = _varint(head, 0)
        _, step = _varint(head, step)
        at += step
        while at < offset + length:
            head = fetch(at, 64)
            _, step = _varint(head, 0)
            size, step = _varint(head, step)
            if size <= limit:
                entry = fetch(at, step + size)
                framed = b"\x0a" + _encoded(len(entry)) + entry
                for key, field in _fields(framed).items():
                    value = _value(framed, field)
                    values[key] = bytes(value) if isinstance(value, memoryview) else value
            else:
                key_size, start = _varint(head, step + 1)
                values[head[start : start + key_size].decode("utf-8") + " bytes"] = size
            at += step + size
    return values


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_shard_index(path: Path) -> dict:
    """Return the index of a shard; rebuild and store it when it is missing.

    Raises:
        InputError: the index cannot be read, or it does not fit the shard.
    """
    index_path = path.with_suffix(".index.json")
    try:
        if index_path.is_file():
            index = json.loads(index_path.read_text(encoding="utf-8"))
            if index["bytes"] != path.stat().st_size:
                raise InputError(
                    f"{path}: has {path.stat().st_size} bytes, its index says {index['bytes']}; "
                    "create it again"
                )
            return index
        return _rebuild_index(path, index_path)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: no readable shard ({error}); create it again") from error


def _rebuild_index(path: Path, index_path: Path) -> dict:
    rows = []
    for offset, length in walk(path):
        small = small_fields(path, offset, length)
        rows.append(
            {
                "offset": offset,
                "length": length,
                **{k: small[k] for k in ("label", "raw_label", "epoch", "kept")},
            }
        )
    index = describe(path, rows, small)
    try:
        write_json(index_path, index)
    except (InputError, OSError) as error:  # a read-only medium: it is rebuilt at the next start
        log.info("%s: its index stays in memory (%s)", path, error)
    return index


def describe(path: Path, rows: list[dict], small: dict) -> dict:
    """Build the index of a shard from its rows and the features that all records share."""
    return {
        "format": FORMAT,
        "bytes": path.stat().st_size,
        "base": _text(small["base"]),
        "date": _text(small["date"]),
        "mouse": _text(small["mouse"]),
        **{key: int(small[key]) for key in ("run", "frames", "height", "width")},
        "fs": FRAME_RATE_HZ,
        "records": rows,
    }


def recording_codes(path: Path) -> np.ndarray | None:
    """Return the raw codes (E,) of the whole recording behind a shard, artifacts included.

    None where they are not known: published files, recordings, shards of older versions.
    """
    codes = read_shard_index(path).get("codes") if path.suffix == ".tfrecord" else None
    if codes is None:
        return None
    if not isinstance(codes, list) or not all(isinstance(code, int) for code in codes):
        raise InputError(f"{path}: its index is damaged (codes is {codes!r}); create it again")
    return np.array(codes, int)


def shard_records(path: Path) -> list[Record]:
    """List the records of a shard."""
    try:
        index = read_shard_index(path)
        shared = {key: index[key] for key in ("date", "mouse", "run", "frames", "height", "width")}
        for key in ("date", "mouse"):
            file_name(shared[key], f"{path}: {key}")
        check_shape([shared[key] for key in ("frames", "height", "width")], 4, f"{path}: an epoch")
        return [
            Record(
                path=path,
                offset=row["offset"],
                length=row["length"],
                label=_signed(row["label"]),
                epoch=row["epoch"],
                kept=row["kept"],
                name=f"{index['base']}_epoch{row['kept']}.tfrecords",
                **shared,
            )
            for row in index["records"]
        ]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its index is damaged ({error!r}); create it again") from error


def reference_record(path: Path) -> Record:
    """Describe a published one-epoch file; its frames are 128 x 128."""
    match = REFERENCE_NAME.match(path.name)
    name = parse_name(path)
    if not match or name is None:
        raise InputError(f"{path}: its name is not <date>-<mouse>-fc<n>..._epoch<k>.tfrecords")
    offset, length = walk(path)[0]
    try:
        small = small_fields(path, offset, length)
        label, kept = _signed(small["label"]), int(match["kept"])
        # Floats are 4 bytes each; the tags and the key around them take less than one frame.
        frames = small["features bytes"] // (4 * SIZE_128 * SIZE_128)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path}: no published epoch of 128 x 128 pixels ({error!r})") from error
    return Record(
        path,
        offset,
        length,
        label,
        name.date,
        name.mouse,
        name.run,
        kept,
        kept,
        frames,
        SIZE_128,
        SIZE_128,
        path.name,
    )


def read_manifest(folder: Path) -> dict:
    """Return the `dataset.json` of a tfrecord folder; empty without one, as published folders are.

    Args:
        folder: the folder, or one of its files.

    Raises:
        InputError: it is damaged.
    """
    places = list(folder.parents)[:2] if folder.is_file() else [folder]
    path = next((p / MANIFEST for p in places if (p / MANIFEST).is_file()), None)
    if path is None:
        return {}
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise ValueError("it holds no mapping")
        return held
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no readable JSON ({error}); remove it and run create_tfrecords.py with "
            "--resume, which writes it anew"
        ) from error


def find_records(folder: Path) -> list[Record]:
    """List all epochs below ``folder``, shards and published files, sorted by published name.

    Args:
        folder: searched recursively, through symbolic links; or one file.

    Raises:
        InputError: no such folder, nothing in it, an epoch that comes twice, or epochs of different
            shapes.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(
            f"{folder}: no such folder; expected tfrecords made by create_tfrecords.py"
        )
    shards, published = (
        [folder] * folder.match(kind) if folder.is_file() else files_below(folder, kind)
        for kind in ("*.tfrecord", "*.tfrecords")
    )
    records = [record for path in shards for record in shard_records(path)]
    records += [reference_record(path) for path in published]
    if not records:
        raise InputError(
            f"{folder}: holds no *.tfrecord or *.tfrecords; run create_tfrecords.py first"
        )
    first = {}
    for record in records:
        other = first.setdefault((record.date, record.mouse, record.run, record.epoch), record)
        if other is not record:
            raise InputError(
                f"{record.path}: holds epoch {record.epoch} of run {record.run} of mouse "
                f"{record.date}-{record.mouse}, and so does {other.path}; keep one of them"
            )
    shapes = {(r.frames, r.height, r.width) for r in records}
    if len(shapes) > 1:
        raise InputError(
            f"{folder}: holds epochs of different shapes {sorted(shapes)}; keep one folder per "
            "setting"
        )
    return sorted(records, key=lambda record: record.name)


def in_time_order(records: list[Record]) -> list[Record]:
    """Sort records by mouse, run number and epoch."""
    return sorted(records, key=lambda r: (r.date, r.mouse, r.run, r.epoch))

"""Parity checks of files, pictures and maps; test_parity.py runs them on every fixture."""

import shutil

import numpy as np
import torch

from analysis.heatmap import blend, compute_map, limits, to_image
from common.files import write_json
from inputs.reading import load_recording
from inputs.recording import resolve_targets
from inputs.resizing import crop_numpy_width, resize_block, split_borders
from runs.combining import concat_weight_tensors


def load(path):
    """Return the arrays of a fixture as a dict."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def check_resize(path):
    """Pillow's resize of every size and type; integer frames become float32 first."""
    data = load(path)
    checked = 0
    for name, expected in data.items():
        kind, _, size = name.partition("_w")
        if not size:
            continue
        width, height = (int(n) for n in size.split("_h"))
        source = kind.split("_")[1]
        video = data["frame_big"] if source == "big" else data[f"video_{source}"]
        if kind.startswith("ref") and np.issubdtype(video.dtype, np.integer):
            # Differs: the reference rounds integer frames; the float result lies within a step.
            resized = resize_block(video, width, height)
            assert np.abs(resized - expected.astype(np.float64)).max() <= 1
        else:
            resized = resize_block(video, width, height)
            np.testing.assert_array_equal(resized, expected)
        assert resized.dtype == np.float32
        checked += 1
    assert checked > 0


def check_crop_split(path, folder):
    """Borders, crops and target column of every split, read back from the files."""
    data = load(path)
    video, count = data["video"], int(data["n_splits"])
    row, column = (int(n) for n in data["target_rc"])
    borders = split_borders(video.shape[2], count)
    assert [left for left, _ in borders] == data["correct_left"].tolist()
    assert [right for _, right in borders] == data["correct_right"].tolist()
    for name, series in (("by_place", None), ("by_series", video[:, row, column])):
        out = folder / name
        rc = (row, column) if series is None else None
        for index, csv in enumerate(crop_numpy_width(video, out, series, count, target_rc=rc)):
            recording = load_recording(csv)
            expected = data[f"correct_crop_{index}"]
            np.testing.assert_array_equal(recording.values.astype(np.float32), expected)
            assert recording.columns == [str(k) for k in range(expected.shape[1])]
            (target,) = resolve_targets(recording)
            np.testing.assert_array_equal(
                recording.values[:, target].astype(np.float32), video[:, row, column]
            )
            if index == int(data["target_split"]):
                assert target == int(data["target_local_index"])
            tiff = load_recording(out / f"video_{index}.tiff")
            np.testing.assert_array_equal(tiff.movie(), video[:, :, slice(*borders[index])])


def check_legacy_convert(path, folder):
    """The published CSV: all pixels are there, and a name means what it meant."""
    data = load(path)
    video = data["video"]
    csv = shutil.copy(path.with_suffix(".csv"), folder)
    for reading, pixels in (
        ("reference", data["ref_pixel_of_name"]),
        ("intended", data["intended_pixel_of_name"]),
    ):
        recording = load_recording(csv, shape=video.shape[1:], legacy_labels=reading)
        assert recording.legacy
        np.testing.assert_allclose(recording.movie(), video, rtol=0, atol=1e-12)
        for name, pixel in zip(data["names"], pixels, strict=True):
            assert resolve_targets(recording, [str(name)]) == [int(pixel)]
    assert int(data["lost_pixel"]) not in data["ref_pixel_of_name"]


def check_heatmap(path):
    """The three maps, with 0 at the target's place."""
    data = load(path)
    shape = tuple(int(n) for n in data["hw"])
    pixels = np.delete(np.arange(shape[0] * shape[1]), int(data["target_index"]))
    alpha, weighted = data["alpha"], data["weight_tensor"][:, 1]
    # The fixture holds alpha * x: an input of 1 with that weight gives the same maps.
    ones = np.ones_like(weighted)
    for name, expected, factor in (
        ("reference", data["heatmap_reference"], weighted),
        ("signed", data["signed_step1"], weighted),
        ("attention", data["heatmap_attention"], alpha),
    ):
        image = to_image(compute_map(name, factor, ones), pixels, shape)
        np.testing.assert_array_equal(image, expected)


def check_combine(path, folder):
    """Splits joined by splits.json, and as old results by height and target place."""
    data = load(path)
    height, widths = int(data["h"]), [int(w) for w in data["widths"]]
    holder, place = int(data["target_split"]), int(data["target_local_index"])
    for index in range(len(widths)):
        results = folder / f"results_{index + 1}"
        results.mkdir()
        tensor = torch.from_numpy(data[f"weight_tensor_{index}"]).requires_grad_()
        torch.save(tensor, results / "weight_tensor_rs.pt")
    lefts = np.cumsum([0, *widths[:-1]]).tolist()
    row, column = divmod(place, widths[holder])
    record = {
        "F": len(data["combined"]), "H": height, "W": sum(widths), "n_splits": len(widths),
        "target_row": row, "target_col": lefts[holder] + column,
        "splits": [
            {"left": left, "width": width} for left, width in zip(lefts, widths, strict=True)
        ],
    }  # fmt: skip
    write_json(folder / "splits.json", record)
    known = concat_weight_tensors(folder, splits=folder / "splits.json", raw=True)
    joins = [known]
    if height > 1:  # a single row does not tell a split with the target from a narrower one
        joins.append(concat_weight_tensors(folder, height=height, target_local=place, raw=True))
    for joined in joins:
        np.testing.assert_array_equal(joined["maps"], data["combined"])
        np.testing.assert_array_equal(np.abs(joined["maps"]), data["heatmap"])
        assert joined["target_pixels"] == [row * sum(widths) + lefts[holder] + column]


def check_overlay(path):
    """The blend of a gray frame and a coloured map, within one gray level."""
    data = load(path)
    frame, heat = data["frame"], data["heat"]
    blended = blend(frame, heat, limits(frame), limits(heat), alpha=float(data["alpha"]))
    assert np.abs(blended - data["rgb_float"]).max() <= 1 / 255
    levels = (255 * blended).round() - data["rgb_uint8"].astype(int)
    assert np.abs(levels).max() <= 1


CHECKS = {
    "resize": lambda path, folder: check_resize(path),
    "crop_split": check_crop_split,
    "legacy_convert": check_legacy_convert,
    "heatmap": lambda path, folder: check_heatmap(path),
    "combine": check_combine,
    "overlay": lambda path, folder: check_overlay(path),
}

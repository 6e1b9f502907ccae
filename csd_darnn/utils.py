"""Small helpers that the published project had in its utils.py: figures, tensors, device."""

import csv
import re

import numpy as np

from common.device import why_no_gpu
from common.files import InputError, atomic_path

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#777777"  # Okabe-Ito


def numpy_to_tvar(x, device="cpu"):
    """Return a float32 tensor of the array ``x`` on ``device``."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)


def new_figure(width=8.0, height=4.0):
    """Return (figure, axes) without top and right spines; no window system is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_or_show_plot(figure, path, columns, *, save=True):
    """Save a figure as PNG and its numbers as CSV beside it; return the path of the PNG.

    Args:
        columns: dict of column name -> values; shorter columns are filled with empty cells.
        save: False shows the figure in a window instead, as the published option does.
    """
    if not save:
        show(figure)
        return None
    with atomic_path(path.with_suffix(".csv")) as temporary:
        write_columns(temporary, columns)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def show(figure):
    """Show a figure in a window and wait until it is closed."""
    import matplotlib.pyplot as plt

    manager = plt.figure().canvas.manager
    manager.canvas.figure = figure
    figure.set_canvas(manager.canvas)
    plt.show()


def write_columns(path, columns):
    """Write named columns of different lengths as CSV with 9 significant digits."""
    length = max(len(values) for values in columns.values())
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        for row in range(length):
            cells = (v[row] if row < len(v) else "" for v in columns.values())
            writer.writerow(f"{c:.9g}" if isinstance(c, float | np.floating) else c for c in cells)


def choose_device(wanted="auto"):
    """Return (device name, reason). ``wanted``: auto, cpu, gpu or cuda, cuda:k, mps."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda", "GPU found"
        return "cpu", "no GPU found"
    wanted = "cuda" if wanted == "gpu" else wanted
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", wanted):
        raise InputError(
            f"--device: found {wanted!r}, expected auto, cpu, gpu or cuda, cuda:k, mps"
        )
    if wanted.startswith("cuda"):
        index = int(wanted[5:] or 0)
        if index >= torch.cuda.device_count():
            reason = "" if torch.cuda.is_available() else f" ({why_no_gpu('torch')})"
            raise InputError(
                f"--device: found {wanted}, expected one of {torch.cuda.device_count()} CUDA"
                f" devices{reason}; use --device cpu"
            )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise InputError("--device: found mps, expected an Apple GPU; use --device cpu")
    return wanted, "asked for"

"""The trace of every event with its fit: as a table, and as small pictures for the report.

The pictures are SVG, the order in which they stand is chosen by the style sheet alone: the report
holds no scripts.
"""

import html
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.tables import read_rows, write_table
from inputs.calibration import Calibration

WIDTH, HEIGHT = 220, 84  # pixels of a picture
EDGE = 6  # free pixels around the lines
MOST = 300  # events shown; all are in the table
HEADER = ("id", "frame", "time_ms", "df_f0", "fit_df_f0")
STYLE = """<style>
.traces{display:flex;flex-wrap:wrap;gap:8px}.traces figure{padding:6px;width:236px}
.traces svg{display:block;background:#fff;color:#333}
.traces figcaption{margin-top:2px;font-size:.75rem}
.sorted>input{margin:0 4px 8px 0}.sorted>label{margin-right:16px}
#by-quality:checked~.traces>figure{order:var(--quality)}
#by-error:checked~.traces>figure{order:var(--error)}
#by-height:checked~.traces>figure{order:var(--height)}
</style>"""
ORDERS = (
    ("by-quality", "best quality first"),
    ("by-error", "largest error of the fit first"),
    ("by-height", "highest peak first"),
)


class Trace(NamedTuple):
    """dF/F0 in the middle of an event over time, and its fit (NaN: none)."""

    first_frame: int
    values: np.ndarray  # (t,)
    fit: np.ndarray  # (t,)


def write_traces(path: str | Path, traces: dict[int, Trace], scale: Calibration) -> Path:
    """Write the traces {event id: Trace} as one CSV with the columns HEADER."""
    rows = []
    for number, one in traces.items():
        for step, (value, fit) in enumerate(zip(one.values, one.fit, strict=True)):
            frame = one.first_frame + step
            cell = f"{fit:.6g}" if np.isfinite(fit) else ""
            rows.append((number, frame, f"{frame * scale.frame_ms:.6g}", f"{value:.6g}", cell))
    return write_table(path, HEADER, rows)


def read_traces(path: str | Path) -> dict[int, Trace]:
    """Return {event id: Trace} of a file of ``write_traces``."""
    lines = {}
    for row in read_rows(path, HEADER):
        lines.setdefault(int(row["id"]), []).append(
            (int(row["frame"]), float(row["df_f0"]), float(row["fit_df_f0"] or "nan"))
        )
    return {
        number: Trace(rows[0][0], np.array([r[1] for r in rows]), np.array([r[2] for r in rows]))
        for number, rows in lines.items()
    }


def trace_svg(trace: Trace, span: tuple[int, int], label: str) -> str:
    """Return a picture of a trace (dots), its fit (line) and the span of the event (grey).

    Args:
        trace: Trace.
        span: first and last frame of the event.
        label: said to those who cannot see it.
    """
    n = len(trace.values)
    low = min(0.0, float(np.nanmin(trace.values)))
    both = np.concatenate([trace.values, trace.fit])
    high = max(float(np.nanmax(both)), 1e-3)

    def x(frame):
        return EDGE + (WIDTH - 2 * EDGE) * (frame - trace.first_frame) / max(n - 1, 1)

    def y(value):
        return HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * (value - low) / (high - low)

    def points(values):
        return " ".join(
            f"{x(trace.first_frame + i):.1f},{y(v):.1f}" for i, v in enumerate(values) if v == v
        )

    left, right = x(span[0] - 0.5), x(span[1] + 0.5)
    parts = [
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img"><title>{html.escape(label)}</title>',
        f'<rect x="{left:.1f}" y="0" width="{right - left:.1f}" height="{HEIGHT}" fill="#eee"/>',
        f'<path d="M{EDGE} {y(0):.1f}H{WIDTH - EDGE}" stroke="#bbb" stroke-width="0.5"/>',
        f'<polyline points="{points(trace.values)}" fill="none" stroke="#0072B2"/>',
    ]
    if np.isfinite(trace.fit).any():
        fit = points(trace.fit)
        parts.append(
            f'<polyline points="{fit}" fill="none" stroke="#D55E00" stroke-dasharray="4 2"/>'
        )
    return "".join([*parts, "</svg>"])


def traces_block(events: list[tuple[str, pd.Series, Trace]], frame_ms: float | None) -> str:
    """Return the HTML of the traces of events, in an order that the reader chooses.

    Args:
        events: list of (movie id, row of the event table, Trace).
        frame_ms: frame interval, for the caption; None: told in frames.
    """
    rows = [row for _, row, _ in events]
    good = np.array([row["quality"] != "good" for row in rows], bool)
    error = np.nan_to_num(np.array([row["fit_error"] for row in rows], float), nan=np.inf)
    height = np.nan_to_num(np.array([row["peak_df_f0"] for row in rows], float))
    ranks = {
        "quality": _ranks(np.lexsort((error, good))),
        "error": _ranks(np.argsort(-np.where(np.isinf(error), -1.0, error), kind="stable")),
        "height": _ranks(np.argsort(-height, kind="stable")),
    }
    shown = np.argsort(ranks["quality"])[:MOST]
    boxes = []
    for index in shown:
        movie_id, row, trace = events[index]
        name = f"movie {movie_id}, {row['class'][:-1]} {row['id']}"
        peak = row["peak_df_f0"]
        span = int(row["start_frame"]), int(row["end_frame"])
        orders = ";".join(f"--{key}:{ranks[key][index]}" for key in ranks)
        words = [f"peak {peak:.2f} dF/F0"] if np.isfinite(peak) else []
        caption = "<br>".join(html.escape(w) for w in (name, "; ".join([*words, row["quality"]])))
        boxes.append(
            f'<figure style="{orders}">{trace_svg(trace, span, name)}'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    inputs = "".join(
        f'<input type="radio" name="order" id="{key}"{" checked" if not number else ""}>'
        f'<label for="{key}">{text}</label>'
        for number, (key, text) in enumerate(ORDERS)
    )
    step = f"one point a frame of {frame_ms:g} ms" if frame_ms else "one point a frame"
    left = len(events) - len(shown)
    more = f" {left} more events are in the tables *_traces.csv." if left else ""
    lead = (
        f"<p>dF/F0 in the middle of each event, {step}; dashed: its fit; grey: the frames of its "
        f"mask. Waves have no fit.{more}</p>"
    )
    traces = f'<div class="traces">{"".join(boxes)}</div>'
    return f'{STYLE}<div class="sorted">{lead}{inputs}{traces}</div>'


def _ranks(order):
    """Return the place of every element in an order."""
    places = np.empty(len(order), int)
    places[order] = np.arange(len(order))
    return places

"""Where new neurons look: a map of the places that were found, and what they explain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.util_analysis import PALETTE, bare
from common.figures import save_figure


def plot_places(path: Path, rows: Sequence[Mapping]) -> Path:
    """Draw places with their sd, and correlations at the place of the file and at the found one.

    Args:
        path: PNG.
        rows: of neurons.csv; its CSV is written by the caller.
    """
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    places, fits = figure.subplots(1, 2)
    bare(places), bare(fits)
    for i, kind in enumerate(dict.fromkeys(row["cell_type"] for row in rows)):
        own = [row for row in rows if row["cell_type"] == kind]
        seen = [row for row in own if row["located"] == "yes"]
        colour = PALETTE[i % len(PALETTE)]
        label = f"{kind}: {len(seen)} of {len(own)} located"
        places.errorbar(
            [row["azimuth_deg"] for row in seen], [row["elevation_deg"] for row in seen],
            xerr=[row["azimuth_sd_deg"] for row in seen],
            yerr=[row["elevation_sd_deg"] for row in seen],
            fmt="o", ms=4, lw=1, color=colour, label=label,
        )  # fmt: skip
        known = [row for row in own if row["azimuth_recorded_deg"] != ""
                 and row["elevation_recorded_deg"] != ""]  # fmt: skip
        places.plot([row["azimuth_recorded_deg"] for row in known],
                    [row["elevation_recorded_deg"] for row in known],
                    "o", ms=7, mfc="none", color=colour)  # fmt: skip
        pairs = [row for row in seen if row["correlation_before"] != ""]
        fits.plot([row["correlation_before"] for row in pairs],
                  [row["correlation_after"] for row in pairs], "o", ms=4, color=colour)  # fmt: skip
    places.axhline(0, color="0.85", lw=0.8, zorder=0)
    places.axvline(0, color="0.85", lw=0.8, zorder=0)
    places.set(xlabel="azimuth (degrees, positive nearer the midline)",
               ylabel="elevation (degrees, positive nearer the north pole)",
               title="found, with sd (open: place of the file)")  # fmt: skip
    places.title.set_fontsize(9)
    places.legend(fontsize=8)
    fits.plot([0, 1], [0, 1], color="0.8", lw=1, zorder=0)
    fits.set(xlabel="correlation at the place of the file, or 0", ylabel="at the found place")
    return save_figure(figure, path, tight=True)

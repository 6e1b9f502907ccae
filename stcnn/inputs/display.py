"""What the frames of a movie mean: rate, degrees per pixel, background, field, placement.

A display is made where a file is read, stored in config.json and settings.json, and passed whole:
no function below it takes a bare rate or pixel size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.files import InputError

TOLERANCE = 0.01  # relative: a larger difference is said, or refused
PUBLISHED_FIELD = (83, 83)  # of config.json files that do not name it
UNITS = {"rate_hz": "Hz", "deg_per_px": "degrees per pixel", "background": "background grey"}


@dataclass(frozen=True)
class Display:
    """The screen that the fly saw, or a model was trained on.

    Args:
        rate_hz: frames per second, of movies and traces.
        deg_per_px: degrees that a pixel covers, along rows and columns.
        background: grey of the field without a stimulus, 0 black to 1 white.
        field: (rows, columns) of the movies, pixels.
        placement: (row, column) of the pixel that a stimulus is centred on; None is the middle.
        origin: {name: where the value comes from}, such as "file: t_axis" or "flag".
    """

    rate_hz: float
    deg_per_px: float
    background: float
    field: tuple[int, int]
    placement: tuple[int, int] | None = None
    origin: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        """Refuse values that no screen has."""
        faults = [
            f"{UNITS[name]} is {getattr(self, name)}; expected a number above 0"
            for name in ("rate_hz", "deg_per_px")
            if not getattr(self, name) > 0
        ]
        if not 0 <= self.background <= 1:
            faults.append(f"background is {self.background}; expected 0 (black) to 1 (white)")
        if self.placement and not all(
            0 <= at < n for at, n in zip(self.placement, self.field, strict=True)
        ):
            faults.append(
                f"placement is pixel {tuple(self.placement)}; expected one of the field of "
                f"{self.field[0]} x {self.field[1]} px, rows and columns from 0"
            )
        if faults:
            raise InputError("display: " + "; ".join(faults))

    @classmethod
    def of_config(cls, config: Mapping, path: str = "config.json") -> Display:
        """Return the display of a config.json; what an old one does not name is as published."""
        if "display" in config:
            record = config["display"]
            field, placement = tuple(record["field"]), tuple(record["placement"])
            return cls(
                record["rate_hz"],
                record["deg_per_px"],
                record["background"],
                field,
                placement if placement != tuple(n // 2 for n in field) else None,
                record["origin"],
            )
        dataset = config.get("dataset_config") or {}
        known = {
            "rate_hz": config["sampling_rate"],
            "deg_per_px": dataset.get("mov_res"),
            "background": dataset.get("mov_bg_int"),
            "field": config.get("field"),
        }
        published = {"deg_per_px": 1.0, "background": 0.498, "field": PUBLISHED_FIELD}
        values = {key: published[key] if v is None else v for key, v in known.items()}
        origin = {
            key: "not in the file, as published" if value is None else f"file: {path}"
            for key, value in known.items()
        }
        return cls(**{**values, "field": tuple(values["field"])}, origin=origin)

    def placed(self, text: str | None) -> Display:
        """Return the display with the ``ROW,COLUMN`` of a flag as the pixel of its stimuli."""
        if text is None:
            return self
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
        if not match:
            raise InputError(f"--placement {text}: expected ROW,COLUMN of a pixel, from 0")
        origin = {**self.origin, "placement": "flag --placement"}
        return replace(self, placement=(int(match[1]), int(match[2])), origin=origin)

    @property
    def dark(self) -> float:
        """Contrast of black."""
        return -self.background

    @property
    def bright(self) -> float:
        """Contrast of white."""
        return 1.0 - self.background

    @property
    def centre(self) -> tuple[int, int]:
        """(row, column) of the pixel that stimuli are centred on."""
        return self.placement or tuple(n // 2 for n in self.field)

    def frames(self, seconds: float) -> int:
        """Return how many frames ``seconds`` hold, rounded."""
        return round(seconds * self.rate_hz)

    def record(self) -> dict:
        """Return the display for config.json and settings.json."""
        return {
            "rate_hz": self.rate_hz,
            "deg_per_px": self.deg_per_px,
            "background": self.background,
            "field": list(self.field),
            "placement": list(self.centre),
            "origin": dict(self.origin),
        }

    def describe(self) -> str:
        """Return the line that a run prints at its start."""

        def with_origin(text, name):
            return f"{text} ({self.origin[name]})" if name in self.origin else text

        rows, columns = self.field
        size = f"field {rows} x {columns} px"
        size += f" = {rows * self.deg_per_px:g} x {columns * self.deg_per_px:g} degrees"
        parts = [
            with_origin(f"{self.rate_hz:g} Hz", "rate_hz"),
            with_origin(f"{self.deg_per_px:g} degrees per pixel", "deg_per_px"),
            with_origin(f"background {self.background:g}", "background"),
            with_origin(size, "field"),
            with_origin(
                f"stimuli centred on pixel ({self.centre[0]}, {self.centre[1]})", "placement"
            ),
        ]
        return "display: " + ", ".join(parts)

    def differences(self, other: Display) -> list[str]:
        """Return how ``other`` differs by more than 1 %, in words; the field may differ."""
        lines = []
        for name, unit in UNITS.items():
            own, its = getattr(self, name), getattr(other, name)
            if abs(own - its) > TOLERANCE * max(abs(own), abs(its)):
                lines.append(f"{unit}: {own:g} and {its:g}")
        return lines

"""Run the cases of a check one after the other, so that a crash of one loses that one only.

Each result is a line of JSON, flushed to disk before the next case starts; a stopped check goes on
where it stopped. Used by gpu_check.py of every folder.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from common.files import InputError


def difference(
    found: ArrayLike | Sequence[ArrayLike], expected: ArrayLike | Sequence[ArrayLike]
) -> float:
    """Return the largest absolute difference over the largest absolute expected value.

    Args:
        found, expected: arrays of one shape, or sequences of such arrays.

    Raises:
        ValueError: the shapes differ, or a value of ``found`` is not finite.
    """
    worst = 0.0
    pairs = (
        zip(found, expected, strict=True)
        if isinstance(found, list | tuple)
        else [(found, expected)]
    )
    for one, other in pairs:
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        if one.shape != other.shape:
            raise ValueError(f"shape {one.shape}, expected {other.shape}")
        if not np.isfinite(one).all():
            raise ValueError("values that are not finite")
        scale = max(float(np.abs(other).max(initial=0.0)), np.finfo(np.float64).tiny)
        worst = max(worst, float(np.abs(one - other).max(initial=0.0)) / scale)
    return worst


def gradient_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return ``difference`` over the tensors whose expected gradient is more than rounding.

    A parameter that the output does not depend on (a bias before a softmax) has a gradient of
    rounding errors only, which no two devices share.
    """
    largest = max(float(np.abs(one).max(initial=0.0)) for one in expected)
    pairs = zip(found, expected, strict=True)
    kept = [pair for pair in pairs if np.abs(pair[1]).max(initial=0.0) > 1e-5 * largest]
    return difference(*map(list, zip(*kept, strict=True)))


def within(name: str, value: float, limit: float) -> dict:
    """Return the result of one comparison: its value, its limit and whether it holds."""
    return {name: value, f"{name} limit": limit, "passed": bool(value <= limit)}


def median_seconds(
    work: Callable[[], object], synchronize: Callable[[], object], *, repeats: int = 5
) -> float:
    """Return the median of the seconds of ``work()``, after three calls that are not counted."""
    seconds = []
    for turn in range(3 + repeats):
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        if turn >= 3:
            seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def read_results(path: str | os.PathLike) -> list[dict]:
    """Return the results in ``path``; a line that a kill has cut is left out."""
    results = []
    if Path(path).is_file():
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            try:
                results.append(json.loads(line))
            except ValueError:
                continue
    return results


def run_cases(
    cases: Mapping[str, Callable[[], dict]],
    path: str | os.PathLike,
    *,
    about: Mapping[str, object],
    budget_s: float,
    only: str | None = None,
) -> int:
    """Run ``cases`` that have not passed before on the same device; return 1 when one fails.

    Args:
        cases: {name: function that returns numbers and, where it compares, ``passed``}.
        path: file of the results, one JSON object a line; later lines of a name win.
        about: what every line carries: folder, device, versions.
        budget_s: no case starts after that many seconds.
        only: name of the one case that runs, also when it has passed before.
    """
    if only is not None and only not in cases:
        raise InputError(f"--only {only}: expected one of {', '.join(cases)}")
    same = [row for row in read_results(path) if all(row.get(k) == v for k, v in about.items())]
    done = {row["case"] for row in same if row.get("passed") is not False}
    began, failed = time.monotonic(), []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as end:
        # A line that a kill has cut must not swallow the next one.
        end.seek(max(0, end.tell() - 1))
        end.write(b"" if end.read() in (b"", b"\n") else b"\n")
    with open(path, "a", encoding="utf-8") as out:
        for name, case in cases.items():
            if name != only and (only is not None or name in done):
                continue
            if time.monotonic() - began > budget_s:
                print(f"{name}: not run, the {budget_s:g} s are used up", flush=True)
                failed.append(name)
                continue
            row, start = {**about, "case": name}, time.monotonic()
            try:
                row |= case()
            except Exception as error:  # the next case has to run whatever this one raised
                row |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:500]}
            row["seconds"] = round(time.monotonic() - start, 2)
            out.write(json.dumps(row, default=float) + "\n")
            out.flush()
            os.fsync(out.fileno())
            state = {True: "holds", False: "FAILS", None: "measured"}[row.get("passed")]
            print(
                f"{name}: {state} in {row['seconds']:g} s {row.get('error', '')}".rstrip(),
                flush=True,
            )
            if row.get("passed") is False:
                failed.append(name)
    return int(bool(failed))

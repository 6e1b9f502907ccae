"""This checkout side by side with another one: CPU time, memory and losses of the same steps.

One item, ``published_model`` with its random weights, a movie of 0.9 s that starts 90 frames after
360 frames of grey; one thread, the sides in turn, the best of some repeats.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from common.files import FOLDER, InputError, write_json

OURS = ("frames", "thinned", "settled")  # ways to pad, see settings
LENGTHS = (985, 1985)  # frames, padding included
REPEATS = 4
CHILD = FOLDER / "demo" / "beside_child.py"
RUN_CHILD = "import runpy, sys; runpy.run_path(sys.argv.pop(1))['main']()"  # not as one of ours


class _Side:
    """A process that runs one side of the comparison."""

    def __init__(self, name, folder, prepad, n_frames):
        self.name, self.answers = name, {"step": [], "eval": []}
        command = [sys.executable, "-c", RUN_CHILD, CHILD, folder, prepad, n_frames]
        self.process = subprocess.Popen(
            [str(word) for word in command], cwd=folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, kind):
        """Let the side do one step or forward and keep its answer."""
        try:
            self.process.stdin.write(f"{kind}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended: there is no answer
        line = self.process.stdout.readline()
        if not line:
            raise InputError(
                f"{self.name}: ended without an answer (exit code {self.process.wait()}); expected "
                "the stcnn folder of a checkout, commit 3fb0cf6 or later"
            )
        if kind in self.answers:
            self.answers[kind].append(json.loads(line))

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def compare_beside(
    folder: Path, lengths: Sequence[int] = LENGTHS, repeats: int = REPEATS
) -> Iterator[dict]:
    """Yield the rows of the table, one for each length, kind of work and side.

    Args:
        folder: the stcnn folder of another checkout; it pads with frames of grey.
        lengths: frames of the movies.
        repeats: of which the best counts, after one that does not.

    Yields:
        Dicts with frames, what (step or eval), side, cpu_s, ratio (of the other's time), loss,
        loss_off (difference from the other's, of its value), and for steps mb.

    Raises:
        InputError: no checkout, or its random weights are others.
    """
    folder = Path(folder).resolve()
    if not (folder / "benchmark.py").is_file():
        raise InputError(f"{folder}: no benchmark.py; expected the stcnn folder of a checkout")
    for n_frames in lengths:
        sides = [_Side(str(folder), folder, "frames", n_frames)]
        sides += [_Side(f"prepad={prepad}", FOLDER, prepad, n_frames) for prepad in OURS]
        try:
            for kind in ("step", "eval"):
                for side in sides:
                    if kind == "eval":
                        side.ask("statistics")
                for _ in range(repeats + 1):
                    for side in sides:
                        side.ask(kind)
                yield from _rows(sides, kind, n_frames)
        finally:
            for side in sides:
                side.close()


def _rows(sides, kind, n_frames):
    results = [side.answers[kind] for side in sides]
    weights = [answers[0]["weights"] for answers in results]
    if any(abs(other / weights[0] - 1) > 1e-6 for other in weights):
        raise InputError(
            f"{sides[0].name}: its published_model() has other random weights than ours: "
            "losses cannot be compared"
        )
    times = [min(answer["cpu_s"] for answer in answers[1:]) for answers in results]
    for side, answers, cpu_s in zip(sides, results, times, strict=True):
        loss, other = answers[0]["loss"], results[0][0]["loss"]
        row = {
            "frames": n_frames,
            "what": kind,
            "side": side.name,
            "cpu_s": cpu_s,
            "ratio": cpu_s / times[0],
            "loss": loss,
            "loss_off": loss / other - 1,
        }
        if kind == "step":
            row["mb"] = answers[-1]["mb"]
        yield row


def report_beside(folder: Path, machine: str, path: Path) -> None:
    """Print the table line by line and write it to ``path`` (JSON)."""
    print(f"{'frames':>6} {'what':5} {'side':24} {'CPU':>8} {'ratio':>6} {'MB':>5}  loss, off by")
    rows = []
    for row in compare_beside(folder):
        rows.append(row)
        mb = f"{row['mb']:5.0f}" if "mb" in row else " " * 5
        print(
            f"{row['frames']:6} {row['what']:5} {row['side'][-24:]:24} {row['cpu_s']:7.3f}s "
            f"{row['ratio']:6.2f} {mb}  {row['loss']:.6f}, {row['loss_off']:+.1e}",
            flush=True,
        )
    write_json(path, {"machine": machine, "beside": str(Path(folder).name), "rows": rows})
    print(json.dumps({"written": str(path)}))

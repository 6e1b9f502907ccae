"""The settings and the data of ``main.py --demo``."""

import dataclasses
import json
from pathlib import Path

from common.files import read_json
from common.locks import writing
from demo.synthetic import SMALL, DemoSettings, make_demo_data

# demo data: 32 training movies, every second with a wave (12 give too few waves to learn from), 6
# unseen ones with a wave each, 3 without events: two for training, the last as negative control
DEMO_WAVES = (0, 1) * 16 + (1,) * 6 + (0,) * 3
DEMO_DATA = {"movies": len(DEMO_WAVES), "waves": DEMO_WAVES, "empty": 3}
DEMO_RATES = (10, 8, 0.5)  # sparks, puffs, waves of a movie: 5 puffs were too few to learn from
DEMO_GAIN = (
    40.0  # counts per photon; signal-to-noise ratios of 4.5 to 6.5, inside the 2 to 8 wanted
)
CONTROL_ID = f"{len(DEMO_WAVES):02d}"  # the movie without events


def demo_settings(seed: int, full: bool) -> DemoSettings:
    """Return the settings of the synthetic movies."""
    size = {} if full else SMALL | {"rates": DEMO_RATES, "gain": DEMO_GAIN}
    return DemoSettings(**size | DEMO_DATA | {"seed": seed})


def ensure_demo_data(folder: Path, settings: DemoSettings) -> None:
    """Make the synthetic movies unless the folder holds those of the same settings."""
    wanted = json.loads(json.dumps(dataclasses.asdict(settings)))
    truth = folder / "truth.json"
    if truth.is_file() and read_json(truth, remedy="remove it")["settings"] == wanted:
        print(f"synthetic movies in {folder} are reused")
        return
    with writing(folder):
        make_demo_data(folder, **dataclasses.asdict(settings))
    print(f"{settings.movies} synthetic movies with planted truth in {folder}")

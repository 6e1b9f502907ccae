"""A stage whose folder another process writes is refused in one line, before it reads anything."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from common.files import InputError
from helpers import FOLDER
from inputs.calibration import Calibration
from inputs.movie_io import movie_file, write_stack
from runs.prediction import read_inputs
from settings.config import Params
from settings.read_config import load_config

HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from common.locks import hold
for folder in sys.argv[2:]:
    hold(folder)
print("held", flush=True)
sys.stdin.read()
"""
MOVIE = ("--movie", "{w}/a.tif")
STACKS = [x for name in ("sparks", "waves", "puffs") for x in (f"--{name}", f"{{w}}/{name}.tif")]
STAGES = {
    "get_sparks_from_preds": ("{w}/p.tif", *MOVIE),
    "track_objects_from_preds": ("{w}/p.tif",),
    "separate_events": (*STACKS, *MOVIE, "--out", "{w}"),
    "classical_baseline": ("{w}/a.tif", "--out", "{w}"),
    "event_rois": ("{w}/i.tif", "--classes", "{w}/c.tif"),
    "save_metrics_to_json": ("--preds", "{w}", "--data", "{w}", "--ids", "01", "--out", "{w}"),
    "attention_maps": ("{w}/a.ini", "--ids", "01", "--checkpoint", "{w}/n.pth"),
}


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A folder that another process writes, and an INI file whose run lies in it."""
    folder = tmp_path_factory.mktemp("held")
    (folder / "a.ini").write_text(
        f"[general]\noutput_relative_path = {folder}\n[training]\nrun_name = run\n"
        f"[dataset]\nrelative_path = {folder}\n"
    )
    places = [str(folder), str(folder / "run" / "attention")]
    command = [sys.executable, "-c", HOLDER, str(FOLDER), *places]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield folder
        process.communicate("")


@pytest.mark.parametrize("script", STAGES)
def test_second_writer_is_refused(held, capsys, script):
    words = [word.format(w=held) for word in STAGES[script]]
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(script).main(words)
    assert caught.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "is being written by process" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("name", ["../a", "-a", ".a", "a\x07b", "a" * 200])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="expected a plain name"):
        movie_file(tmp_path, name)
    (tmp_path / "a.ini").write_text("[dataset]\nrelative_path = .\n")
    with pytest.raises(InputError, match="expected a plain name"):
        load_config(tmp_path / "a.ini", [f"training.run_name={name}"])


def test_a_movie_named_like_a_flag_is_refused(tmp_path):
    scale = Calibration.of(0.2, 6.8)
    path = write_stack(tmp_path / "-x.tif", np.zeros((3, 4, 5), np.uint16), calibration=scale)
    with pytest.raises(InputError, match="begins with -"):
        read_inputs(Params(), movies=[path])

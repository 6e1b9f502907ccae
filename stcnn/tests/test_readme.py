"""Every command of the README runs in short form on tiny data, in a copy of the folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).resolve().parents[1]
TINY = (
    "device=cpu n_epochs=1 batch_size=9 dataset.num_t_pts_prepad=5 "
    "dataset.ca_path={set}/ca_traces dataset.mov_path={set}/movies"
)
RECORDED = f"{TINY} dataset.sampling_rate=60 dataset.loss_meas_t_start=-0.25 model=stcnn_small"
RUNS = "expt_path={home}/runs"
NETWORK = (  # of the run that stands for RUN
    "model.network.out_channels=[2,2] model.network.x_kernel_size=[3,3] "
    "model.network.x_stride=[1,1] model.network.x_padding=[1,1] "
    "model.network.activation=[identity,leaky_relu]"
)
SHORT = {  # a part of the command -> what makes it short; later keys overrule earlier ones
    "main.py --demo": "dataset.make.stimuli=tiny dataset.make.neurons=1 n_epochs=1 "
    "val_fraction=0 val_stimuli=[300,1022,1003] batch_size=9",
    "main.py dataset=lc_small": RECORDED,
    "train.py": f"{TINY} {RUNS}",
    "train.py dataset=lc_small": f"{RECORDED} {RUNS}",
    "train.py trunk=RUN": f"{TINY} {NETWORK} {RUNS}",
    "train.py --multirun": f"{TINY} {RUNS} hydra.sweep.dir={{home}}/sweep",
    "run_ensemble.sh": f"{TINY} {RUNS}",
    "visualize_dataset.py": "--stimuli 300,340 --out {out}",
    "visualize_model_param.py": "--out {out}",
    "generate_ca_predictions.py": "--out {out}",
    "convert_checkpoint.py": "",
    "ln_baseline.py": "",
    "excite_stimulus.py": "--steps 2 --seconds 0.2 --out {out}",
    "locate_neurons.py": "--stimuli 3 --calibration none --out {out}",
    "make_synthetic.py": "--stimuli tiny --neurons 1",
    "benchmark.py": "--only item",
}
NAMES = {  # placeholders of the README
    "RUN": "{run}",
    "MOVIE.mp4": "{home}/movie.npz",
    "DIR": "{out}",
    "SET": "{home}/set",
    "SET/ca_traces": "{set}/ca_traces",
    "SET/movies": "{set}/movies",
    "CLONE/experiments/lc_small_3": "{run}",
}
MISSES_TARGETS = ("main.py --demo",)  # one epoch need not find the planted truth: exit code 1
ELSEWHERE = {  # commands that are not run here, and why
    "pip install -r requirements.txt": "run.py builds the environment of this test from that file",
    "conda env create --name stcnn --file environments.yml": "conda is no part of the environment; "
    "test_main.py checks the file",
    "python teach_student.py --seed 0": "trains two networks; test_students.py runs it",
    "pip install -r requirements-launchers.txt": "optional; train.py names it when it is missing",
}


def readme_commands():
    """Return the commands in the bash blocks of README.md and DETAILS.md, without comments."""
    text = "".join((FOLDER / name).read_text() for name in ("README.md", "DETAILS.md"))
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    lines = [re.split(r"\s+#", line)[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(filter(None, lines)))


def short_form(command, places):
    """Return the arguments of the short form of ``command``."""
    keys = [key for key in SHORT if key in command]
    assert keys, f"the README's command has no short form here: {command}"
    words = [NAMES.get(word, word) for word in shlex.split(command)]
    words = [word.replace("=RUN", "={run}") for word in words]
    words += shlex.split(SHORT[max(keys, key=len)])
    words = [word.format(**places) for word in words]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def test_every_command_runs(tmp_path, tiny_set, tiny_run):
    home = tmp_path / FOLDER.name
    shutil.copytree(FOLDER, home, ignore=shutil.ignore_patterns("tests", "__pycache__", ".*"))
    np.savez(home / "movie.npz", movie=np.full((6, 20, 20), 0.498), rate_hz=60.0)
    places = {"home": home, "set": tiny_set, "run": tiny_run}
    commands = [command for command in readme_commands() if command not in ELSEWHERE]
    assert len(commands) > 10
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for number, command in enumerate(commands):
        places["out"] = home / f"out{number}"  # results of two kinds never share a folder
        done = subprocess.run(
            short_form(command, places), cwd=home, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        misses = any(part in command for part in MISSES_TARGETS)
        assert done.returncode in ((0, 1) if misses else (0,)), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr, f"{command}\n{done.stderr}"

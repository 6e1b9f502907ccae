"""Every command of the README runs in short form, in a copy of the folder, on tiny data."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import tiny_split
from little import FOLDER
from make_synthetic import main as make_synthetic
from published import fill
from test_predict import write_published

pytestmark = pytest.mark.slow
CLIP = " ".join(map(str, tiny_split.CLIP))
NETWORK = f"{CLIP} --depth 18 --width 2"
ONE = "--nrows 32 --ncols 32"
SHORT = {  # script and a part of its command -> flags that make it short
    "main.py --demo": "--quick --width 2",
    "main.py --root": f"{NETWORK} --epoch 1 --val_fraction 0.3 --test_fraction 0.3 --val_clips 1"
    " --n_sample 1 --nsamples 1",
    "preprocess.py": ONE,
    "optical_flow_calculator.py": ONE,
    "split_data.py --root R --make_splits": "--val_fraction 0.3",
    "split_data.py --root R --splitnum": "",
    "prepare_echonet.py": ONE,
    "pretrain_greyscale.py": f"{NETWORK} --epoch 1",
    "pretrain_OF.py": f"{NETWORK} --epoch 1",
    "train_twostream.py": f"{NETWORK} --epoch 1 --val_clips 1",
    "predict.py": "--n_sample 1",
    "visualize_GBP.py": "",
    "convert_reference.py": "",
    "geometry_study.py": "--n_patients 24",
    "benchmark.py": f"{NETWORK} --only augment predict",
}
PLACES = {"G": "C/*grey*.weights.h5", "O": "C/*OF*.weights.h5"}  # made by the commands before
ELSEWHERE = {  # commands that are not run here, and why
    "pip install -r requirements.txt": "run.py builds the environment of this test from that file",
    "python3 ../run.py env rvf_innvestigate": "downloads a second TensorFlow; needs run.py",
    "python3 ../run.py test rvf_twostream": "is this test run",
}


def readme_commands():
    """Return the commands of README.md and DETAILS.md in their order, without comments."""
    text = "".join((FOLDER / name).read_text() for name in ("README.md", "DETAILS.md"))
    pieces = re.findall(r"```(?:bash)?\n(.*?)```|`((?:python3?|pip) [^`]+)`", text, flags=re.S)
    lines = [line for block, inline in pieces for line in (block or inline).splitlines()]
    lines = [line.split("  #")[0].strip() for line in lines]
    return [x for x in dict.fromkeys(lines) if x.startswith(("python", "pip"))]


def short_form(command, home):
    """Return the arguments after ``python``: the first option of {...}, made short."""
    keys = [key for key in SHORT if command.startswith(f"python {key}")]
    assert keys, f"the README's command has no short form here: {command}"
    words = shlex.split(re.sub(r"\{([^,}]*)[^}]*\}", r"\1", command.removeprefix("python ")))
    words = [str(next(home.glob(PLACES[w]))) if w in PLACES else w for w in words]
    return words + shlex.split(SHORT[keys[0]])


def write_data(home, data):
    """Write what the names in the README's commands stand for."""
    from network.model_zoo import single_stream

    size = ["--rows", "96", "--cols", "128", "--min_frames", "33", "--max_frames", "34"]
    make_synthetic(["--out", str(home / "R"), "--n_patients", "16", "--two_class", *size])
    shutil.copytree(home / "R", data / "mycohort")
    shutil.copy(next((home / "R").glob("*.dcm")), home / "FILE")
    videos = home / "EchoNet-Dynamic"
    make_synthetic(["--out", str(videos), "--echonet", "--n_videos", "12", *size[4:]])
    shutil.copytree(FOLDER / "tests" / "fixtures" / "reference_pickles", home / "P")
    (home / "P" / "must_be_refused.pkl").unlink()
    grey = single_stream("grey", input_size=tiny_split.SIZE, depth=18, width=2)
    write_published(fill(grey, 1), home / "W.hdf5")


def test_every_command_runs(tmp_path):
    home, data = tmp_path / FOLDER.name, tmp_path / "data" / FOLDER.name
    hidden = shutil.ignore_patterns("tests", "__pycache__", ".*")
    shutil.copytree(FOLDER, home, ignore=hidden)
    data.mkdir(parents=True)
    write_data(home, data)
    commands = [command for command in readme_commands() if command not in ELSEWHERE]
    assert len(commands) > 12
    plain = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for command in sorted(commands, key=lambda x: "main.py" in x):  # the long ones last
        done = subprocess.run(
            [sys.executable, *short_form(command, home)],
            cwd=home, env=plain, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        print(f"ran: {command}", flush=True)

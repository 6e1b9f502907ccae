"""Training on two processes: the numbers of one process with the same batch, none waits in vain."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.files import read_json
from helpers import FOLDER, make_tiny_data, write_ini
from network.checkpoints import load_state

STEPS = 3
pytestmark = pytest.mark.slow  # starts three processes for each case


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("data"))


def train(path, processes):
    """Run training.py in so many processes, gloo, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), str(FOLDER / "training.py"), str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "--threads", "1"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("criterion", "batch"), [("lovasz_softmax", 4), ("sum_losses", 3), ("nll_loss", 4)]
)
def test_two_processes_train_as_one(data, tmp_path, criterion, batch):
    weights, losses = [], []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        changes = {"criterion": criterion, "batch_size": batch, "train_epochs": STEPS}
        changes |= {"switch_iteration": 1, "print_every": 1, "save_every": STEPS}
        changes |= {"lr_start": "1e-4", "scheduler": "none", "test_every": STEPS}
        path = write_ini(tmp_path / f"{processes}.ini", data, out, **changes)
        train(path, processes)
        weights.append(load_state(out / "tiny" / f"network_{STEPS:06d}.pth"))
        rows = np.genfromtxt(out / "tiny" / "loss.csv", delimiter=",", names=True)
        losses.append(rows["loss"])
        assert (out / "tiny" / "metrics.csv").is_file()
        assert read_json(out / "tiny" / "settings.json")["settings"]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    for name, one in weights[0].items():
        difference = torch.max(torch.abs(weights[1][name].double() - one.double()))
        assert float(difference) < 1e-5, name
    metrics = [
        (tmp_path / str(n) / "tiny" / "metrics.csv").read_text().splitlines() for n in (1, 2)
    ]
    first, second = (
        np.array(rows[1].replace(",,", ",nan,").split(",")[:2], float) for rows in metrics
    )
    np.testing.assert_allclose(second, first, rtol=1e-4)

"""Training over the processes of torchrun equals training in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from common.files import InputError
from network.checkpoints import checkpoint_epochs, load_history, model_state
from network.norms import SettledNorm, settled_moments
from network.shared_norm import shared_norm
from runs.configuration import compose_settings
from runs.processes import Place, check_batches
from runs.training import train

FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture
def alone(tmp_path):
    """A group of one process, which sums as several do."""
    where = (tmp_path / "group").as_uri()
    distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def map_of_movies():
    generator = torch.Generator().manual_seed(0)
    y = 3 + torch.randn(2, 7, 3, 4, 5, dtype=torch.float64, generator=generator)
    return y.requires_grad_(), torch.randn(2, 7, 3, 4, 5, dtype=torch.float64, generator=generator)


@pytest.mark.usefixtures("alone")
def test_the_shared_norm_of_one_process_is_batch_norm():
    y, wanted = map_of_movies()
    ours, theirs = nn.BatchNorm2d(3, momentum=0.1).double(), nn.BatchNorm2d(3).double()
    bias = torch.zeros(3, dtype=torch.float64)
    out = shared_norm(y, ours, bias, torch.ones(7))
    expected = theirs(y.flatten(0, 1)).view(y.shape)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad((one * wanted).sum(), y)[0] for one in (out, expected)]
    torch.testing.assert_close(*grads)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.usefixtures("alone")
def test_a_first_frame_may_count_often_and_others_not_at_all():
    y, wanted = map_of_movies()
    norm, bias = nn.BatchNorm2d(3).double(), torch.zeros(3, dtype=torch.float64)
    counts = torch.ones(7)
    counts[0] = 40
    out = shared_norm(y, norm, bias, counts)
    window = ((0, 4), (0, 5))
    expected = SettledNorm.apply(
        y, norm.weight, norm.bias, *settled_moments(y, 40), 40, norm.eps, window
    )
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad((one * wanted).sum(), y)[0] for one in (out, expected)]
    torch.testing.assert_close(*grads)
    counts[:2] = 0
    scored = shared_norm(y, norm, bias, counts)[:, 2:].detach()
    assert scored.mean((0, 1, 3, 4)).abs().max() < 1e-12
    assert (scored.var((0, 1, 3, 4), correction=0) - 1).abs().max() < 1e-4  # eps


def test_every_row_of_a_batch_is_computed_once():
    places = [Place(torch.device("cpu"), rank, 3) for rank in range(3)]
    rows = [row for place in places for row in place.share(7).tolist()]
    assert sorted(rows) == list(range(7))
    check_batches(places[0], 11, 4)
    with pytest.raises(
        InputError, match=r"batch_size=4: 9 items an epoch leave a batch of 1 for 3"
    ):
        check_batches(places[0], 9, 4)
    with pytest.raises(InputError, match="a batch of 2 for 3 processes"):
        check_batches(places[0], 8, 2)


@pytest.mark.slow  # three more processes load torch
@pytest.mark.parametrize("more", [["prepad=settled"], ["norm_skip_frames=10"]])
def test_two_processes_train_what_one_trains(tiny_args, tmp_path, more):
    """Three updates, the last of an uneven batch; also what the optimiser remembers."""
    flags = [*tiny_args[:-2], *more, "device=cpu", "n_epochs=1", "batch_size=10", "val_fraction=0"]
    train(compose_settings(flags), run_dir=tmp_path / "one", score_training=False)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    done = subprocess.run(
        [*command, "2", str(FOLDER / "train.py"), *flags, f"expt_path={tmp_path / 'two'}"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (far,) = (tmp_path / "two").iterdir()
    runs = (tmp_path / "one", far)
    histories = [load_history(run)[0] for run in runs]
    assert histories[0].keys() == histories[1].keys()
    for name, losses in histories[0].items():
        assert len(losses) == 3
        torch.testing.assert_close(histories[1][name], losses, rtol=1e-5, atol=1e-5, msg=name)
    states = [model_state(checkpoint_epochs(run)[1]) for run in runs]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-5, msg=name)

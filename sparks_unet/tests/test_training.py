"""Training: overfitting, resuming, killing, full disks, and the faults of the command line."""

import copy
import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from common.files import InputError, one_line_faults
from helpers import FOLDER, make_tiny_data, write_ini
from inputs.datasets import SparkDataset, batch_keys
from network.checkpoints import (
    available_iterations,
    checkpoint_path,
    load_network,
    load_state,
    save_checkpoint,
    save_state,
)
from network.optimizers import unmarked
from runs.train import memory_estimate, read_data, run
from runs.training_tools import Place, TrainingRun, make_scheduler, seeded_model
from settings.config import Params
from settings.read_config import load_config
from training import main

CPU = Place(torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_tiny_data(tmp_path_factory.mktemp("data"))


def weights_of(folder, iteration):
    return load_state(checkpoint_path(folder, "network", iteration))


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def train(path, **changes):
    params = dataclasses.replace(load_config(path), **changes)
    params.output_dir.mkdir(parents=True, exist_ok=True)
    run(params, CPU, *read_data(params))
    return params.output_dir


@pytest.mark.usefixtures("single_thread")
def test_one_batch_is_overfitted(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, noise_data_augmentation="no")
    params = dataclasses.replace(
        load_config(path),
        lr_start=2e-2,
        scheduler="none",
        first_layer_channels=4,
        ignore_frames_loss=0,
        criterion="nll_loss",
    )
    samples, _ = read_data(params)
    training_run = TrainingRun(params, SparkDataset(samples, params), [], CPU)
    batch = {
        key: torch.stack([training_run.dataset[i][key] for i in (1, 2)])
        for key in ("data", "labels")
    }
    losses = [training_run._step(training_run.model, batch, CPU.device) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.usefixtures("single_thread")
@pytest.mark.parametrize(
    "law",
    [
        {"sampling": "epoch"},
        {"sampling": "independent"},
        {"scheduler": "cosine", "step_size": 6, "freeze_norm_iteration": 2},
        {"average_iteration": 1},
        {"average_iteration": 4},
    ],
)
def test_resumed_run_equals_uninterrupted_run(data, tmp_path, law):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    whole = train(path, run_name="whole", **law)
    train(path, run_name="parts", train_epochs=3, **law)
    parts = train(path, run_name="parts", train_epochs=3, load_epoch=3, **law)
    assert available_iterations(whole) == available_iterations(parts) == [3, 6]
    assert_same(weights_of(whole, 6), weights_of(parts, 6))
    losses = [[row["loss"] for row in rows_of(folder / "loss.csv")] for folder in (whole, parts)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_fixed_norms_keep_their_statistics(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    folder = train(path, freeze_norm_iteration=3)
    name = "down_path.0.layers.2."
    first, last = (weights_of(folder, iteration) for iteration in (3, 6))
    assert int(last[f"{name}num_batches_tracked"]) == 3
    assert torch.equal(first[f"{name}running_var"], last[f"{name}running_var"])
    assert not torch.equal(first[f"{name}weight"], last[f"{name}weight"])


@pytest.mark.usefixtures("single_thread")
def test_network_is_the_mean_of_the_iterations(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    options = {"save_every": 1, "freeze_norm_iteration": 3}
    plain = train(path, run_name="plain", **options)
    mean = train(path, run_name="mean", average_iteration=3, testing=True, **options)
    for iteration in (1, 2, 3):  # nothing to average yet
        assert_same(weights_of(mean, iteration), weights_of(plain, iteration))
        assert not checkpoint_path(mean, "iterate", iteration).exists()
    trained = [weights_of(plain, iteration) for iteration in (4, 5, 6)]
    kept = load_state(checkpoint_path(mean, "iterate", 6))
    assert kept["count"] == 3
    assert_same(kept["network"], trained[-1])
    for name, value in weights_of(mean, 6).items():
        expected = torch.stack([one[name].double() for one in trained]).mean(0)
        np.testing.assert_allclose(value.numpy(), expected.numpy(), rtol=1e-6, atol=1e-8)
    # what is validated is what is saved
    params = dataclasses.replace(load_config(path), run_name="mean", average_iteration=3)
    again = TrainingRun(params, None, read_data(params)[1], CPU)
    load_network(again.model, checkpoint_path(mean, "network", 6))
    again.iteration = 6
    again.validate()
    rows = rows_of(mean / "metrics.csv")
    assert len(rows) == 2
    assert rows[0] == rows[1]


def test_cosine_rises_and_falls():
    changes = {"scheduler": "cosine", "warmup_iterations": 4, "step_size": 14}
    params = dataclasses.replace(Params(), lr_start=2.0, scheduler_gamma=0.1, **changes)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=params.lr_start)
    schedule, rates = make_scheduler(params, optimizer), []
    for _ in range(16):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    np.testing.assert_allclose([rates[9], *rates[14:]], [1.1, 0.2, 0.2])


@pytest.mark.usefixtures("single_thread")
def test_killed_run_goes_on_bit_for_bit(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, train_epochs="30", save_every="2")
    command = [sys.executable, str(FOLDER / "training.py"), str(path), "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        folder, limit = tmp_path / "tiny", time.time() + 120
        while not available_iterations(folder) and process.poll() is None:
            assert time.time() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert max(available_iterations(folder)) < 30
    assert main([str(path), "--resume", "--threads", "1"]) == 0
    assert main([str(path), "--run-name", "whole", "--threads", "1"]) == 0
    assert_same(weights_of(folder, 30), weights_of(tmp_path / "whole", 30))
    assert not list(folder.glob(".*tmp*"))


def test_kill_during_save_leaves_the_older_checkpoint(tmp_path):
    code = (
        "import sys, os, torch; sys.path.insert(0, sys.argv[1])\n"
        "from network.checkpoints import save_checkpoint\n"
        "save_checkpoint(sys.argv[2], 1, {'network': {'w': torch.ones(4)}, 'rng': {'n': 1}})\n"
        "print('saved', flush=True)\n"
        "big = {'w': torch.zeros(30_000_000)}\n"
        "while True:\n"
        "    save_checkpoint(sys.argv[2], 2, {'network': big, 'optimizer': big})\n"
        "    os.remove(sys.argv[2] + '/network_000002.pth')\n"
    )
    command = [sys.executable, "-c", code, str(FOLDER), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "saved\n"
        while not list(tmp_path.glob(".network_000002*tmp*")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    # the kill can fall behind the move: then the file must be whole
    iterations = available_iterations(tmp_path)
    for iteration in iterations:
        assert "w" in weights_of(tmp_path, iteration)
    assert 1 in iterations
    assert torch.equal(weights_of(tmp_path, 1)["w"], torch.ones(4))


def test_full_disk_is_one_line_and_loses_nothing(tmp_path, small_disk, capsys):
    save_checkpoint(tmp_path, 1, {"network": {"w": torch.ones(4)}})
    small_disk(100_000)
    path = checkpoint_path(tmp_path, "network", 2)
    save = one_line_faults(lambda argv: save_state(path, {"w": torch.zeros(100_000)}))
    with pytest.raises(SystemExit) as caught:
        save([])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "not written" in error
    assert available_iterations(tmp_path) == [1]
    assert [one.name for one in tmp_path.iterdir()] == ["network_000001.pth"]


def test_second_run_is_refused(data, tmp_path, capsys):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, train_epochs="3")
    assert main([str(path), "--threads", "1"]) == 0
    with pytest.raises(SystemExit) as caught:
        main([str(path)])
    assert caught.value.code == 2
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "tiny" / "settings.json").is_file()
    assert load_config(tmp_path / "tiny" / "config.ini").train_epochs == 3


@pytest.mark.parametrize("replaced", [{}, {"test_every": "3"}, {"testing": "yes"}])
def test_a_finished_run_that_is_resumed_stays_as_it_is(data, tmp_path, capsys, replaced):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, **replaced)
    assert main([str(path), "--threads", "1"]) == 0
    tables = sorted((tmp_path / "tiny").glob("*.csv"))
    before = [one.read_bytes() for one in tables]
    assert len(tables) == (2 if replaced else 1)
    assert main([str(path), "--threads", "1", "--resume"]) == 0
    assert "all 6 iterations are trained already" in capsys.readouterr().out
    assert sorted((tmp_path / "tiny").glob("*.csv")) == tables
    assert [one.read_bytes() for one in tables] == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dataset.test_ids=99", "unknown movie id 99"),
        ("dataset.relative_path=/nowhere", "no such data folder"),
        ("training.load_epoch=7", "no such checkpoint"),
        ("training.criterion=mse", "allowed: nll_loss"),
        ("general.output_relative_path=/proc/none", "cannot be written"),
        ("general.training=no", "set one of them to yes"),
    ],
)
def test_faults_leave_with_code_2_and_one_line(data, tmp_path, capsys, change, message):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([str(path), "--set", change])
    assert caught.value.code == 2
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]


def test_dry_run_prints_sizes_and_writes_nothing(data, tmp_path, capsys):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    assert main([str(path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "training: 2 movies, 48 frames, 10 chunks" in shown
    assert "parameters" in shown
    assert [one.name for one in tmp_path.iterdir()] == ["a.ini"]


def test_two_processes_train_one_network(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path, train_epochs="2", testing="yes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(FOLDER / "training.py"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert available_iterations(tmp_path / "tiny") == [2]
    assert [row["iteration"] for row in rows_of(tmp_path / "tiny" / "metrics.csv")] == ["2"]


def test_diverged_loss_stops_the_run(data, tmp_path):
    path = write_ini(tmp_path / "a.ini", data, tmp_path)
    with pytest.raises(InputError, match="loss nan at iteration"):
        train(path, lr_start=1e30, scheduler="none", batch_normalization="none", optimizer="sgd")
    assert (tmp_path / "tiny" / "network_diverged.pth").is_file()


def test_every_chunk_once_in_each_pass():
    keys = [key for i in range(10) for key in batch_keys(7, 3, i, seed=1, sampling="epoch")]
    for epoch in range(4):
        assert sorted(index for e, index in keys if e == epoch) == list(range(7))
    batches = [batch_keys(7, 3, i, seed=1, sampling="independent") for i in range(20)]
    assert all(len({index for _, index in batch}) == 3 for batch in batches)
    assert len(batch_keys(2, 4, 0, seed=1, sampling="epoch")) == 2


def test_weights_with_prefix_and_foreign_depth(tmp_path):
    params = Params(unet_steps=2, first_layer_channels=2)
    model = seeded_model(params, CPU.device)
    x = torch.rand(1, 1, 8, 8, 8)
    expected = model.eval()(x)
    for number, state in enumerate(
        (
            {f"module.{k}": v for k, v in model.state_dict().items()},
            {"network": model.state_dict()},
        )
    ):
        path = tmp_path / f"network_{number:06d}.pth"
        save_state(path, state)
        other = seeded_model(dataclasses.replace(params, seed=5), CPU.device).eval()
        load_network(other, path)
        assert torch.equal(other(x), expected)
    deeper = seeded_model(dataclasses.replace(params, unet_steps=3), CPU.device)
    with pytest.raises(InputError, match=r"unet_steps 3 expected, file has 2; missing: down_path"):
        load_network(deeper, path)


class Malicious:
    """Pickles to a call of os.mkdir."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_malicious_or_damaged_checkpoints_are_refused(tmp_path):
    path, trace = tmp_path / "network_000001.pth", tmp_path / "trace"
    torch.save({"w": Malicious(str(trace))}, path)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_state(path)
    assert not trace.exists()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_state(path)
    with pytest.raises(InputError, match=r"iterations available there: 1$"):
        load_state(tmp_path / "network_000009.pth")


def test_memory_estimate_counts_layers():
    params = Params(unet_steps=1, first_layer_channels=2, batch_size=1, data_duration=4)
    parameters, size = memory_estimate(params, (4, 4))
    model = seeded_model(params, CPU.device)
    assert parameters == sum(p.numel() for p in model.parameters())
    # level 0: conv, ReLU, identity twice in encoder and decoder (2 channels), upsampling, logits
    full = 4 * 4 * 4
    assert size == 4 * (full * (2 * 6 * 2 + 2 + 4) + full // 8 * 6 * 4)


def test_importing_has_no_side_effect(tmp_path):
    paths = [path for path in FOLDER.rglob("*.py") if "tests" not in path.parts]
    modules = sorted(".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in paths)
    code = (
        "import sys, threading\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "sys.argv = ['x', '--nonsense']\n"
        "before = threading.active_count()\n"
        f"for name in {modules!r}: __import__(name.removesuffix('.__init__'))\n"
        "import network.optimizers\n"
        "assert 'wandb' not in sys.modules and 'tensorboard' not in sys.modules\n"
        "assert threading.active_count() == before\n"
        "import torch\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "own = network.optimizers.unmarked(torch.optim.Adam)([weight])\n"
        "weight.sum().backward()\n"
        "own.step()\n"
        "assert 'torch._dynamo' not in sys.modules, 'seconds of each process that trains'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "moved"),
    [
        (torch.optim.SGD, [0.05, -0.2]),
        (torch.optim.Adam, [0.1, -0.1]),  # the first step: the rate, whatever the size
        # the first step: rate * sqrt(eps) / sqrt(0.1 g^2 + eps) * g, of Zeiler 2012
        (torch.optim.Adadelta, [0.1 * 1e-3 * 10**0.5, -0.1 * 1e-3 * 10**0.5]),
    ],
)
def test_optimisers_step_as_torchs_and_keep_their_state(kind, moved):
    weights = [torch.nn.Parameter(torch.tensor([1.0, 1.0])) for _ in range(2)]
    first, second = (unmarked(kind)([weight], lr=0.1) for weight in weights)
    for step, optimizer, weight in ((1, first, weights[0]), (2, first, weights[0])):
        optimizer.zero_grad()
        (weight * torch.tensor([0.5, -2.0])).sum().backward()
        optimizer.step()
        if step == 1:
            expected = 1 - torch.tensor(moved)
            torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-6)
            weights[1].data.copy_(weight.data)
            second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch shares it
    (weights[1] * torch.tensor([0.5, -2.0])).sum().backward()
    second.step()
    assert torch.equal(weights[0], weights[1])
    assert isinstance(first, kind)


def test_weights_follow_the_seed():
    params = Params(unet_steps=1, first_layer_channels=2)
    states = [
        seeded_model(
            dataclasses.replace(params, initialize_weights=wanted), CPU.device
        ).state_dict()
        for wanted in (False, False, True)
    ]
    assert_same(states[0], states[1])
    weight = "down_path.1.layers.3.weight"
    assert not torch.equal(states[0][weight], states[2][weight])
    assert np.isclose(float(states[2][weight].std()), (2 / (4 * 27)) ** 0.5, rtol=0.2)

"""train.py as a user runs it: outputs, determinism, resume after a kill, controls, faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from common.files import InputError
from network import models, streamed
from network.adam import Adam
from network.checkpoints import (
    checkpoint_epochs,
    load_history,
    load_model,
    model_from_config,
    model_state,
)
from network.grey import knots_of
from network.models import batch_loss
from runs.configuration import (
    compose_settings,
    config_folder_overrides,
    plain_booleans,
    plain_settings,
)
from runs.data import expand_barcodes, open_dataset
from runs.training import model_settings, sampler_of, train

FOLDER = Path(__file__).resolve().parents[1]
OLD_KEYS = {
    "experiment_path", "pr_config", "network_config", "L_config", "ca_config", "data_count",
    "sampling_rate", "dataset_config",
}  # fmt: skip


def settings_of(args, *more):
    return compose_settings([*args, "device=cpu", *more])


def same_state(a, b):
    first, second = (model_state(list(checkpoint_epochs(run).values())[-1]) for run in (a, b))
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_holds_everything(tiny_run):
    """Check 14: key set and shapes of the released files, eight old keys, data-only twins."""
    assert list(checkpoint_epochs(tiny_run)) == [0, 1, 2]
    tree = torch.load(tiny_run / "model_chkpnt_2.pt", weights_only=True)
    assert set(tree) == {"model", "optim"}
    assert tree["model"]["network.1.tau"].shape == (2, 1)
    assert tree["model"]["pr.x_weight"].shape == (1, 1, 35, 35)
    twin = model_state(tiny_run / "model_chkpnt_2.safetensors")
    assert all(torch.equal(twin[key], value) for key, value in tree["model"].items())
    config = json.loads((tiny_run / "config.json").read_text())
    assert set(config) >= OLD_KEYS | {"seed", "versions", "git", "neuron_uids"}
    assert config["L_config"]["lc_types"] == ["lc11", "lc12", "lplc2"]
    assert config["neuron_uids"]["lc11"] == [2019010101]
    history, epochs = load_history(tiny_run)
    assert set(history) == {"lc11", "lc12", "lplc2"}
    assert all(set(values) == {1, 2} for values in epochs.values())
    header = (tiny_run / "scores.csv").read_text().splitlines()
    assert "peak_correlation" in header[0]
    assert sum("held_out" in line for line in header) == 3


def test_same_seed_same_bits_and_resume_goes_on(tiny_args, tmp_path):
    """Checks 11 and 13: bit-equal histories; two epochs, then two more, equal four at once."""
    plain = settings_of(tiny_args, "n_epochs=4", "seed=3")
    train(plain, run_dir=tmp_path / "whole")
    train(settings_of(tiny_args, "n_epochs=2", "seed=3"), run_dir=tmp_path / "half")
    before = load_history(tmp_path / "half")[0]
    resume = settings_of(tiny_args, "n_epochs=4", f"resume={tmp_path / 'half'}")
    train(resume, explicit=["n_epochs", "resume"])
    whole, half = (load_history(tmp_path / name)[0] for name in ("whole", "half"))
    assert whole == half
    assert all(half[name][: len(values)] == values for name, values in before.items())
    assert same_state(tmp_path / "whole", tmp_path / "half")
    with pytest.raises(InputError, match="lr cannot change in a resumed run"):
        train(resume, explicit=["lr", "resume"])


def test_resume_after_sigkill_is_bitwise_equal(tiny_args, tmp_path):
    arguments = [*tiny_args, "n_epochs=12", "seed=4"]
    command = [
        sys.executable,
        str(FOLDER / "train.py"),
        *arguments,
        f"expt_path={tmp_path / 'killed'}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed").glob("*/model_chkpnt_1.pt")):
        assert process.poll() is None, "training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = next((tmp_path / "killed").iterdir())
    assert max(checkpoint_epochs(run)) < 12
    train(settings_of(tiny_args, f"resume={run}"), explicit=["resume"])
    train(settings_of(arguments), run_dir=tmp_path / "whole")
    assert load_history(run) == load_history(tmp_path / "whole")
    assert same_state(run, tmp_path / "whole")


def test_nan_loss_stops_and_keeps_the_last_checkpoint(tiny_args, tmp_path):
    settings = settings_of(
        tiny_args, "n_epochs=3", "lr=1e30", "clip_max_norm=null", "shuffle_dataset=false"
    )
    with pytest.raises(InputError, match=r"the loss is (nan|inf) on the batch of .*vstim_"):
        train(settings, run_dir=tmp_path / "run")
    state = model_state(list(checkpoint_epochs(tmp_path / "run").values())[-1])
    assert all(torch.isfinite(value).all() for value in state.values())


def test_new_read_outs_on_a_frozen_trunk(tiny_args, tiny_run, tmp_path):
    settings = settings_of(tiny_args, "n_epochs=1", "seed=9", f"trunk={tiny_run}")
    train(settings, run_dir=tmp_path / "run")
    old, new = (model_state(folder / name) for folder, name in (
        (tiny_run, "model_chkpnt_2.pt"), (tmp_path / "run", "model_chkpnt_1.pt")))  # fmt: skip
    for key in old:
        frozen = key.startswith(("pr.", "network.", "norm_layers."))
        assert torch.equal(old[key], new[key]) == frozen or key.endswith("ca_tau"), key


@pytest.mark.slow
def test_multirun_trains_one_run_a_seed(script, tiny_args, tmp_path):
    script(
        "train.py", "--multirun", *tiny_args, "n_epochs=1", "seed=1,2",
        f"expt_path={tmp_path / 'runs'}",
        f"hydra.sweep.dir={tmp_path / 'sweep'}", cwd=tmp_path,
    )  # fmt: skip
    runs = sorted((tmp_path / "runs").iterdir())
    seeds = [json.loads((run / "config.json").read_text())["seed"] for run in runs]
    assert sorted(seeds) == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "sweep"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lrr=0.1", "unknown key lrr: did you mean lr"),
        ("+lr2=0.1", "unknown key lr2"),
        ("dataset=nope", "expected one of lc_small, synthetic_small"),
        ("model.network.out_chanels=[3]", "did you mean model.network.out_channels"),
        ("n_epochs=two", "n_epochs: Value 'two' of type 'str' could not be converted to Integer"),
        ("dataset.mov_res=wide", "dataset.mov_res: Value 'wide'"),
        ("keep_best=2", "keep_best=2: expected true or false"),
        ("val_stimuli=5", "expected a list, val_stimuli=[5]"),
        ("oversample.5=2", "a new entry is added with +oversample.5=2"),
    ],
)
def test_wrong_keys_are_one_line(here, argument, message):
    from train import main

    done = here(main, argument, check=2)
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_wrong_values_are_named_together(tiny_args):
    with pytest.raises(InputError, match=r"batch_size=0.*lr=-1.*lr_decay=fast"):
        settings_of(tiny_args, "batch_size=0", "lr=-1", "lr_decay=fast")


@pytest.mark.parametrize(
    "fault",
    ["dataset.sampling_rate=0", "dataset.mov_bg_int=1.2", "dataset.loss_meas_t_start=nan",
     "lr=inf", "clip_max_norm=0", "val_fraction=1", "val_by=type", "early_stop=0", "device=tpu",
     "init=slow", "readout=left", "dataset.nan=keep", "+oversample.5=0",
     "clip_param.pattern1.min=high", "clip_param.pattern2.min=2", "dataset.num_t_pts_prepad=-1"],
)  # fmt: skip
def test_values_out_of_range_are_one_line(fault):
    name = fault.strip("+").split("=")[0].removesuffix(".min")
    with pytest.raises(InputError, match=f"^{name}.*expected"):
        compose_settings([fault])


def test_every_key_of_the_model_has_a_type():
    settings = compose_settings(["model.ca.use_global_ca_tau=off"])
    assert settings["model"]["ca"]["use_global_ca_tau"] is False
    with pytest.raises(InputError, match=r"model\.network\.t_kernel_size: Value 'long'"):
        compose_settings(["model.network.t_kernel_size=long"])
    with pytest.raises(InputError, match=r"model\.pr\.tau: Value 'x'"):
        compose_settings(["model.pr.tau=x"])


def test_yaml_of_a_laboratory_stays_outside(here, tmp_path, capsys):
    from train import main

    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text(
        "defaults: [lc_small, _self_]\nname: mine\nsampling_rate: 60\navg_xTrials: no\n"
    )
    for flags in (
        [f"--config-dir={tmp_path}"], ["--config-dir", tmp_path], ["-cd", tmp_path],
        [f"hydra.searchpath=[file://{tmp_path}]"], [f"hydra.searchpath=[{tmp_path}]"],
    ):  # fmt: skip
        overrides = [o for o in map(str, flags) if o.startswith("hydra")]
        settings = plain_settings(
            [*config_folder_overrides(list(map(str, flags))), *overrides, "dataset=mine", "lr=0.1"]
        )
        assert settings["dataset"]["name"] == "mine"
        assert settings["dataset"]["avg_xTrials"] is False
    done = here(main, f"--config-dir={tmp_path}", "dataset=nope", check=2)
    assert "expected one of lc_small, mine, synthetic_small" in done.err
    done = here(main, "--config-dir", tmp_path / "no", "dataset=mine", check=2)
    assert "no: no such folder" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_launcher_that_is_not_installed_is_one_line(script):
    done = script("train.py", "--multirun", "hydra/launcher=absent", "seed=1,2", check=2)
    assert "hydra/launcher=absent" in done.stderr
    assert "pip install -r requirements-launchers.txt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("word", ["no", "off", "false"])
def test_no_means_false_on_the_command_line(word):
    given = ["dataset.avg_xTrials", "shuffle_labels", "model.ca.use_global_ca_tau"]
    given = [f"{key}={word}" for key in given]
    assert all(text.endswith("=false") for text in plain_booleans(given))
    settings = compose_settings(given)
    assert settings["dataset"]["avg_xTrials"] is False
    assert settings["shuffle_labels"] is False


def test_barcode_ranges():
    assert expand_barcodes([5, "321-323"]) == {5, 321, 322, 323}
    with pytest.raises(InputError, match="expected a number or first-last"):
        expand_barcodes(["loom"])


def test_adam_is_torchs_without_its_compiler():
    def steps(kind):
        weights = [torch.nn.Parameter(torch.linspace(-1, 1, n)) for n in (7, 3)]
        optimiser = kind(weights, lr=0.01)
        for i in range(6):
            if i == 3:
                optimiser.load_state_dict(optimiser.state_dict())
            optimiser.zero_grad()
            sum((w**3 * (i + 1)).sum() for w in weights[: 1 + i % 2]).backward()
            optimiser.step()
        return weights, optimiser.state_dict()

    (ours, state), (theirs, expected) = steps(Adam), steps(torch.optim.Adam)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert state["param_groups"] == expected["param_groups"]
    for i, values in expected["state"].items():
        assert all(torch.equal(state["state"][i][key], value) for key, value in values.items())
    code = (
        "import sys, torch; from network.adam import Adam; w = torch.nn.Parameter(torch.ones(1)); "
        "o = Adam([w]); o.zero_grad(); w.sum().backward(); o.step(); o.state_dict(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER, check=False).returncode == 0


def first_step(args, prepad, frames, *, skip=0):
    """Return (loss, gradients, a running variance) of a first batch after ``frames`` of grey."""
    settings = settings_of(
        args, f"prepad={prepad}", f"dataset.num_t_pts_prepad={frames}",
        "model.network.tau_init=[-2,-1]", "model.lobula.tau_init=[-2,-1]",
    )  # fmt: skip
    dataset = open_dataset(settings)
    model = model_from_config(model_settings(settings, dataset), seed=0)
    model.norm_skip_frames = skip
    dataset.sample = sampler_of(model)
    batch = default_collate([dataset[row] for row in (0, 4, 9, 20)])
    model.train()
    curves = model.predict_items(batch["sampled"], batch["lc_type"], batch["neuron_num"][:, 0])
    total, _ = batch_loss(curves, batch["ca_trace"], batch["scored"], batch["lc_type"])
    total.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return float(total.detach()), grads, model.norm_layers[1].running_var.clone()


def same_steps(ours, expected, *, rel, grad_rel):
    """Assert that two results of ``first_step`` are equal; a gradient by its largest value."""
    assert ours[0] == pytest.approx(expected[0], rel=rel)
    torch.testing.assert_close(ours[2], expected[2], rtol=rel, atol=1e-7)
    for name, grad in expected[1].items():
        scale = float(grad.abs().max()) + 1e-6
        assert float((ours[1][name] - grad).abs().max()) < grad_rel * scale, name


def test_settled_grey_is_endless_padding(tiny_args):
    """Losses and gradients are those of very long padding of which 5 frames count."""
    results = []
    for prepad, frames in (("settled", 5), ("frames", 1200)):
        skip = 1195 if prepad == "frames" else 0
        results.append(first_step(tiny_args, prepad, frames, skip=skip))
    same_steps(*results, rel=1e-4, grad_rel=2e-3)


def test_thinned_grey_is_the_published_padding(tiny_args, monkeypatch):
    """Batches with 600 frames of grey have the same losses, gradients and statistics."""
    monkeypatch.setattr(streamed, "LONG_VALUES", 0)
    monkeypatch.setattr(streamed, "SMALL_FRAME", 0)
    results, seen = [], []
    monkeypatch.setattr(models, "knots_of", lambda n: seen.append(n) or knots_of(n))
    for prepad in ("thinned", "frames"):
        results.append(first_step(tiny_args, prepad, 600))
    assert len(seen) == 1
    assert seen[0] >= 600
    same_steps(*results, rel=1e-5, grad_rel=1e-3)


def test_a_thinned_run_trains(tiny_args, tmp_path):
    run = train(settings_of(tiny_args, "prepad=thinned", "n_epochs=1"), run_dir=tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["prepad"] == "thinned"
    assert load_model(run).grey_at_knots
    with pytest.raises(InputError, match="prepad=thinned has no single frames to skip"):
        settings_of(tiny_args, "prepad=thinned", "norm_skip_frames=3")


def test_a_settled_run_trains_and_is_scored(tiny_args, tmp_path):
    run = train(settings_of(tiny_args, "prepad=settled", "n_epochs=1"), run_dir=tmp_path / "run")
    assert json.loads((run / "config.json").read_text())["prepad"] == "settled"
    assert load_model(run).settled_frames == 5
    with pytest.raises(InputError, match="prepad=settled has no single frames to skip"):
        settings_of(tiny_args, "prepad=settled", "norm_skip_frames=3")

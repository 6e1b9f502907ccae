"""Options shared by the tests of this folder."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent.name


def pytest_addoption(parser):
    # pytest has a switch --fixtures of its own (its other name, --funcargs, stays): take the name.
    parser._anonymous._arggroup.conflict_handler = "resolve"
    parser.addoption(
        "--fixtures", default=str(TESTS / "fixtures"), help="folder of parity fixtures"
    )
    parser.addoption("--real", default=None, help="folder with the real data files")


@pytest.fixture(scope="session")
def real_dir(request):
    """Folder of real data; a test that needs it is skipped, with the reason, when it is absent."""
    given = request.config.getoption("--real")
    folder = Path(given) if given else TESTS.parents[1] / "data" / FOLDER / "real"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: pass --real DIR")
    return folder


@pytest.fixture(autouse=True)
def numbers_of_every_size():
    """Undo what building a model sets for the process: numbers below 1e-38 become 0."""
    torch.set_flush_denormal(False)


def run_script(name, *args, cwd=None, check=0, timeout=300):
    """Run a script of the folder as a user does; return the finished process."""
    done = subprocess.run(
        [sys.executable, str(TESTS.parent / name), *map(str, args)],
        cwd=cwd or TESTS.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == check, (
        f"{name} {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


@pytest.fixture(scope="session")
def script():
    """Return run_script."""
    return run_script


@pytest.fixture
def here(capsys):
    """Return a function that calls a script's main in this process, without a new interpreter.

    It returns the captured (out, err); each script is started for real once, by another test.
    """

    def call(main, *args, check=0):
        try:
            code = main([str(arg) for arg in args]) or 0
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        assert code == check, f"{args}: {code}\n{captured.out}\n{captured.err}"
        return captured

    return call


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    """Folder of a tiny synthetic set: 9 stimuli, 3 types, 1 neuron each, 60 Hz, 51 pixels."""
    out = tmp_path_factory.mktemp("data") / "tiny"
    run_script("make_synthetic.py", "--out", out, "--stimuli", "tiny", "--neurons", 1)
    return out


@pytest.fixture(scope="session")
def tiny_args(tiny_set):
    """Return the overrides that train two hidden layers of two channels on the tiny set."""
    return [
        f"dataset.ca_path={tiny_set}/ca_traces",
        f"dataset.mov_path={tiny_set}/movies",
        "dataset.num_t_pts_prepad=5",
        "model.network.out_channels=[2,2]",
        "model.network.x_kernel_size=[3,3]",
        "model.network.x_stride=[1,1]",
        "model.network.x_padding=[1,1]",
        "model.network.activation=[identity,leaky_relu]",
        "batch_size=9",
        "device=cpu",
    ]


@pytest.fixture(scope="session")
def tiny_run(tiny_args, tmp_path_factory):
    """Run folder of two epochs on the tiny set."""
    runs = tmp_path_factory.mktemp("runs")
    run_script("train.py", *tiny_args, "n_epochs=2", f"expt_path={runs}", "val_fraction=0.25")
    return next(runs.iterdir())

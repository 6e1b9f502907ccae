"""The command line of train.py: what is neither key=value nor a known flag is one line."""

import re

import pytest

from runs.arguments import split_arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr"], "lr: expected key=value or a known flag"),
        (["=3"], "=3: expected key=value"),
        (["--multirum", "seed=1,2"], "--multirum: .*did you mean --multirun"),
        (["--config-name", "mine"], "--config-name: conf/ of this folder is always read"),
        (["--config-path=mine"], "--config-path: conf/ of this folder is always read"),
        (["--config-dir"], "--config-dir: expected a value behind it"),
        (["--config-dir="], "--config-dir: expected a value behind it"),
        (["--config-dir", "dataset=mine"], "--config-dir: expected a value behind it"),
        (["-cd", "--multirun"], "-cd: expected a value behind it"),
        (["~lr"], "lr: Missing mandatory value"),
        (["~lrr=1"], "unknown key lrr: did you mean lr"),
    ],
)
def test_arguments_that_are_nothing_are_one_line(here, arguments, message):
    from train import main

    done = here(main, *arguments, check=2)
    (line,) = done.err.strip().splitlines()
    assert re.search(message, line)


def test_flags_keep_their_values():
    arguments = ["--config-dir", "a b", "lr=1", "-m", "--cfg=job", "+oversample.5=2", "~dataset"]
    overrides, flags = split_arguments(arguments)
    assert overrides == ["lr=1", "+oversample.5=2", "~dataset"]
    assert flags == ["--config-dir", "a b", "-m", "--cfg=job"]

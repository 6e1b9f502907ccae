"""Read the fixtures of test_parity.py: arrays, their names, and numbers in the names."""

import re

import numpy as np
import pytest


def load(path):
    with np.load(path, allow_pickle=False) as held:
        return {key: held[key] for key in held.files}


def partner(path, own, prefix):
    """Return the fixture of another prefix with the same suffix, or skip."""
    other = path.with_name(prefix + path.stem.removeprefix(own) + ".npz")
    if not other.is_file():
        pytest.skip(f"no {other.name} beside {path.name}")
    return load(other)


def close(found, wanted, atol, rtol=0.0):
    np.testing.assert_allclose(np.asarray(found), wanted, atol=atol, rtol=rtol)


def named(d, pattern):
    """Yield (groups, array) of every array whose whole name matches; there must be one at least."""
    arrays = [(match.groups(), d[key]) for key in d if (match := re.fullmatch(pattern, key))]
    assert arrays, f"no array named {pattern}"
    return arrays


def number(text):
    """Return the number in a name: 0p5 is 0.5."""
    return float(text.replace("p", "."))

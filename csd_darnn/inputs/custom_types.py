"""The records that are passed between functions: three published ones and the options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class TrainConfig(NamedTuple):
    """Sizes of a training: window parameter, number of training rows, batch size, loss."""

    T: int
    train_size: int
    batch_size: int
    loss_func: Callable


class TrainData(NamedTuple):
    """Standardised series: ``feats`` (n, N) driving series, ``targs`` (n, o) targets, float32."""

    feats: Any
    targs: Any


class DaRnnNet(NamedTuple):
    """The two networks and their optimisers."""

    encoder: Any
    decoder: Any
    enc_opt: Any
    dec_opt: Any


@dataclass(frozen=True)
class ModelOptions:
    """Choices of section 6.5; the defaults are the published network."""

    attention: str = "linear"  # linear, tanh
    readout: str = "bottom"  # bottom, top
    predict: str = "level"  # level, change
    layers: int = 2
    attention_scale: str = "1"  # a number, or n for the number of driving series

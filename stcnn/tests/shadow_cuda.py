"""A pretended CUDA device: CPU values inside tensors that say they are on cuda:0.

``with ShadowCuda() as card`` lets unchanged PyTorch code run "on CUDA" on a machine without one.
Values are real, so results are compared with the CPU's; the rules are CUDA's: a CPU tensor of one
or more dimensions beside one of the card raises, ``.numpy()`` of the card raises. ``card.events``
counts what crosses the bus or makes the processor wait: {(what, "file:line"): times}. What is kept
from a real card: speed, memory, kernels that are missing or round otherwise, cuDNN's own rules.
The same file lies beside the tests of csd_darnn, sparks_unet and stcnn.
"""

import collections
import contextlib
import sys

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
functional = torch.nn.functional
CARD = torch.device("cuda", 0)
INDEXING = {aten.index, aten.index_put_, aten._index_put_impl_}
# These take CPU tensors of any size beside the card's own.
MIXING_IS_FREE = {
    aten.copy_, aten._to_copy, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_,
    aten._unsafe_index, aten._unsafe_index_put, aten.set_,
}  # fmt: skip
# Their result has to reach the processor before the next line can run.
WAITS = {
    aten._local_scalar_dense: "item", aten.nonzero: "nonzero", aten.masked_select: "mask",
    aten.equal: "equal", aten.allclose: "allclose", aten._unique2: "unique",
    aten.unique_consecutive: "unique",
}  # fmt: skip
# torch.autocast on CUDA, in outline: products and convolutions are rounded, sums and logs are not.
ROUNDED = {
    functional.conv1d, functional.conv2d, functional.conv3d, functional.conv_transpose1d,
    functional.conv_transpose2d, functional.conv_transpose3d, functional.linear, torch.conv1d,
    torch.conv2d, torch.conv3d, torch.conv_transpose3d, torch.matmul, torch.Tensor.matmul,
    torch.Tensor.__matmul__, torch.mm, torch.bmm, torch.addmm, torch.einsum, torch.lstm_cell,
}  # fmt: skip
EXACT = {
    torch.exp, torch.Tensor.exp, torch.log, torch.Tensor.log, torch.pow, torch.Tensor.pow,
    torch.sum, torch.Tensor.sum, torch.prod, torch.Tensor.prod, torch.norm, torch.cumsum,
    torch.logsumexp, torch.softmax, torch.Tensor.softmax, torch.log_softmax,
    torch.Tensor.log_softmax, functional.softmax, functional.log_softmax, functional.nll_loss,
    functional.cross_entropy, functional.mse_loss,
}  # fmt: skip
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
ANSWERS = {
    "is_available": True, "is_initialized": True, "is_bf16_supported": True, "device_count": 1,
    "current_device": 0, "get_device_name": "shadow", "max_memory_allocated": 0,
    "synchronize": None, "empty_cache": None, "set_device": None,
    "reset_peak_memory_stats": None,
}  # fmt: skip
active = []  # the card in use, at most one


class Shadow(torch.Tensor):
    """A tensor of the card; ``held`` is the CPU tensor with its values."""

    @staticmethod
    def __new__(cls, held):
        self = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device="meta",
        )  # fmt: skip
        self.held = held
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    device = property(lambda self: CARD)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def __repr__(self):
        return f"Shadow({self.held!r})"

    def __getitem__(self, index):
        return super().__getitem__(as_index(index))

    def __setitem__(self, index, value):
        return super().__setitem__(as_index(index), value)

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *_, **__):
        return self.numpy()

    def tolist(self):
        note("item")
        return self.held.tolist()

    def pin_memory(self, *_):
        raise RuntimeError("cannot pin a tensor of the card, only one of the CPU")

    def __deepcopy__(self, memo):
        twin = Shadow(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, self.requires_grad)
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol):
        note("saved from the card")
        return self.held.detach().clone().__reduce_ex__(protocol)


def as_index(index):
    """Return ``index`` with lists as CPU tensors, as PyTorch makes them (a copy at every call)."""
    if isinstance(index, tuple):
        return tuple(as_index(one) for one in index)
    return torch.tensor(index) if isinstance(index, list | np.ndarray) else index


def note(what):
    """Count ``what`` at the innermost line below one of the watched folders."""
    if not active:
        return
    frame, card = sys._getframe(1), active[-1]
    while frame is not None and not card.watches(frame.f_code.co_filename):
        frame = frame.f_back
    line = f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}" if frame else "?"
    card.events[what, line] += 1


def on_card(device):
    """Return whether ``device`` names the card."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def check_devices(func, args, tensors):
    """Raise where CUDA would, because tensors of two devices meet; count hidden copies."""
    packet = func.overloadpacket
    strangers = [t for t in tensors if not isinstance(t, Shadow) and t.dim()]
    if packet not in MIXING_IS_FREE and strangers:
        raise RuntimeError(
            f"{func}: Expected all tensors to be on the same device, but found at least two "
            f"devices, cuda:0 and cpu (CPU shape {tuple(strangers[0].shape)})"
        )
    if packet in WAITS:
        note(WAITS[packet])
    if packet not in INDEXING:
        return
    places = [place for place in args[1] if isinstance(place, torch.Tensor)]
    if not isinstance(args[0], Shadow):
        if any(isinstance(place, Shadow) for place in places):
            raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
        return
    for place in places:
        if not isinstance(place, Shadow):
            note("index from CPU")
        if place.dtype in (torch.bool, torch.uint8):
            note("mask")
    values = args[2] if len(args) > 2 else None
    if isinstance(values, torch.Tensor) and not isinstance(values, Shadow) and values.dim():
        raise RuntimeError("index_put_: Expected all tensors to be on the same device")


def dispatch(func, args, kwargs):
    """Run one operation on the held CPU tensors; its results are the card's where CUDA's are."""
    packet, target = func.overloadpacket, kwargs.get("device")
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    owners = {id(t.held): t for t in tensors if isinstance(t, Shadow)}
    if owners:
        check_devices(func, args, tensors)
    to_card = bool(owners)
    if packet is aten.copy_ and isinstance(args[1], torch.Tensor):
        into, source = isinstance(args[0], Shadow), isinstance(args[1], Shadow)
        if into != source:
            note("to GPU" if into else "to CPU")
    if packet is aten._to_copy:
        source = isinstance(args[0], Shadow)
        to_card = source if target is None else on_card(target)
        if to_card != source:
            note("to GPU" if to_card else "to CPU")
    elif target is not None:
        to_card = on_card(target)
    if on_card(target):
        kwargs = kwargs | {"device": torch.device("cpu")}
    if "pin_memory" in kwargs:
        kwargs = kwargs | {"pin_memory": False}

    def bare(value):
        return value.held if isinstance(value, Shadow) else value

    result = func(*tree_map(bare, args), **tree_map(bare, kwargs))
    given = {id(t): t for t in tensors} | owners

    def dressed(value):
        if not isinstance(value, torch.Tensor):
            return value
        return given.get(id(value)) if id(value) in given else Shadow(value) if to_card else value

    return tree_map(dressed, result)


class Autocast(TorchFunctionMode):
    """torch.autocast("cuda") in outline: ROUNDED in ``dtype``, EXACT in float32."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        wanted = self.dtype if func in ROUNDED else torch.float32 if func in EXACT else None

        def cast(value):
            fits = isinstance(value, Shadow) and value.dtype in FLOATS and value.dtype != wanted
            return value.to(wanted) if fits else value

        args, kwargs = (
            (args, kwargs or {}) if wanted is None else tree_map(cast, (args, kwargs or {}))
        )
        return func(*args, **kwargs)


class ShadowCuda(TorchDispatchMode):
    """The pretended device in force; ``watch``: parts of the paths whose lines events name."""

    def __init__(self, watch):
        super().__init__()
        self.watch, self.events, self.saved = watch, collections.Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def watches(self, path):
        """Return whether events are counted at lines of the file ``path``."""
        foreign = "site-packages" in path or path == __file__
        return not foreign and any(part in path for part in self.watch)

    def waits(self):
        """Return how often the processor waited for the card or fetched something from it."""
        return sum(n for (what, _), n in self.events.items() if what in {*WAITS.values(), "to CPU"})

    def table(self):
        """Return the events as text, the most frequent first."""
        rows = self.events.most_common()
        return "\n".join(f"{count:7d}  {what:20s} {line}" for (what, line), count in rows)

    def _patch(self, owner, name, value):
        self.saved.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def __enter__(self):
        active.append(self)
        self._patch(torch.cuda, "_lazy_init", lambda: None)
        for name, answer in ANSWERS.items():
            self._patch(torch.cuda, name, lambda *_, answer=answer, **__: answer)
        self._patch(torch.Tensor, "to", moving(torch.Tensor.to))
        self._patch(torch.Tensor, "cuda", lambda self, *_, **__: self.to(CARD))
        for name in ("tensor", "as_tensor"):
            self._patch(torch, name, making(getattr(torch, name)))
        self._patch(torch, "load", loading(torch.load))
        self._patch(torch, "autocast", casting(torch.autocast))
        # Inference mode takes .to() apart before this mode sees it.
        self._patch(torch, "inference_mode", torch.no_grad)
        return super().__enter__()

    def __exit__(self, *exc):
        active.pop()
        super().__exit__(*exc)
        while self.saved:
            setattr(*self.saved.pop())


def moving(plain):
    """Return Tensor.to for the card, made of the plain one."""

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], torch.Tensor):
            device, dtype, layout = args[0].device, args[0].dtype, None
        else:
            named = {key: value for key, value in kwargs.items() if key != "copy"}
            device, dtype, _, layout = torch._C._nn._parse_to(*args, **named)
        extra = {} if layout is None else {"memory_format": layout}
        if on_card(device) and isinstance(self, Shadow):
            same = dtype in (None, self.dtype) and not extra
            return self if same else plain(self, dtype or self.dtype, **extra)
        if on_card(device) and type(self) in (torch.Tensor, torch.nn.Parameter):
            return plain(self, CARD, dtype or self.dtype, **extra)
        return plain(self, *args, **kwargs)

    return to


def making(plain):
    """Return torch.tensor or as_tensor that can make a tensor of the card."""

    def make(data, *args, device=None, **kwargs):
        made = plain(data, *args, **kwargs)
        return made.to(CARD) if on_card(device) else made

    return make


def loading(plain):
    """Return torch.load that can load onto the card; one without map_location is counted."""

    def load(file, map_location=None, **kwargs):
        if map_location is None:
            note("torch.load without map_location")
        if not on_card(map_location):
            return plain(file, map_location=map_location, **kwargs)
        return tree_map(
            lambda value: value.to(CARD) if isinstance(value, torch.Tensor) else value,
            plain(file, map_location="cpu", **kwargs),
        )

    return load


def casting(plain):
    """Return torch.autocast that rounds for the card."""

    def autocast(device_type, dtype=None, enabled=True, **kwargs):
        if torch.device(device_type).type != "cuda":
            return plain(device_type, dtype=dtype, enabled=enabled, **kwargs)
        return Autocast(dtype or torch.float16) if enabled else contextlib.nullcontext()

    return autocast

"""torch's optimisers without the seconds in which they load torch's compiler.

torch marks the methods of its optimisers as not meant for the compiler, and a mark imports all of
it (torch._dynamo, 3 to 5 s of processor time) when it is first met, in each process that trains.
The methods themselves lie under the marks: steps and state are bit for bit the same.
"""

import functools
import inspect

import torch

MARKED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


@functools.cache
def unmarked(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return an optimiser class whose methods never import the compiler."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in MARKED}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)

"""Adam as torch has it, without the five seconds in which torch's own starts.

torch marks the methods of its optimisers as not meant for its compiler, and a mark imports the
whole compiler (torch._dynamo) when it is first met: 3 to 5 s of CPU in each process that trains.
The methods themselves lie under the marks; steps and state are bit for bit the same.
"""

from collections.abc import Callable

import torch


def _unmarked(method):
    return getattr(method, "__wrapped__", method)


class Adam(torch.optim.Adam):
    """torch.optim.Adam that never imports the compiler."""

    add_param_group = _unmarked(torch.optim.Adam.add_param_group)
    zero_grad = _unmarked(torch.optim.Adam.zero_grad)
    state_dict = _unmarked(torch.optim.Adam.state_dict)
    load_state_dict = _unmarked(torch.optim.Adam.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> float | None:
        """Do one step; see torch.optim.Adam."""
        return _unmarked(torch.optim.Adam.step)(self, closure)

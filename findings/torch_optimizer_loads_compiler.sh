#!/usr/bin/env bash
# One would guess: a program that never calls torch.compile does not pay for it; making an Adam of one
#   weight costs microseconds.
# What happens: making the first optimiser of a process imports torch's compiler, about 800
#   modules (torch._dynamo and what it needs) and a second or more of processor time: its methods
#   carry a mark that the compiler is to leave them alone, and the mark loads it.
# Where users meet it: short trainings in many processes (one network a target pixel, a sweep, tests,
#   a demo): each process pays more for this than for its first hundred steps.
# Source: own trial; found with python -X importtime.
set -euo pipefail
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT; cd "$scratch"
python3 -m venv env
env/bin/pip install -q torch==2.13.0 numpy==2.4.6
env/bin/python -W ignore - <<'PYTHON'
import sys
import time

import torch


def loaded():
    return len(sys.modules), sum(name.startswith("torch._dynamo") for name in sys.modules)


weight = torch.nn.Parameter(torch.zeros(1))
before, clock = loaded(), time.process_time()
torch.optim.Adam([weight])
first = time.process_time() - clock
after, clock = loaded(), time.process_time()
torch.optim.Adam([weight])
second = time.process_time() - clock
print(f"torch {torch.__version__}: modules {before[0]} before, {after[0]} after the first Adam;",
      f"of torch._dynamo {before[1]} and {after[1]}")
print(f"processor time: first Adam {first:.2f} s, second {second:.4f} s")
assert before[1] == 0 < 50 < after[1]
assert first > 100 * second
PYTHON

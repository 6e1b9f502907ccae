"""The locks and the recipes: exact, complete for every Python, and with cuDNN where a GPU is."""

import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement

import uv_install
import venvs
from locks import TORCH_CUDA, digest, normal, pins
from repository import ROOT, tracked

ENVIRONMENTS = venvs.find_environments()
AGAIN = "python3 run.py lock writes it anew"


def locked(environment):
    """Return the requirements in the lock of ``environment``."""
    lines = environment.lock.read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def resolve(*arguments, text=""):
    """Return {package: version} that ``uv pip compile`` chooses, from its cache where it can."""
    uv, why = uv_install.find_uv()
    if not uv:
        pytest.skip(f"no uv: {why}")
    flags = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    # naming an interpreter spares the search for one of the wanted version
    flags += ["--python", sys.executable, *uv_install.pip_flags()]
    for network in (["--offline"], []):
        command = ["pip", "compile", *arguments, *flags, *network]
        code, listing, complaint = uv_install.ask_uv(uv, *command, text=text)
        if code == 0:
            found = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", listing, re.M)
            return {normal(name): version for name, version in found}
    problem = uv_install.explain_text(complaint)
    if problem.startswith(uv_install.NO_ANSWER):
        pytest.skip(f"not in uv's cache, and {problem}")
    pytest.fail(problem)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_lock_belongs_to_its_requirements(name):
    environment = ENVIRONMENTS[name]
    head = environment.lock.read_text().splitlines()[1]
    assert f"pins: {digest(environment.files)};" in head, AGAIN


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_lock_is_a_plain_constraint_file(name):
    environment = ENVIRONMENTS[name]
    direct = pins(environment.files)
    for requirement in locked(environment):
        assert re.fullmatch(r"==[\w.!+]+", str(requirement.specifier)), requirement
        # pip refuses extras in a constraint; a URL or a path is right on one machine only
        assert not requirement.extras
        assert requirement.url is None
        assert normal(requirement.name) not in direct, "its version stands in requirements.txt"
    assert "--hash" not in environment.lock.read_text()


@pytest.mark.parametrize("python", venvs.PYTHONS, ids=venvs.dotted)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_lock_satisfies_its_requirements(name, python):
    environment = ENVIRONMENTS[name]
    if environment.python not in ((), python):
        pytest.skip(f"{name} runs on Python {venvs.dotted(environment.python)} alone")
    chosen = resolve(
        *environment.files,
        "--constraints",
        environment.lock,
        "--python-version",
        venvs.dotted(python),
    )
    where = {
        "python_version": venvs.dotted(python),
        "python_full_version": f"{python[0]}.{python[1]}.0",
    }
    lock = {
        normal(r.name): str(r.specifier)[2:]
        for r in locked(environment)
        if r.marker is None or r.marker.evaluate(where)
    }
    indirect = {n: v for n, v in chosen.items() if n not in pins(environment.files)}
    if environment.torch:
        indirect = {n: v for n, v in indirect.items() if not TORCH_CUDA.match(n)}
    assert indirect
    assert {n: lock.get(n) for n in indirect} == indirect, AGAIN


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_holds_what_its_lock_says(name):
    environment = ENVIRONMENTS[name]
    python = venvs.interpreter(name)
    if not python.exists():
        pytest.skip(f"no environment: python3 run.py env {name}")
    ask = (
        "from importlib.metadata import distributions\n"
        "for d in distributions(): print(d.metadata['Name'], d.version)\n"
    )
    listed = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    here = {normal(n): v for n, v in (line.split() for line in listed.stdout.splitlines())}
    lock = {}
    for requirement in locked(environment):
        lock.setdefault(normal(requirement.name), set()).add(str(requirement.specifier)[2:])
    beside = {*pins(environment.files), "pip", "triton"}
    floating = {
        n: v
        for n, v in here.items()
        if n not in beside and not TORCH_CUDA.match(n) and v not in lock.get(n, ())
    }
    assert floating == {}


@pytest.mark.parametrize("path", tracked("environments/*.yml"), ids=lambda path: path.stem)
def test_recipe_resolves_to_a_gpu_build(path):
    recipe = yaml.safe_load(path.read_text())
    (pip,) = (entry["pip"] for entry in recipe["dependencies"] if isinstance(entry, dict))
    files = {line.split()[0]: path.parent / line.split()[1] for line in pip}
    environment = ENVIRONMENTS[path.stem]
    # A build for the processor in the user's own sources would be the newest of that version.
    text = f"torch!={environment.torch}+cpu" if environment.torch else ""
    found = resolve(
        files["-r"], "-", "--constraints", files["-c"], "--python-version", "3.11", text=text
    )
    assert {n: found[n] for n in pins(environment.files[:1])} == {
        n: line.split("==")[1] for n, line in pins(environment.files[:1]).items()
    }
    cudnn = [name for name in found if name.startswith("nvidia-cudnn")]
    if path.stem in {folder.parent.name for folder in ROOT.glob("*/main.py")}:
        assert len(cudnn) == 1
    else:
        assert cudnn == []  # tensorflow 2.14 for pictures only: the processor is enough

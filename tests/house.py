"""Count floors, arrows and circles of the folders, and check that door and wings keep their order.

    python3 tests/house.py                          # all folders of this checkout
    python3 tests/house.py stcnn --root /tmp/older  # one folder of another checkout

A folder counts as moved when it has ``inputs/``. An arrow is one own module that another imports;
it is late when it stands inside a function. Floors are the modules on the longest chain of arrows,
a circle counts as one floor.

The rules, each checked by ``faults``:

1. Order: common < settings < inputs < network < analysis < runs < demo < door. An arrow points to
   the same wing or to one further left; no circle anywhere, late arrows included.
2. Nobody but a test imports a door script.
3. A wing has an ``__init__.py`` with a docstring and nothing else. Python files lie in the wings,
   at the door or in ``tests/``, nowhere else; no door file bears the name of a wing.
4. In the wings imports stand at the top, but for OPTIONAL packages, those of a folder's
   ``requirements-<extra>.txt`` and LATE. No wing file has a ``__main__`` part, but for WORKERS.
5. A door file is a script: docstring, imports, OWN_PATH before the first own module (Python does
   not look there under PYTHONSAFEPATH), UPPER_CASE names, functions and the ``__main__`` part; no
   class. Its functions are ``main(argv=None)`` of at most MAIN_LINES lines, and functions
   whose name matches HELPER: they make, check or resolve flags. What else a script has to define
   stands in DOOR_FUNCTIONS with its reason. It computes nothing: of third-party packages it imports
   none but DOOR_PACKAGES. Its wings load matplotlib late: a wrong MPLBACKEND ends that import.
"""

import argparse
import ast
import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = re.compile(r"[A-Za-z][\w-]*")  # the name that a line of a requirements file starts with
ROOT = Path(__file__).resolve().parents[1]
ORDER = ("common", "settings", "inputs", "network", "analysis", "runs", "demo", "door")
WINGS = tuple(name for name in ORDER if name not in ("settings", "door"))
MAIN_LINES = 40
HELPER = re.compile(
    r"(make_|build_)?parser|parse(_\w+)?|add_\w+|check_\w+|resolve\w*|configured|default_settings"
    r"|given(_\w+)?|chosen|say_device"
)
# Package -> reason for which a wing may import it inside a function.
OPTIONAL = {
    "wandb": "a logger on request, not in requirements.txt",
    "tensorboard": "a logger on request",
    "torch.utils.tensorboard": "a logger on request; the import loads TensorFlow when it is there",
}
# File (with its folder, but for common/) -> packages that it may import inside a function; the
# reasons stand in the file.
LATE = {
    "common/cluster.py": ("joblib",),
    "common/device.py": ("torch", "tensorflow"),
    "common/figures.py": ("matplotlib",),
}
# Files of a wing that run as a process of their own, in another environment.
WORKERS = ("innvestigate_worker.py",)
OWN_PATH = "sys.path.insert(0, str(Path(__file__).resolve().parent))"
# Function -> reason, or folder/script.py -> {function: reason}.
DOOR_FUNCTIONS = {"__getattr__": "published names, found in the wings when they are asked for"}
# Package -> reason for which a door script may import it.
DOOR_PACKAGES = {"hydra": "its decorator is the entry of train.py", "omegaconf": "with hydra"}


@dataclass
class Module:
    """One Python file of a folder with its imports: {target: [(line, late)]}."""

    name: str
    path: Path
    tree: ast.Module
    own: dict = field(default_factory=dict)
    foreign: dict = field(default_factory=dict)

    @property
    def wing(self) -> str:
        """Return the wing, ``settings`` or ``door``."""
        first = self.name.split(".")[0]
        return first if first in ORDER else "door"


def module_files(folder: Path) -> dict[str, Path]:
    """Return {dotted name: path} of the Python files of a folder, tests left out."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        if parts[0] == "tests" or any(part.startswith(".") for part in parts):
            continue
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(parts)] = path
    return found


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of a name or an attribute, "" of any other expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


@functools.cache
def parsed(path: Path, changed_ns: int) -> ast.Module:
    """Return the syntax tree of a file as it was ``changed_ns`` nanoseconds after 1970."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def syntax_tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file, read again only when the file has changed."""
    return parsed(path, path.stat().st_mtime_ns)


def imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, ...], int, bool]]:
    """Yield (module, names, line, late) of every import statement and literal import_module."""
    queue = [(tree, False)]
    while queue:
        node, late = queue.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, (), node.lineno, late
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, tuple(alias.name for alias in node.names), node.lineno, late
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func) in ("import_module", "importlib.import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value, (), node.lineno, late
        inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        queue.extend((child, inside) for child in ast.iter_child_nodes(node))


def targets(name: str, names: tuple[str, ...], known: dict) -> list[str]:
    """Return the own modules that ``from name import names`` (or ``import name``) loads."""
    inner = [f"{name}.{one}" for one in names if f"{name}.{one}" in known]
    if inner:
        return inner
    return [name] if name in known else []


def read_folder(folder: Path) -> dict[str, Module]:
    """Return {dotted name: Module} of a folder."""
    files = module_files(folder)
    modules = {}
    for name, path in files.items():
        module = Module(name, path, syntax_tree(path))
        for target, names, line, late in imports(module.tree):
            found = targets(target, names, files)
            for one in found:
                module.own.setdefault(one, []).append((line, late))
            if not found and target.split(".")[0] not in files:
                module.foreign.setdefault(target, []).append((line, late))
        modules[name] = module
    return modules


def circles(modules: dict[str, Module]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or by others (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in modules[name].own:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1 or name in modules[name].own:
                found.append(sorted(group))

    for name in modules:
        if name not in index:
            visit(name)
    return sorted(found)


def floors(modules: dict[str, Module]) -> list[str]:
    """Return the longest chain of arrows from top to bottom; a circle is one step of it."""
    group = {name: tuple(names) for names in circles(modules) for name in names}
    group = {name: group.get(name, (name,)) for name in modules}
    below = {}
    for name, module in modules.items():
        below.setdefault(group[name], set()).update(
            group[t] for t in module.own if group[t] != group[name]
        )
    chains = {}

    def chain(one):
        if one not in chains:
            longest = max((chain(other) for other in sorted(below[one])), key=len, default=[])
            chains[one] = ["+".join(one), *longest]
        return chains[one]

    return max((chain(one) for one in sorted(below)), key=len)


def optional_packages(folder: Path) -> set[str]:
    """Return the packages that only a ``requirements-<extra>.txt`` of the folder names."""
    found = set(OPTIONAL)
    for path in folder.glob("requirements-*.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        found |= {m[0].lower().replace("-", "_") for m in map(PACKAGE.match, lines) if m}
    return found


def has_main_part(tree: ast.Module) -> bool:
    """Tell whether a file has an ``if __name__ == "__main__"`` part."""
    return any(isinstance(n, ast.If) and "__main__" in ast.unparse(n.test) for n in tree.body)


def order_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Yield the arrows that point up or to the door, and the circles."""
    for name, module in modules.items():
        for target, places in module.own.items():
            line, wing = places[0][0], modules[target].wing
            where = f"{name}:{line}"
            if wing == "door":
                yield f"{where}: imports the door script {target}"
            elif ORDER.index(wing) > ORDER.index(module.wing):
                yield f"{where}: imports {target}, which lies above {module.wing}"
    for group in circles(modules):
        yield f"circle: {', '.join(group)}"


def wing_faults(folder: Path, modules: dict[str, Module]) -> Iterator[str]:
    """Yield what is wrong with the wings' names, packages, late imports and main parts."""
    for wing in WINGS:
        package = modules.get(wing)
        if package is None or package.path.name != "__init__.py":
            yield f"{wing}/: has no __init__.py"
        if (folder / f"{wing}.py").exists():
            yield f"{wing}.py: bears the name of a wing"
    if "settings" not in modules:
        yield "settings: neither settings.py nor settings/ is there"
    optional = optional_packages(folder)
    for name, module in modules.items():
        where = module.path.relative_to(folder).as_posix()
        own = f"{folder.name}/{where}"
        if module.path.name == "__init__.py" and (
            len(module.tree.body) != 1 or not ast.get_docstring(module.tree)
        ):
            yield f"{where}: holds more or less than a docstring"
        if module.wing == "door":
            if "/" in where:
                yield f"{where}: lies in no wing"
            continue
        if has_main_part(module.tree) and module.path.name not in WORKERS:
            yield f"{where}: a script inside a wing"
        for target, places in [*module.own.items(), *module.foreign.items()]:
            allowed = optional | set(LATE.get(where, ())) | set(LATE.get(own, ()))
            words = target.split(".")
            if any(".".join(words[: k + 1]) in allowed for k in range(len(words))):
                continue
            for line, late in places:
                if late:
                    yield f"{name}:{line}: imports {target} inside a function"


def door_faults(folder: Path, modules: dict[str, Module]) -> Iterator[str]:
    """Yield what a door script holds besides docstring, GLOBALS, parser and main."""
    for name, module in modules.items():
        if module.wing != "door" or "." in name:
            continue
        functions = {}
        if not ast.get_docstring(module.tree):
            yield f"{name}: has no docstring"
        if not has_main_part(module.tree):
            yield f"{name}: no script, it has no __main__ part"
        for node in module.tree.body[1:]:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if not re.fullmatch(
                        r"_?[A-Z][A-Z0-9_]*|__all__|__getattr__", ast.unparse(target)
                    ):
                        yield f"{name}:{node.lineno}: {ast.unparse(target)} is no GLOBAL"
            elif (
                not isinstance(node, ast.Import | ast.ImportFrom)
                and ast.unparse(node) != OWN_PATH
                and not has_main_part(ast.Module([node], []))
            ):
                yield f"{name}:{node.lineno}: {type(node).__name__} at the door"
        for function, node in functions.items():
            allowed = {**DOOR_FUNCTIONS, **DOOR_FUNCTIONS.get(f"{folder.name}/{name}.py", {})}
            if function != "main" and function not in allowed and not HELPER.fullmatch(function):
                yield f"{name}:{node.lineno}: {function} belongs into a wing"
        early = (line for places in module.own.values() for line, late in places if not late)
        first = min(early, default=None)
        placed = [node.lineno for node in module.tree.body if ast.unparse(node) == OWN_PATH]
        if first and not (placed and placed[0] < first):
            yield f"{name}:{first}: imports an own module before {OWN_PATH}"
        main = functions.get("main")
        if main is None:
            yield f"{name}: has no main"
        elif not main.args.args or main.args.args[0].arg != "argv" or not main.args.defaults:
            yield f"{name}:{main.lineno}: main takes no argv=None"
        elif main.end_lineno - main.lineno + 1 > MAIN_LINES:
            lines = main.end_lineno - main.lineno + 1
            yield f"{name}:{main.lineno}: main has {lines} lines, at most {MAIN_LINES}"
        for target, places in module.foreign.items():
            package = target.split(".")[0]
            if package not in sys.stdlib_module_names and package not in DOOR_PACKAGES:
                yield f"{name}:{places[0][0]}: imports {target} at the door"


def early(modules: dict[str, Module], name: str) -> set[str]:
    """Return the modules that are loaded when ``name`` is imported, itself among them."""
    found, queue = set(), [name]
    while queue:
        one = queue.pop()
        if one not in found:
            found.add(one)
            own = modules[one].own.items()
            queue += [target for target, places in own if not all(late for _, late in places)]
    return found


def start_faults(modules: dict[str, Module]) -> Iterator[str]:
    """Yield the door scripts that load matplotlib before their main can tell a fault of it."""
    for name, module in modules.items():
        for loaded in early(modules, name) if module.wing == "door" else ():
            for target, places in modules[loaded].foreign.items():
                if target.split(".")[0] == "matplotlib" and not all(late for _, late in places):
                    yield f"{name}: loads matplotlib at its top, by {loaded}"


def faults(folder: Path) -> list[str]:
    """Return every breach of the rules in a moved folder."""
    modules = read_folder(folder)
    return [
        *order_faults(modules),
        *wing_faults(folder, modules),
        *door_faults(folder, modules),
        *start_faults(modules),
    ]


def is_moved(folder: Path) -> bool:
    """Tell whether a folder has its wings."""
    return (folder / "inputs").is_dir()


def describe(folder: Path) -> dict:
    """Return the numbers of a folder: files at the door, arrows, late ones, floors, circles."""
    modules = read_folder(folder)
    places = [late for m in modules.values() for found in m.own.values() for _, late in found]
    return {
        "files": len(modules),
        "at the door": sum("." not in name and m.path.name != "__init__.py"
                           for name, m in modules.items()),
        "arrows": sum(len(module.own) for module in modules.values()),
        "imports": len(places),
        "late": sum(places),
        "floors": len(floors(modules)),
        "circles": circles(modules),
    }  # fmt: skip


def main(argv=None):
    """Print the numbers and, for moved folders, the breaches; exit code 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="default: every folder with a main.py")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to look at")
    parser.add_argument("--chain", action="store_true", help="print the longest chain as well")
    args = parser.parse_args(argv)
    names = args.folders or sorted(path.parent.name for path in args.root.glob("*/main.py"))
    broken = 0
    for name in names:
        folder = args.root / name.rstrip("/")
        numbers = describe(folder)
        shown = ", ".join(f"{key} {value}" for key, value in numbers.items() if key != "circles")
        print(f"{folder.name}: {shown}, circles {len(numbers['circles'])}")
        for group in numbers["circles"]:
            print(f"  circle: {' '.join(group)}")
        if args.chain:
            print(f"  chain: {' > '.join(floors(read_folder(folder)))}")
        if not is_moved(folder):
            print("  not moved: it has no inputs/")
            continue
        for fault in faults(folder):
            broken += 1
            print(f"  {fault}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

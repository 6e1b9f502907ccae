"""The recipe of a data set: how its movies and their flow were made, and how they are scaled.

A number in a movie means something only together with it. The recipe is read where a data set or
a model is opened, printed once, stored with what comes of it, and compared by its hash: linked
split, training, resume, prediction and pictures must agree.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from common.files import InputError, read_json, write_json
from inputs.scaling import FLOW_STREAM, GREY_STREAM
from inputs.utils import checked_stats, read_stats


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a stream before z-scoring, and the movies behind them."""

    mean: float
    std: float
    files: str  # all, or train split N
    movies_sha256: str | None  # of names and moments of these movies; None: an older file

    @classmethod
    def of(cls, stats: dict) -> "Scale":
        """Return the scale in the content of a data_mean_std*.json."""
        files, movies = stats.get("files", "unknown"), stats.get("movies_sha256")
        return cls(float(stats["mean"]), float(stats["std"]), files, movies)


@dataclass(frozen=True)
class Recipe:
    """How the movies of a data set were made; None where a file of an older run does not tell."""

    crop: str | None  # none, region or sector
    grey: str | None  # weights of the colours: luma or reference
    resample_fps: float | None  # frames/s after interpolation in time; 0: as recorded
    nrows: int | None  # pixels
    ncols: int | None  # pixels
    flow_size: tuple[int, int] | None  # rows, columns at which flow is computed; None: full size
    per_second: bool | None  # flow in full-size pixels per second, else per frame
    farneback: tuple[tuple[str, float], ...]  # the method's six numbers
    grey_scale: Scale
    flow_scale: Scale
    origin: str  # the files it was read from

    @classmethod
    def of_stats(cls, grey: dict, flow: dict, origin: str) -> "Recipe":
        """Return the recipe in the contents of data_mean_std.json and data_mean_std_OF.json."""
        options = {**grey["options"], **flow["options"]}
        names = ("crop", "grey", "resample_fps", "nrows", "ncols", "per_second")
        size = options.get("flow_size")
        return cls(
            **{name: options.get(name) for name in names},
            flow_size=tuple(size) if size else None,
            farneback=tuple(sorted(options.get("farneback", {}).items())),
            grey_scale=Scale.of(grey),
            flow_scale=Scale.of(flow),
            origin=origin,
        )

    @classmethod
    def of_root(cls, root: Path) -> "Recipe":
        """Return the recipe of a data set, from its data_mean_std*.json."""
        root = Path(root)
        grey = read_stats(root / GREY_STREAM.stats_file, remedy="run preprocess.py")
        flow = read_stats(root / FLOW_STREAM.stats_file, remedy="run optical_flow_calculator.py")
        return cls.of_stats(grey, flow, f"file: {root / GREY_STREAM.stats_file} and _OF")

    @classmethod
    def of_weights(cls, info: dict, weights: Path) -> "Recipe | None":
        """Return the recipe stored with a model, or None where none is stored."""
        if "grey_stats" not in info or "of_stats" not in info:
            return None
        stats = [
            checked_stats(f"{weights}: {key} of its JSON", info[key], "train it again")
            for key in ("grey_stats", "of_stats")
        ]
        return cls.of_stats(*stats, f"file: JSON of {Path(weights).name}")

    @property
    def hash(self) -> str:
        """Return 12 hexadecimal digits over everything that changes a number of a movie."""
        values = asdict(self)
        del values["origin"]
        for scale in (values["grey_scale"], values["flow_scale"]):
            # The two numbers follow from the movies; older files do not name these.
            del scale["movies_sha256"], scale["files"]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def line(self) -> str:
        """Return the recipe in words, for the start of a run."""
        size = "full size" if self.flow_size is None else "{} x {}".format(*self.flow_size)
        rate = f"{self.resample_fps:g} frames/s" if self.resample_fps else "frame rate as recorded"
        unit = "second" if self.per_second else "frame"
        grey, flow = self.grey_scale, self.flow_scale
        return (
            f"recipe {self.hash} ({self.origin}): crop {self.crop}, grey {self.grey}, {rate}, "
            f"{self.nrows} x {self.ncols} pixels, flow at {size} in full-size pixels per {unit}; "
            f"grey {grey.mean:.4g} +- {grey.std:.4g}, flow {flow.mean:.4g} +- {flow.std:.4g} "
            f"over movies: {grey.files}"
        )

    def differences(self, other: "Recipe") -> list[str]:
        """Return what of the making differs, as ``name here -> there``; scales are left out."""
        here, there = asdict(self), asdict(other)
        names = [name for name in here if name not in ("origin", "grey_scale", "flow_scale")]
        return [f"{n} {here[n]} -> {there[n]}" for n in names if here[n] != there[n]]

    def rescaling(self, other: "Recipe") -> dict[str, tuple[float, float]] | None:
        """Return {stream: (factor, offset)} from z-scores of this recipe to those of ``other``.

        None when both are scaled alike.
        """
        pairs = {
            "grey": (self.grey_scale, other.grey_scale),
            "of": (self.flow_scale, other.flow_scale),
        }
        if all((a.mean, a.std) == (b.mean, b.std) for a, b in pairs.values()):
            return None
        return {name: (a.std / b.std, (a.mean - b.mean) / b.std) for name, (a, b) in pairs.items()}


def split_recipe_file(root: Path, splitnum: int) -> Path:
    """Return the path of the JSON that names the recipe of a split's linked movies."""
    return Path(root) / f"split{splitnum}_recipe.json"


def note_split(root: Path, splitnum: int) -> None:
    """Store the recipe of the movies that a split links; nothing where the data set has none."""
    if all((root / stream.stats_file).exists() for stream in (GREY_STREAM, FLOW_STREAM)):
        recipe = Recipe.of_root(root)
        path = split_recipe_file(root, splitnum)
        if not path.exists() or read_json(path).get("recipe") != recipe.hash:
            write_json(path, {"recipe": recipe.hash})


def recipe_of_split(root: Path, splitnum: int) -> Recipe:
    """Return the recipe of a data set after comparing it with that of the linked split.

    Raises:
        InputError: the movies were made anew after the split was linked.
    """
    recipe, path = Recipe.of_root(root), split_recipe_file(root, splitnum)
    # Splits of older runs do not tell.
    linked = read_json(path).get("recipe") if path.exists() else recipe.hash
    if linked != recipe.hash:
        raise InputError(
            f"{path}: split {splitnum} links movies of recipe {linked}, the data set has "
            f"{recipe.hash} now; run split_data.py --root {root} --splitnum {splitnum}"
        )
    return recipe


def fit_to_model(
    root: Path, splitnum: int, info: dict, weights: Path
) -> tuple[Recipe | None, dict[str, tuple[float, float]] | None]:
    """Return the recipe of a model and what turns the z-scores of a data set into the model's.

    Raises:
        InputError: the movies were made in another way than those of the model's training.
    """
    model = Recipe.of_weights(info, weights)
    if model is None:
        print(f"note: {Path(weights).name} names no recipe: z-scores of the data set are used")
        return None, None
    data = recipe_of_split(root, splitnum)
    changed = model.differences(data)
    if changed:
        raise InputError(
            f"{root}: movies made otherwise than those that {weights} was trained on "
            f"({', '.join(changed)}); preprocess this data set with the options of the training"
        )
    print(model.line())
    rescaling = data.rescaling(model)
    if rescaling is not None:
        print(
            f"note: {root} has statistics of its own (recipe {data.hash}); its movies are scaled "
            f"with those of {Path(weights).name} instead, as a single DICOM file is"
        )
    return model, rescaling

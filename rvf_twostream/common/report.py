"""report.html and summary.json of a run: one self-contained page, images inline, no scripts."""

import base64
import html
import os
from collections.abc import Iterable
from pathlib import Path

from common.files import FOLDER, RESULTS_DIR, InputError, atomic_path, read_json, write_json

# On a phone a wide picture keeps the size of its letters and is moved sideways; a shade at the
# right edge says that a table goes on there.
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;
--card:#f6f8fa;--good:#067a3c;--bad:#b42318;--link:#0550ae}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4ae;--line:#30363d;
--paper:#0d1117;--card:#161b22;--good:#4cc38a;--bad:#ff8b7e;--link:#79b8ff}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1200px;padding:24px 16px;
background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.2rem;margin:32px 0 8px}
p{margin:8px 0}.soft{color:var(--soft)}.passed{color:var(--good)}.failed{color:var(--bad)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;
grid-auto-flow:dense;align-items:start}.wide,.alone{grid-column:1/-1}
.alone img{max-height:480px;width:auto}
summary{cursor:pointer;margin:8px 0}nav a{display:inline-block;margin-right:16px}
a{color:var(--link)}
figure{margin:0;padding:12px;border:1px solid var(--line);border-radius:8px;background:var(--card)}
figure img{display:block;max-width:100%;height:auto;margin:0 auto;background:#fff}
figcaption{margin-top:8px;color:var(--soft);font-size:.9rem}
.picture{overflow-x:auto}.scroll{overflow-x:auto;background:
linear-gradient(90deg,var(--paper) 30%,transparent) 0 0/40px 100% no-repeat local,
linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/40px 100% no-repeat local,
linear-gradient(270deg,var(--line),transparent) 100% 0/14px 100% no-repeat scroll}
table{border-collapse:collapse;font-size:.9rem}
.figures+.scroll{margin-top:12px}
td,th{border-bottom:1px solid var(--line);padding:4px 12px 4px 0;text-align:left;
vertical-align:top;overflow-wrap:normal}
@media(max-width:600px){.wide img{min-width:720px}.scroll table{width:max-content;max-width:600px}
.scores .scroll table{width:auto}.scores tr{display:flex;flex-wrap:wrap;gap:0 12px;padding:6px 0;
border-bottom:1px solid var(--line)}.scores th{display:none}.scores td{border:0;padding:0}
.scores td:first-child{flex-basis:100%;font-weight:600}}
"""
HALF_ROW_PIXELS = 550  # of a page of 1200
WIDE_INCHES = 6.8  # in half a row the letters of 8 points of a wider figure have less than 9 pixels
UNITS = {  # how the name of a column ends -> its unit
    "_um_s": "um/s",
    "_um2": "um2",
    "_um": "um",
    "_mm": "mm",
    "_ms": "ms",
    "_s": "s",
    "_hz": "Hz",
    "_deg": "deg",
    "_df_f0": "dF/F0",
    "_percent": "%",
    " percent": "%",
}
WORDS = {  # short names of columns -> what a reader calls them
    "n": "number",
    "mse": "MSE",
    "rmse": "RMSE",
    "mae": "MAE",
    "mape": "MAPE",
    "r2": "R2",
    "auc": "AUC",
    "f1-score": "F1",
    "pearson": "Pearson",
    "fwhm": "FWHM",
    "fdhm": "FDHM",
}
MIME = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


def image_tag(path: str | os.PathLike, alt: str) -> str:
    """Return an <img> element with the picture at ``path`` (PNG, GIF, JPEG, SVG) inline."""
    data = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    mime = MIME[Path(path).suffix.lower()]
    return f'<img alt="{html.escape(alt)}" src="data:{mime};base64,{data}">'


def pixel_width(path: str | os.PathLike) -> int:
    """Return the width of a PNG or GIF in pixels, 0 of another kind of picture."""
    with open(path, "rb") as handle:
        head = handle.read(24)
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big")
    return int.from_bytes(head[6:8], "little") if head.startswith(b"GIF8") else 0


def needs_row(path: str | os.PathLike) -> bool:
    """Return whether a picture would have letters of under 9 pixels in half a row of the page.

    A figure tells its inches (PNG, pHYs), and its letters have 8 points or more. Any other picture
    has letters of fixed pixels, so it is not to be made smaller.
    """
    with open(path, "rb") as handle:
        head = handle.read(4096)  # pHYs stands before the pixels
    at = head.find(b"pHYs") if head.startswith(b"\x89PNG") else -1
    if 0 < at < len(head) - 13 and head[at + 12] == 1:  # 1: pixels per metre
        pixels_an_inch = int.from_bytes(head[at + 4 : at + 8], "big") * 0.0254
        return pixel_width(path) > WIDE_INCHES * pixels_an_inch
    return pixel_width(path) > HALF_ROW_PIXELS


def plain_name(column: str) -> str:
    """Return the name of a column as a reader says it: ``rise_ms`` is ``rise (ms)``."""
    end = next((end for end in UNITS if column.endswith(end)), "")
    words = column.removesuffix(end).replace("_", " ").split(" ")
    name = " ".join(WORDS.get(word, word) for word in words)
    return f"{name} ({UNITS[end]})" if end else name


def figure_block(run_dir: str | os.PathLike, figures: Iterable[dict]) -> str:
    """Return the grid of ``figures``: dicts with path (in ``run_dir``), caption and alt.

    A wide picture spans the row, and so does the last of an odd number of others: no place stays
    empty. A picture links its file; the table behind it, a CSV of its name, is linked below.
    """
    blocks, figures = [], list(figures)
    in_row = [needs_row(Path(run_dir) / figure["path"]) for figure in figures]
    if in_row.count(False) % 2:
        in_row[len(in_row) - 1 - in_row[::-1].index(False)] = True
    for figure, row in zip(figures, in_row, strict=True):
        path = Path(run_dir) / figure["path"]
        caption = html.escape(figure["caption"])
        if path.with_suffix(".csv").is_file():
            table = Path(figure["path"]).with_suffix(".csv").as_posix()
            caption += f' <a href="{html.escape(table)}">numbers</a>'
        kind = ' class="wide"' if needs_row(path) else ' class="alone"' if row else ""
        place = html.escape(Path(figure["path"]).as_posix())
        picture = f'<a href="{place}">{image_tag(path, figure["alt"])}</a>'
        blocks.append(
            f'<figure{kind}><div class="picture">{picture}</div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(blocks)}</div>'


def _cell(text):
    verdict = f' class="{text}"' if text in ("passed", "failed") else ""
    return f"<td{verdict}>{html.escape(text)}</td>"


def table_block(header: Iterable, rows: Iterable[Iterable]) -> str:
    """Return a table; every cell is turned into text and escaped, verdicts are coloured.

    The header may be that of a CSV: it is shown in plain names (``plain_name``).
    """
    head = "".join(f"<th>{html.escape(plain_name(str(cell)))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(_cell(str(cell)) for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def paragraph(text: str, *, links: Iterable[str] = ()) -> str:
    """Return a paragraph of plain text, with links to files beside the report behind it."""
    anchors = ", ".join(f'<a href="{html.escape(n)}">{html.escape(n)}</a>' for n in links)
    return f"<p>{html.escape(text)} {anchors}</p>"


def number_text(value: float) -> str:
    """Return a score as a reader sees it: a whole number as it is, any other with three digits.

    1.0 is 1.00: a share that was measured, not a count.
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")


def score_table(scores: Iterable[dict]) -> str:
    """Return the table of planted-truth and quality scores (see write_summary).

    A sentence before it says how many targets were reached, and names those missed.
    """
    scores, rows = list(scores), []
    for score in scores:
        value = "not available" if score["value"] is None else number_text(score["value"])
        verdict = {True: "passed", False: "failed", None: ""}[score.get("passed")]
        name = score["name"]
        if score.get("control") and "control" not in name:
            name = f"negative control: {name}"  # as the page of all runs calls it
        rows.append((name, f"{value} {score.get('unit', '')}", score.get("target", ""), verdict))
    header = ("score", "value", "target", "verdict")
    shown = len(header) if any(row[2] or row[3] for row in rows) else 2  # own data have no target
    table = table_block(header[:shown], [row[:shown] for row in rows])
    judged = [score for score in scores if score.get("passed") is not None]
    missed = [score["name"] for score in judged if not score["passed"]]
    told = f"{len(judged) - len(missed)} of {len(judged)} targets reached"
    told = html.escape(f"{told}; missed: {'; '.join(missed)}." if missed else f"{told}.")
    verdict = f'<p class="{"failed" if missed else "passed"}">{told}</p>' if judged else ""
    return f'{verdict}<div class="scores">{table}</div>'


def settings_table(record: dict) -> str:
    """Return settings.json as a folded table: settings (nested names dotted), versions, inputs."""

    def flat(values, prefix=""):
        for name, value in values.items():
            if isinstance(value, dict) and value:
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    rows = list(flat(record.get("settings", {})))
    rows += [("python", record.get("python")), ("git commit", record.get("git_commit"))]
    rows += [(f"library {name}", value) for name, value in record.get("libraries", {}).items()]
    inputs = list(record.get("inputs", {}).items())
    rows += [(f"SHA-256 of {name}", value) for name, value in inputs[:20]]
    if len(inputs) > 20:
        rows.append(("SHA-256 of more inputs", f"{len(inputs) - 20} in settings.json"))
    table = table_block(("setting", "value"), rows)
    return f"<details><summary>{len(rows)} settings, versions and inputs</summary>{table}</details>"


def _street_links(run_dir):
    """Return (target, name) of the README and of the page of all runs, seen from a run's folder.

    A run elsewhere than below ``results/`` has none: its page may be taken anywhere.
    """
    run_dir = Path(run_dir).absolute()  # results/ may be a link to another disk
    if not run_dir.is_relative_to(RESULTS_DIR):
        return []
    targets = (
        (FOLDER / "README.md", f"README of {FOLDER.name}"),
        (RESULTS_DIR.parent / "index.html", "all runs (written by run.py demo)"),
    )
    return [(Path(os.path.relpath(path, run_dir)).as_posix(), name) for path, name in targets]


def write_report(
    run_dir: str | os.PathLike, title: str, lead: str, sections: Iterable[tuple[str, str]]
) -> Path:
    """Write ``report.html`` and return its path.

    Args:
        run_dir: folder of the run.
        title: heading of the page.
        lead: one or two sentences of plain text under the heading.
        sections: list of (heading, html) pairs; build the html with the functions above.
    """
    body = "".join(
        f"<section><h2>{html.escape(name)}</h2>{block}</section>" for name, block in sections
    )
    names = sorted(path.name for path in Path(run_dir).glob("*.csv"))
    names += ["settings.json"] if (Path(run_dir) / "settings.json").is_file() else []
    links = [*_street_links(run_dir), *((name, name) for name in names)]
    anchors = "".join(
        f'<a href="{html.escape(target)}">{html.escape(name)}</a>' for target, name in links
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(lead)}</p>'
        f"{body}<section><h2>Files</h2><nav>{anchors}</nav></section></body></html>\n"
    )
    path = Path(run_dir) / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def write_summary(run_dir: str | os.PathLike, summary: dict) -> None:
    """Write ``summary.json``, the file by which results/index.html and run.py know a run.

    Keys: format (1), folder, run, title, status ("complete"), seconds, seed, data (one line),
    main_picture and main_picture_alt, figures (list of path, caption, alt), scores (list of name,
    value, unit, target, passed, control), planted_truth (the one main score, same keys), report.
    Paths are relative to the run's folder. Written last: its presence means the run is complete.
    """
    write_json(Path(run_dir) / "summary.json", {"format": 1, "status": "complete", **summary})


def close_run(run_dir: str | os.PathLike) -> int:
    """Print the scores that failed and the last line of a finished run; return its exit code.

    Exit code 1 when any score with a target failed, be it the main one, a control or another, else
    0. All is read from summary.json, so that a run and its reuse end alike.
    """
    path = Path(run_dir) / "summary.json"
    summary = read_json(path, remedy="use --fresh")
    try:
        scores, report = summary["scores"], Path(run_dir) / summary["report"]
        main = summary["planted_truth"] or next(iter(scores), None)
        head = summary["data"]
        if main is not None:
            head = "not available" if main["value"] is None else f"{main['value']:.3f}"
            head = f"{main['name']}: {head} {main['unit']}".rstrip()
        missed = [score["name"] for score in scores if score["passed"] is False]
        last_line = f"{head}; {summary['seconds']:.0f} s; {report}"
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}); use --fresh") from None
    if missed:
        print(f"missed: {'; '.join(missed)}")
    print(last_line)
    return 1 if missed else 0

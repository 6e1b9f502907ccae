"""Write results/index.html, one self-contained page with a card for every finished run.

Reads only the convention: ``results/<folder>/<run>/summary.json`` and the pictures it names.
"""

import base64
import contextlib
import html
import json
import os
from pathlib import Path

MIME = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
SHOWN_SCORES = 3  # beside the main one; the rest is folded
INLINE_LIMIT = 3_000_000  # bytes; a larger picture is linked, so that the page stays quick to open
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;
--card:#f6f8fa;--good:#067a3c;--bad:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4ae;--line:#30363d;
--paper:#0d1117;--card:#161b22;--good:#4cc38a;--bad:#ff8b7e}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:24px 16px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:0}h2{font-size:1.2rem;margin:0}a{color:inherit}
p{margin:8px 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.runs{display:grid;gap:24px;margin-top:24px}
article{border:1px solid var(--line);border-radius:8px;background:var(--card);padding:16px}
.main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:16px}
.more{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:16px}
figure{margin:0}img{display:block;width:100%;height:auto;background:#fff;border-radius:4px}
figcaption{color:var(--soft);font-size:.85rem;margin-top:4px}
table{border-collapse:collapse;margin:8px 0;width:100%}.truth{font-weight:600}
td{border-bottom:1px solid var(--line);padding:4px 12px 4px 0;vertical-align:top}
td{overflow-wrap:normal;width:55%}td+td{width:45%}
summary{cursor:pointer;margin:12px 0 8px}
"""


def read_summary(path):
    """Return the summary.json at ``path`` as a dict, or None when it is absent or broken."""
    try:
        summary = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def number_text(value):
    """Return a score as its report shows it: a whole number as it is, any other with three digits.

    The same rule as in ``common/report.py`` of every folder, which this page does without.
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:#.3g}".rstrip(".")


def score_text(score):
    """Return one line for a score of the convention (name, value, unit, target), or ''."""
    if not score:
        return ""
    value = "not available" if score.get("value") is None else number_text(score["value"])
    unit = f" {score['unit']}" if score.get("unit") else ""
    target = f" (target {score['target']})" if score.get("target") else ""
    return f"{score.get('name', 'score')} {value}{unit}{target}"


def picture(run_dir, link, figure):
    """Return a <figure> of ``figure`` (path, caption, alt), or '' when the file is missing."""
    path = run_dir / figure["path"]
    if path.suffix.lower() not in MIME or not path.is_file():
        return ""
    if path.stat().st_size <= INLINE_LIMIT:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        source = f"data:{MIME[path.suffix.lower()]};base64,{data}"
    else:
        source = f"{link}/{figure['path']}"
    alt, caption = (html.escape(figure.get(key) or "") for key in ("alt", "caption"))
    full_size = html.escape(f"{link}/{figure['path']}")
    return (
        f'<figure><a href="{full_size}"><img alt="{alt}" src="{html.escape(source)}"></a>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def score_rows(scores):
    """Return a table of scores: name (a control is named as one), value with target, verdict."""
    rows = []
    for score in scores:
        verdict = {True: "passed", False: "failed"}.get(score.get("passed"), "")
        tag = {"passed": "good", "failed": "bad"}.get(verdict, "soft")
        name = html.escape(score.get("name") or "score")
        if score.get("control") and "control" not in name:
            name = f"negative control: {name}"
        value = html.escape(score_text({**score, "name": ""}).strip())
        rows.append(
            f"<tr><td>{name}</td><td>{value} <span class='{tag}'>{verdict}</span></td></tr>"
        )
    return f"<table>{''.join(rows)}</table>" if rows else ""


def score_block(scores):
    """Return three scores and the rest folded: those that failed first, then controls.

    Of both those with a target come first: a control without one says little by itself.
    """

    def place(score):
        passed = score.get("passed")
        return passed is not False, not score.get("control"), passed is None

    scores = sorted(scores, key=place)
    rest = score_rows(scores[SHOWN_SCORES:])
    folded = f"<details><summary>{len(scores) - SHOWN_SCORES} more scores</summary>{rest}</details>"
    return score_rows(scores[:SHOWN_SCORES]) + (folded if rest else "")


def has_failed(path):
    """Return whether the run at ``path`` (summary.json) is broken or missed a target."""
    summary = read_summary(path)
    scores = [] if summary is None else summary.get("scores") or []
    return summary is None or any(score.get("passed") is False for score in scores)


def card(results, path):
    """Return the card of the run whose summary lies at ``path``."""
    run_dir = path.parent
    name = "/".join(run_dir.relative_to(results).parts)
    summary = read_summary(path)
    if summary is None:
        heading = f"<h2>{html.escape(name)}</h2>"
        fault = "summary.json is broken; run it again with --fresh"
        return f'<article>{heading}<p class="bad">{fault}</p></article>'
    main = {
        "path": summary.get("main_picture") or "",
        "alt": summary.get("main_picture_alt") or f"main picture of {name}",
        "caption": summary.get("main_picture_alt") or "",
    }
    figures = [f for f in summary.get("figures") or [] if f.get("path") != main["path"]]
    truth = summary.get("planted_truth")
    folder, title = name.split("/")[0], summary.get("title")
    others = [score for score in summary.get("scores") or [] if score != truth]
    gallery = "".join(picture(run_dir, name, figure) for figure in figures)
    fold = f"<summary>figures ({gallery.count('<figure>')})</summary>"
    folded = f'<details>{fold}<div class="more">{gallery}</div></details>' if gallery else ""
    report = f"{name}/{summary.get('report', 'report.html')}"
    facts = [f"data: {summary['data']}" if summary.get("data") else "", f"run: {name}"]
    if isinstance(summary.get("seconds"), (int, float)):
        facts.append(f"{summary['seconds']:.0f} s")
    return (
        f"<article><h2>{html.escape(f'{folder}: {title}' if title else name)}</h2>"
        f'<p class="soft">{html.escape(", ".join(filter(None, facts)))}</p>'
        f'<div class="main">{picture(run_dir, name, main)}<div>'
        f'<div class="truth">{score_rows([truth] if truth else [])}</div>{score_block(others)}'
        f'<p><a href="{html.escape(report)}">full report</a></p></div></div>'
        f"{folded}</article>"
    )


def write_index(results):
    """Write ``results/index.html`` over all runs below ``results`` and return its path."""
    results = Path(results)
    results.mkdir(parents=True, exist_ok=True)
    paths = sorted(results.glob("*/*/summary.json"), key=lambda path: (not has_failed(path), path))
    cards = [card(results, path) for path in paths]
    failed = sum(map(has_failed, paths))
    body = "".join(cards) or "<p>No finished run yet: <code>python3 run.py demo</code></p>"
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Results</title><style>{STYLE}</style></head><body><h1>Results</h1>"
        f'<p class="soft">Finished runs: {len(cards)}, of which {failed} missed a target or are '
        "broken; those come first. A card links the report of its run, a picture its full size.</p>"
        f'<div class="runs">{body}</div></body></html>\n'
    )
    path = results / "index.html"
    temporary = path.with_name(f".index.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


if __name__ == "__main__":
    print(write_index(Path(__file__).resolve().parent / "results"))

"""Run the gpu_check.py of every folder within one budget; write results/gpu/gpu.json and a page.

It builds nothing and needs no network: a folder runs in its environment when that is there, else in
this Python when that holds the folder's framework, else it is named and passed over.
"""

import html
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

from checkout import ROOT, call
from results_index import STYLE
from venvs import interpreter

FRAMEWORKS = {
    "csd_darnn": "torch",
    "sparks_unet": "torch",
    "stcnn": "torch",
    "sleep_bilstm": "tensorflow",
    "rvf_twostream": "tensorflow",
}
BUDGET_S = 480  # for all folders together
HIDDEN = ("case", "passed", "seconds", "error", "folder", "device", "card", "torch", "tensorflow")


def choose_interpreter(folder):
    """Return (path of the Python that runs ``folder`` or None, where it was found or why not)."""
    if interpreter(folder).exists():
        return str(interpreter(folder)), "its environment"
    framework = FRAMEWORKS.get(folder, "torch")
    if importlib.util.find_spec(framework) is None:
        return None, f"no environment, and this Python holds no {framework}"
    return sys.executable, "this Python"


def read_lines(path):
    """Return the results in ``path``, the last of each case; a cut line is left out."""
    rows = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                rows[row["case"]] = row
            except (ValueError, TypeError, KeyError):
                continue
    return list(rows.values())


def device_word(folder, device):
    """Return ``device`` in the words of the folder's framework."""
    return "gpu" if device == "cuda" and FRAMEWORKS.get(folder) == "tensorflow" else device


def check(folder, device, tiny, seconds, out):
    """Run the check of one folder; return its line for the table."""
    python, where = choose_interpreter(folder)
    if python is None:
        return {"folder": folder, "state": "passed over", "why": where, "rows": []}
    path = out / f"{folder}_{device}.jsonl"
    tiny_flag = [] if not tiny else ["--tiny", "true"] if folder == "csd_darnn" else ["--tiny"]
    command = [python, "gpu_check.py", "--device", device_word(folder, device), *tiny_flag]
    command += ["--budget_s", f"{seconds:.0f}", "--out", str(path)]
    print(f"\n== {folder} ({where})", flush=True)
    code = call(command, cwd=ROOT / folder, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    rows = read_lines(path)
    failed = [row["case"] for row in rows if row.get("passed") is False]
    state = "holds" if code == 0 and rows else "fails"
    why = ", ".join(failed) if failed else "" if code == 0 else f"exit code {code}"
    return {"folder": folder, "state": state, "why": why, "rows": rows}


def numbers_of(row):
    """Return the measured numbers of a case as one line."""
    shown = {k: v for k, v in row.items() if k not in HIDDEN and v is not None}
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in shown.items()
    )


def write_page(path, results):
    """Write the page of all results."""
    parts = []
    for result in results:
        rows = result["rows"]
        card = next((row["card"] for row in rows if row.get("card")), "no card")
        lines = "".join(
            f"<tr><td>{html.escape(row['case'])}</td>"
            f"<td class='{ {True: 'good', False: 'bad'}.get(row.get('passed'), 'soft') }'>"
            f"{ {True: 'holds', False: 'fails'}.get(row.get('passed'), 'measured') }</td>"
            f"<td>{html.escape(row.get('error') or numbers_of(row))}</td></tr>"
            for row in rows
        )
        state = " ".join(filter(None, (result["state"], result["why"])))
        parts.append(
            f"<article><h2>{html.escape(result['folder'])}</h2>"
            f"<p class='soft'>{html.escape(card)}: {html.escape(state)}</p>"
            f"<table>{lines}</table></article>"
        )
    path.write_text(
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>GPU checks</title><style>{STYLE}td{{padding:4px 12px 4px 0;vertical-align:top}}"
        "</style></head><body><h1>GPU checks</h1><p class='soft'>Each case compares the device "
        "with the processor, or measures it; limits stand beside the values.</p>"
        f"<div class='runs'>{''.join(parts)}</div></body></html>\n",
        encoding="utf-8",
    )


def run(folders, device, tiny, budget_s=BUDGET_S, out=None):
    """Check ``folders`` one after the other; return 1 when a case failed or nothing could run."""
    out = Path(out or ROOT / "results" / "gpu")
    out.mkdir(parents=True, exist_ok=True)
    began, results = time.monotonic(), []
    for number, folder in enumerate(folders):
        left = budget_s - (time.monotonic() - began)
        results.append(check(folder, device, tiny, max(1, left / (len(folders) - number)), out))
        # Written after each folder: a stop loses the one that runs.
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_page(out / "index.html", results)
    print()
    for result in results:
        print(f"{result['folder']:14} {result['state']:12} {result['why']}".rstrip())
    print(f"open {os.path.relpath(out / 'index.html')}")
    return int(all(not r["rows"] for r in results) or any(r["state"] == "fails" for r in results))

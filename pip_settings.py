"""What pip is told on this machine, said again to uv, which reads none of it.

Sources: pip's configuration files and PIP_* variables, as ``pip config list`` prints them, and for
uv's names its reference of settings. A UV_* variable that the user has set is never replaced.
"""

import ast
import functools
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys

from checkout import Fault

# pip's setting -> uv's variable and what stands between several values; pip splits them at blanks.
LISTS = {
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
VALUES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
    "retries": ("UV_HTTP_RETRIES",),
}
# The older names of uv's variables count as set by the user just as well.
OLDER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}


@functools.cache
def read_settings():
    """Return {setting: text} of ``pip install`` on this machine."""
    own = importlib.util.find_spec("pip") is not None
    pip = [sys.executable, "-m", "pip"] if own else [shutil.which("pip3") or "pip3"]
    try:
        done = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        done = None
    if done and done.returncode == 0:
        return merge_listing(done.stdout)
    if own:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Fault(f"pip cannot read its configuration: {last}")
    # Without pip nobody has written its configuration files: the variables are left.
    names = [name for name in os.environ if name.startswith("PIP_") and os.environ[name]]
    return {name[4:].lower().replace("_", "-"): os.environ[name] for name in names}


def merge_listing(text):
    """Return {setting: value} of the output of ``pip config list``.

    Later sources win, as they do for ``pip install``: [global], [install], PIP_* variables. A
    setting replaces that of an earlier source, lists as well; an empty one counts as absent.
    """
    sources = {"global": {}, "install": {}, ":env:": {}}
    for line in text.splitlines():
        found = re.match(r"(global|install|:env:)\.([\w-]+)=(.+)$", line)
        if found and ast.literal_eval(found.group(3)).strip():
            name = found.group(2).lower().replace("_", "-")
            sources[found.group(1)][name] = ast.literal_eval(found.group(3))
    return {**sources["global"], **sources["install"], **sources[":env:"]}


def is_on(settings, name):
    """Tell whether pip takes the switch ``name`` as on."""
    return settings.get(name, "").strip().lower() in {"1", "y", "yes", "t", "true", "on"}


def is_usable(place):
    """Tell whether a find-links place can be read; pip passes over a missing folder, uv stops."""
    return "://" in place or os.path.exists(place)


def environment_for_uv(settings):
    """Return the environment variables that tell uv what ``settings`` tell pip."""
    variables = {}
    for name, (variable, between) in LISTS.items():
        values = [os.path.expanduser(value) for value in settings.get(name, "").split()]
        if name == "find-links":
            values = list(filter(is_usable, values))
        if values:
            variables[variable] = between.join(values)
    for name, names in VALUES.items():
        if name in settings:
            value = os.path.expanduser(settings[name].strip())
            variables.update(dict.fromkeys(names, value))
    timeout = settings.get("timeout") or settings.get("default-timeout")
    if timeout:
        variables["UV_HTTP_TIMEOUT"] = str(max(1, math.ceil(float(timeout))))
    if is_on(settings, "pre"):
        variables["UV_PRERELEASE"] = "allow"
    if settings.get("keyring-provider") == "subprocess":
        variables["UV_KEYRING_PROVIDER"] = "subprocess"
    # pip knows more variables for certificates than uv does.
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if bundle and "SSL_CERT_FILE" not in {**variables, **os.environ}:
        variables["SSL_CERT_FILE"] = bundle
    # pip takes the best version of all indexes, uv by default the first index that has the name.
    variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    mine = {name for name in variables if name.startswith("UV_")}
    set_by_user = {n for n in mine if n in os.environ or OLDER_NAMES.get(n, n) in os.environ}
    return {**os.environ, **{n: v for n, v in variables.items() if n not in set_by_user}}


def flags_for_uv(settings):
    """Return the flags that tell uv what ``settings`` tell pip and no variable can say.

    Constraints are among them: one ``--constraints`` flag makes uv pass over UV_CONSTRAINT.
    """
    flags = ["--no-index"] if is_on(settings, "no-index") else []
    constraints = os.environ.get("UV_CONSTRAINT", settings.get("constraint", ""))
    for path in constraints.split():
        flags += ["--constraints", path]
    for name in ("only-binary", "no-binary"):
        for packages in settings.get(name, "").split():
            for package in packages.split(","):
                flags += [f"--{name}", package]
    return flags

"""Python environments of the parts that cannot share the default one (kserve and func-python exclude each other).

In: requirements/<extra>.txt, uv. Out: env/<extra>, complete and of exactly that lock, or nothing.
Next: `tollgate.local.parts`, which runs the parts with these interpreters.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tollgate.errors import TollgateError
from tollgate.local.layout import Layout, checkout


def ensure(layout: Layout, extra: str, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Create the environment unless it is there, and return its interpreter.

    Raises `TollgateError` when uv is missing or the packages cannot be installed.
    """
    lock = _lock_file(extra)
    folder, stamp = layout.env / extra, _stamp(lock)
    if is_complete(layout, extra):
        return python(layout, extra)
    uv = find_uv()
    layout.create()
    with (layout.env / f".{extra}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two at once: the second waits and finds it done
        if is_complete(layout, extra):
            return python(layout, extra)
        progress(f"installing requirements/{lock.name}")
        # Built in place, because scripts name their interpreter; only the stamp says that it is whole.
        shutil.rmtree(folder, ignore_errors=True)
        _run([uv, "venv", "--quiet", "--python", sys.executable, folder], extra)
        target = folder / "bin" / "python"
        _run([uv, "pip", "install", "--quiet", "--python", target, "--require-hashes", "-r", lock], extra)
        (folder / ".complete").write_text(stamp)
    return python(layout, extra)


def is_complete(layout: Layout, extra: str) -> bool:
    """Whether the environment is there and made from the lock as it is now."""
    file = layout.env / extra / ".complete"
    return file.is_file() and file.read_text() == _stamp(_lock_file(extra))


def python(layout: Layout, extra: str) -> Path:
    """The environment's interpreter."""
    return layout.env / extra / "bin" / "python"


def find_uv() -> Path:
    """The uv on PATH, else the one that `make` put beside the checkout. Raises `TollgateError`."""
    found = shutil.which("uv")
    if found is not None:
        return Path(found)
    root = checkout()
    beside = root / ".tools" / "bin" / "uv" if root else None
    if beside is not None and os.access(beside, os.X_OK):
        return beside
    raise TollgateError("uv is not on PATH and not in .tools: run `make up`, which installs it, or `pip install uv`")


def _lock_file(extra: str) -> Path:
    root = checkout()
    if root is None:
        raise TollgateError("environments are made from a checkout's requirements/: run Tollgate from one")
    file = root / "requirements" / f"{extra}.txt"
    if not file.is_file():
        raise TollgateError(f"{file} is missing: `make lock` writes it")
    return file


def _stamp(lock: Path) -> str:
    """The lock and the interpreter: either change makes it anew."""
    return hashlib.sha256(lock.read_bytes()).hexdigest() + " " + sys.version.split()[0]


def _run(command: list[str | Path], extra: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TollgateError(
            f"the environment for {extra} cannot be made: {done.stderr.strip()[-800:]}\n"
            "Is the package registry reachable? What did arrive is in uv's cache for the next try."
        )

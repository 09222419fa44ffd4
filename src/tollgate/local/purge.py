"""`down --purge`: remove what the platform keeps, leave what was downloaded.

In: `Layout`. Out: data, run and logs are gone; env and jars stay.
"""

from __future__ import annotations

import shutil

from tollgate.local.layout import Layout
from tollgate.local.lock import RunLock


def purge(layout: Layout) -> None:
    """Remove data, state and logs. Raises `AlreadyRunning` when a supervisor runs on this home."""
    if not layout.home.exists():
        return
    with RunLock(layout):
        folders = (layout.data, layout.logs, layout.public_root)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(layout.run, ignore_errors=True)

"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.platform import CHECKOUT, RunningPlatform, running

pytest_plugins = ["conformance.plugin"]

TEST_PORT_BASE = 21_000


@pytest.fixture(scope="session")
def platform() -> Iterator[RunningPlatform]:
    """The whole embedded platform, every part real, started once for all tests that ask for it."""
    with running(CHECKOUT / ".tollgate" / "test", TEST_PORT_BASE) as started:
        yield started

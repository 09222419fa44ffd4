"""What the doctor finds on a machine that is not ready."""

from __future__ import annotations

import os
import shutil
import socket
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from tollgate.local import doctor
from tollgate.local.doctor import Level
from tollgate.local.layout import OFFSETS, Layout
from tollgate.local.lock import RunLock


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A home whose ports are free."""
    for base in range(30_000, 60_000, 100):
        if all(doctor._free(base + offset) for offset in OFFSETS.values()):
            return Layout(tmp_path / "home", base)
    raise AssertionError("no free ports")


@pytest.fixture
def listener(layout: Layout) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", layout.port("kafka"))) as server:
        yield server


def failures(layout: Layout) -> str:
    return "\n".join(f"{one.what} | {one.do}" for one in doctor.examine(layout) if one.level is Level.FAIL)


def test_free_ports_are_fine(layout: Layout) -> None:
    found = [one.what for one in doctor.examine(layout) if one.level is Level.OK]
    first, last = (layout.port_base + edge(OFFSETS.values()) for edge in (min, max))
    assert found[-1] == f"ports {first} to {last} are free"


def test_a_taken_port_is_named_with_its_holder_and_the_way_out(layout: Layout, listener: socket.socket) -> None:
    found = failures(layout)
    assert f"port {layout.port('kafka')} (kafka) is taken by" in found
    assert f"(pid {os.getpid()})" in found
    assert "TOLLGATE_PORT_BASE" in found


def test_a_full_disk_stops_the_first_run(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10 * 2**30, 8 * 2**30, 2 * 2**30))
    found = failures(layout)
    assert "2.0 GiB free" in found
    assert "5 GiB needed" in found


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = failures(Layout(tmp_path / "file" / "home", 50_000))
    assert "cannot be written: Not a directory | set TOLLGATE_HOME" in found


def test_missing_uv_is_found_before_the_start(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tollgate.local.environments.is_complete", lambda *_: False)
    monkeypatch.setattr("tollgate.local.environments.checkout", lambda: layout.home)
    assert "uv is missing | uv is not on PATH" in failures(layout)


def test_a_running_platform_is_the_only_finding(layout: Layout) -> None:
    with RunLock(layout):
        found = doctor.examine(layout)
    assert [one.level for one in found] == [Level.FAIL]
    assert f"pid {os.getpid()}" in found[0].what
    assert "tollgate down" in found[0].do

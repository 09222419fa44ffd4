"""Where the embedded platform keeps things."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tollgate.errors import ConfigurationError
from tollgate.local.layout import OFFSETS, Layout


def test_home_and_ports_come_from_the_environment(tmp_path: Path) -> None:
    layout = Layout.resolve({"TOLLGATE_HOME": str(tmp_path / "a home"), "TOLLGATE_PORT_BASE": "30000"})
    assert layout.home == tmp_path / "a home"
    assert layout.url("gateway") == "http://127.0.0.1:30002"
    assert layout.kafka_bootstrap == "127.0.0.1:30005"


def test_without_settings_it_is_the_checkout_and_18000() -> None:
    layout = Layout.resolve({})
    assert layout.home == Path(__file__).resolve().parents[2] / ".tollgate"
    assert layout.port_base == 18_000


def test_no_two_things_share_a_port() -> None:
    assert len(set(OFFSETS.values())) == len(OFFSETS)


@pytest.mark.parametrize("text", ["many", "80", "65500", "-1"])
def test_an_impossible_port_base_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="TOLLGATE_PORT_BASE"):
        Layout.resolve({"TOLLGATE_PORT_BASE": text})


def test_the_database_password_is_made_once_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    first = layout.database_url().reveal()
    assert first == Layout(tmp_path / "home").database_url().reveal()
    assert first != Layout(tmp_path / "other").database_url().reveal()
    file = layout.data / "postgres.password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(layout.data.stat().st_mode) == 0o700
    assert file.read_text() not in repr(layout.database_url())

"""Settings come from the environment, and a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tollgate.errors import ConfigurationError
from tollgate.settings import Secret, Settings

PASSWORD = "correct-horse"


def test_what_is_not_set_has_its_default() -> None:
    settings = Settings.read(environ={})
    assert (settings.model_name, settings.model_timeout_ms, settings.metrics_port) == ("fraud", 2_000, 0)


def test_what_is_set_is_read_with_its_type() -> None:
    settings = Settings.read(
        environ={
            "TOLLGATE_DATABASE_URL": f"postgresql://me:{PASSWORD}@db:5432/tollgate",
            "TOLLGATE_MODEL_URL": "http://gateway:80/",
            "TOLLGATE_KAFKA_BOOTSTRAP": "a:9092,b:9092",
            "TOLLGATE_POLICY_FILE": "/etc/policy.toml",
            "TOLLGATE_METRICS_PORT": "9090",
            "TOLLGATE_REASONS": "2",
        }
    )
    assert settings.database_url.reveal() == f"postgresql://me:{PASSWORD}@db:5432/tollgate"
    assert settings.model_url == "http://gateway:80"
    assert settings.kafka_bootstrap == "a:9092,b:9092"
    assert settings.policy_file == Path("/etc/policy.toml")
    assert (settings.metrics_port, settings.reasons) == (9090, 2)


@pytest.mark.parametrize("name", ["database_url", "model_url", "kafka_bootstrap", "policy_file"])
@pytest.mark.parametrize("blank", [False, True])
def test_a_missing_setting_is_named(name: str, blank: bool) -> None:
    variable = f"TOLLGATE_{name.upper()}"
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set: "):
        Settings.read(name, environ={variable: "  "} if blank else {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOLLGATE_DATABASE_URL", "mysql://me@db/x"),
        ("TOLLGATE_DATABASE_URL", "postgresql:///nohost"),
        ("TOLLGATE_MODEL_URL", "gateway:80"),
        ("TOLLGATE_KAFKA_BOOTSTRAP", "localhost"),
        ("TOLLGATE_KAFKA_BOOTSTRAP", "a:9092,b"),
        ("TOLLGATE_METRICS_PORT", "-1"),
        ("TOLLGATE_MODEL_TIMEOUT_MS", "2s"),
        ("TOLLGATE_REASONS", "four"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        Settings.read(environ={variable: value})


def test_a_wrong_database_url_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as error:
        Settings.read(environ={"TOLLGATE_DATABASE_URL": f"mysql://me:{PASSWORD}@db/x"})
    assert PASSWORD not in str(error.value)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(PASSWORD)
    settings = Settings(database_url=secret)
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r}", f"{secret:>9}", repr(settings)):
        assert PASSWORD not in shown
    assert secret.reveal() == PASSWORD

"""Which answers are retried, how long the waits are, and how durations and Retry-After are read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError
from tollgate.local.dispatcher.delivery import Delivery, Verdict, parse_duration, retry_after, verdict

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 404, 408, 409, 429])
def test_trouble_that_may_pass_is_retried(status: int) -> None:
    assert verdict(status) is Verdict.RETRY


@pytest.mark.parametrize("status", [400, 401, 403, 405, 410, 413, 415, 422, 301, 302, 304])
def test_an_answer_that_will_not_change_is_hopeless(status: int) -> None:
    assert verdict(status) is Verdict.HOPELESS


@given(st.integers(200, 299))
def test_every_2xx_is_delivered(status: int) -> None:
    assert verdict(status) is Verdict.DELIVERED


def test_exponential_waits_double_from_the_delay() -> None:
    delivery = Delivery(delay=0.2)
    assert [delivery.wait(attempt) for attempt in range(5)] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2])


def test_linear_waits_grow_by_the_delay() -> None:
    delivery = Delivery(policy="linear", delay=0.5)
    assert [delivery.wait(attempt) for attempt in range(3)] == pytest.approx([0.5, 1.0, 1.5])


@given(st.integers(0, 10_000), st.floats(0, 1e9))
def test_a_wait_never_overflows_and_retry_after_only_lengthens_it_up_to_its_maximum(attempt: int, asked: float) -> None:
    delivery = Delivery(delay=0.2, retry_after_max=30.0)
    plain, wished = delivery.wait(attempt), delivery.wait(attempt, asked)
    assert 0 < plain <= 3_600
    assert plain <= wished <= max(plain, 30.0)
    assert wished >= min(asked, 30.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT0.2S", 0.2), ("PT1M", 60), ("PT1H0M1S", 3601), ("P1D", 86_400), ("P1DT2H", 93_600)]
)
def test_iso_durations_become_seconds(text: str, seconds: float) -> None:
    assert parse_duration("timeout", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "P", "PT", "1S", "PT1", "P1Y", "PT-1S", 5, None])
def test_what_is_no_duration_is_refused_by_the_setting_s_name(text: object) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        parse_duration("timeout", text)

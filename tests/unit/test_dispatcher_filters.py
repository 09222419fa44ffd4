"""A Trigger's filters mean what Knative says they mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import ConfigurationError
from tollgate.local.dispatcher.filters import compile_trigger

EVENT = {"type": "dev.tollgate.transaction.decided", "source": "/tollgate/decide", "stream": "transactions"}


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ([{"exact": {"type": "dev.tollgate.transaction.decided"}}], True),
        ([{"exact": {"type": "dev.tollgate.transaction.DECIDED"}}], False),
        ([{"exact": {"missing": "x"}}], False),
        ([{"prefix": {"type": "dev.tollgate."}}], True),
        ([{"prefix": {"type": "decided"}}], False),
        ([{"suffix": {"type": ".decided"}}], True),
        ([{"suffix": {"type": "dev."}}], False),
        ([{"not": {"exact": {"missing": "x"}}}], True),
        ([{"not": {"exact": {"stream": "transactions"}}}], False),
        ([{"any": [{"exact": {"missing": "x"}}, {"exact": {"stream": "transactions"}}]}], True),
        ([{"any": [{"exact": {"missing": "x"}}, {"exact": {"stream": "labels"}}]}], False),
        ([{"all": [{"prefix": {"type": "dev."}}, {"exact": {"stream": "transactions"}}]}], True),
        ([{"all": [{"prefix": {"type": "dev."}}, {"exact": {"stream": "labels"}}]}], False),
        ([{"prefix": {"type": "dev."}}, {"exact": {"stream": "labels"}}], False),
        ([{"prefix": {"type": "dev."}}, {"suffix": {"type": ".decided"}}], True),
    ],
)
def test_a_dialect_decides_by_the_event_s_attributes(filters: list[Any], matches: bool) -> None:
    assert compile_trigger({"filters": filters})(EVENT) is matches


def test_a_trigger_without_a_filter_wants_every_event() -> None:
    assert compile_trigger({})(EVENT)
    assert compile_trigger({"filter": {"attributes": {}}})({})


@pytest.mark.parametrize(
    ("attributes", "matches"),
    [
        ({"type": "dev.tollgate.transaction.decided", "stream": "transactions"}, True),
        ({"type": "dev.tollgate.transaction.decided", "stream": "labels"}, False),
        ({"stream": ""}, True),  # the empty text: any value
        ({"missing": ""}, False),
    ],
)
def test_the_legacy_filter_compares_every_attribute(attributes: dict[str, str], matches: bool) -> None:
    assert compile_trigger({"filter": {"attributes": attributes}})(EVENT) is matches


def test_filters_win_over_the_legacy_filter() -> None:
    spec = {"filter": {"attributes": {"type": "other"}}, "filters": [{"prefix": {"type": "dev."}}]}
    assert compile_trigger(spec)(EVENT)


@pytest.mark.parametrize(
    "filters",
    [
        [{"cesql": "type = 'x'"}],
        [{"exact": {"type": "a", "source": "b"}}],
        [{"exact": {"type": ""}}],
        [{"exact": {"Type": "a"}}],
        [{"exact": {"type": 5}}],
        [{"exact": {"type": "a"}, "prefix": {"type": "b"}}],
        [{"any": []}],
        [{"all": {"exact": {"type": "a"}}}],
        [{"not": [{"exact": {"type": "a"}}]}],
        {"exact": {"type": "a"}},
        ["exact"],
    ],
)
def test_what_knative_would_not_accept_is_refused(filters: Any) -> None:
    with pytest.raises(ConfigurationError):
        compile_trigger({"filters": filters})


expressions = st.recursive(
    st.tuples(
        st.sampled_from(["exact", "prefix", "suffix"]), st.sampled_from(["a", "b"]), st.sampled_from(["x", "xy"])
    ).map(lambda each: {each[0]: {each[1]: each[2]}}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
)
attributes = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "xy", "yx"]))


@given(st.lists(expressions, min_size=1, max_size=3), attributes)
def test_not_any_is_all_not(parts: list[Any], event: dict[str, str]) -> None:
    """De Morgan's law, so that the Triggers' `not: any` is what one reads into it."""
    one = compile_trigger({"filters": [{"not": {"any": parts}}]})
    other = compile_trigger({"filters": [{"not": part} for part in parts]})
    assert one(event) == other(event)

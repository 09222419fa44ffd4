"""Which events a Trigger wants: the legacy `filter.attributes` and the `filters` dialects, compiled to a function.

In: a Trigger's spec from `manifests`. Out: a predicate over an event's attributes, used by `__main__` on every
record of the Broker's topic. Dialects: exact, prefix, suffix, all, any, not (cesql is not spoken here).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tollgate.errors import ConfigurationError

Predicate = Callable[[Mapping[str, str]], bool]

_NAME = re.compile(r"[a-z][a-z0-9]*")
_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


def compile_trigger(spec: Mapping[str, Any]) -> Predicate:
    """The predicate of a Trigger's spec. `filters` wins over `filter`, as in Knative; neither means every event.

    Raises `ConfigurationError` for a dialect, an attribute name or a shape that Knative would not accept.
    """
    if spec.get("filters"):
        return _all([_expression(each) for each in _list("filters", spec["filters"])])
    wanted: Mapping[str, str] = (spec.get("filter") or {}).get("attributes") or {}
    for name, value in wanted.items():
        _check(name, value)

    def legacy(attributes: Mapping[str, str]) -> bool:
        return all(
            name in attributes and value in ("", attributes[name])  # the empty text matches any value
            for name, value in wanted.items()
        )

    return legacy


def _expression(expression: Any) -> Predicate:
    if not isinstance(expression, dict) or len(expression) != 1:
        raise ConfigurationError(f"a filter expression has exactly one dialect, this one is {expression!r}")
    ((dialect, body),) = expression.items()
    match dialect:
        case "exact" | "prefix" | "suffix":
            return _comparison(dialect, body)
        case "all":
            return _all([_expression(each) for each in _list("all", body)])
        case "any":
            parts = [_expression(each) for each in _list("any", body)]
            return lambda attributes: any(part(attributes) for part in parts)
        case "not":
            inner = _expression(body)
            return lambda attributes: not inner(attributes)
    raise ConfigurationError(
        f"filter dialect {dialect!r} is not understood: use exact, prefix, suffix, all, any or not"
    )


def _comparison(dialect: str, body: Any) -> Predicate:
    if not isinstance(body, dict) or len(body) != 1:
        raise ConfigurationError(f"filter dialect {dialect!r} takes exactly one attribute, not {body!r}")
    ((name, value),) = body.items()
    _check(name, value)
    if not value:
        raise ConfigurationError(f"filter dialect {dialect!r}: the value of {name!r} is empty")
    compare = _COMPARE[dialect]
    return lambda attributes: name in attributes and compare(attributes[name], value)


def _all(parts: list[Predicate]) -> Predicate:
    return lambda attributes: all(part(attributes) for part in parts)


def _list(dialect: str, body: Any) -> list[Any]:
    if not isinstance(body, list) or not body:
        raise ConfigurationError(f"filter dialect {dialect!r} takes a list of at least one expression")
    return body


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(f"filter attribute {name!r} is not lower-case letters and digits")
    if not isinstance(value, str):
        raise ConfigurationError(f"filter attribute {name!r}: {value!r} is not text, quote it")

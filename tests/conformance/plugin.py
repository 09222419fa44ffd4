"""Options of the Open Inference Protocol suite: `pytest tests/conformance --oip-url URL --oip-model NAME`.

A plugin of its own, because options must be known before a folder's conftest is read: the root conftest loads it.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which server and which of its models."""
    group = parser.getgroup("open inference protocol")
    group.addoption("--oip-url", help="base URL of the server to test, http://host:port (default: Tollgate's own)")
    group.addoption("--oip-model", default="fraud-features", help="a model of it with numeric inputs")

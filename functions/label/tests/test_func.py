"""label as func-python holds it: made, started, handed one event. `python -m unittest discover -s tests -t .`"""

from __future__ import annotations

import os
import unittest
from typing import Any
from unittest import mock

from cloudevents.core.v1.event import CloudEvent
from function import new

from tollgate.errors import ConfigurationError

SETTING = {"TOLLGATE_DATABASE_URL": "postgresql://me@127.0.0.1:1/tollgate"}


class Send:
    """func-python's sender, as far as a function that answers raw HTTP uses it."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    async def http(self, message: dict[str, Any]) -> None:
        """Keep what is sent."""
        self.messages.append(message)


class Test(unittest.IsolatedAsyncioTestCase):
    def test_without_its_setting_it_does_not_start(self) -> None:
        (name,) = SETTING
        with mock.patch.dict(os.environ, clear=True), self.assertRaisesRegex(ConfigurationError, name):  # noqa: PT027
            new()

    async def test_an_event_for_somebody_else_is_refused(self) -> None:
        with mock.patch.dict(os.environ, SETTING, clear=True):
            function = new()
        function.start(dict(SETTING))
        send = Send()
        event = CloudEvent({"type": "com.example.other", "source": "/test", "id": "1"}, {"any": "thing"})
        await function.handle({"event": event}, None, send)
        function.stop()
        assert send.messages[0]["status"] == 422
        assert b"unknown_event_type" in send.messages[1]["body"]


if __name__ == "__main__":
    unittest.main()

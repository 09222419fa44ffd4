"""Features from Postgres, read by a few threads that each own a connection.

In: `Transactions`. Out: the feature matrix and how new the tiles are. A lost connection is replaced once, a second
failure or a statement timeout is `Retryable` (503): no feature is ever made up. Next: `serving` scores the matrix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from tollgate.errors import Retryable
from tollgate.feature_matrix import Floats, assemble
from tollgate.features import windows
from tollgate.settings import Secret
from tollgate.store.connection import Connection, connect, retryable
from tollgate.store.tiles import read_window_sums
from tollgate_kserve.tensors import Transactions

STATEMENT_TIMEOUT_MS = 1_000
"""Longer and `decide` has given up: it waits two seconds for the whole answer."""

T = TypeVar("T")


class FeatureReader:
    """Reads features on the calling thread, over that thread's own connection."""

    def __init__(self, database_url: Secret) -> None:
        self._url = database_url.reveal()
        self._own = threading.local()

    def read(self, batch: Transactions) -> tuple[Floats, datetime | None]:
        """Features float64 [n, F] and the newest event time the tiles hold (None: nothing yet). Raises `Retryable`."""
        sums, as_of = self._with_connection(
            lambda connection: read_window_sums(
                connection, batch.customers, batch.terminals, batch.occurred_s.tolist(), windows()
            )
        )
        return assemble(batch.amount_minor, batch.occurred_s, sums), as_of

    def _with_connection(self, work: Callable[[Connection], T]) -> T:
        fresh = self._connection is None
        connection = self._connection or self._open()
        try:
            with retryable():
                return work(connection)
        except Retryable:
            if not connection.closed:  # a statement timeout: the connection is as good as before
                raise
            self._own.connection = None
            if fresh:
                raise
        # The connection had died since its last use (Postgres restarted): a new one answers the same question.
        connection = self._open()
        with retryable():
            return work(connection)

    @property
    def _connection(self) -> Connection | None:
        connection: Connection | None = getattr(self._own, "connection", None)
        return None if connection is None or connection.closed else connection

    def _open(self) -> Connection:
        connection = connect(
            self._url, application="model", statement_timeout_ms=STATEMENT_TIMEOUT_MS, connect_timeout_s=2
        )
        with retryable():
            # Reads only, and no BEGIN/COMMIT around each: one round trip a statement.
            connection.set_session(readonly=True, autocommit=True)
        self._own.connection = connection
        return connection

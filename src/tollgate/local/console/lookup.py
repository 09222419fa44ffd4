"""What the ledger knows about single transactions: the details of one, the amounts of those on the page.

In: transaction ids. Out: `Decided` with its labels, or `Retryable` while Postgres is away. One read-only connection,
made when it is needed and again after trouble; the calls block, so they run in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import psycopg2

from tollgate.decision import Decided
from tollgate.errors import Retryable
from tollgate.settings import Secret
from tollgate.store import labels, ledger
from tollgate.store.connection import Connection, connect, retryable
from tollgate.transaction import Transaction

_REMEMBERED = 200
_EVERY_S = 1.0
_PATIENCE_S = 3.0


class Lookup:
    """The ledger as the console asks it. `trouble` says why the last try failed."""

    def __init__(self, url: Secret) -> None:
        self.trouble: str | None = None
        self._url = url
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._transactions: OrderedDict[str, Transaction] = OrderedDict()

    async def details(self, transaction_id: str) -> tuple[Decided, dict[str, bool]] | None:
        """The decision and the labels by source; None when it was never decided. Raises `Retryable`."""
        return await asyncio.to_thread(self._details, transaction_id)

    def transaction(self, transaction_id: str) -> Transaction | None:
        """What was looked up before about a transaction; never asks the database."""
        return self._transactions.get(transaction_id)

    async def keep(self, wanted: Callable[[], Collection[str]]) -> None:
        """Look up those of `wanted()` that are not known yet, for ever."""
        while True:
            missing = [name for name in wanted() if name not in self._transactions]
            try:
                found = await asyncio.to_thread(self._find, missing)
                self.trouble = None
            except Retryable as error:
                self.trouble = str(error)
                await asyncio.sleep(_PATIENCE_S)
                continue
            for transaction in found:
                self._transactions[transaction.transaction_id] = transaction
            while len(self._transactions) > _REMEMBERED:
                self._transactions.popitem(last=False)
            await asyncio.sleep(_EVERY_S)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop()

    def _details(self, transaction_id: str) -> tuple[Decided, dict[str, bool]] | None:
        with self._reading() as connection:
            decided = ledger.find(connection, transaction_id)
            return None if decided is None else (decided, labels.of(connection, transaction_id))

    def _find(self, ids: Collection[str]) -> list[Transaction]:
        if not ids:
            return []
        with self._reading() as connection:
            found = [ledger.find(connection, each) for each in ids]
        return [each.transaction for each in found if each is not None]

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """The connection; any trouble closes it, so that the next try begins with a new one."""
        with self._lock:
            try:
                with retryable():
                    yield self._connected()
            except psycopg2.Error as error:  # such as a schema that is not there yet
                self._drop()
                raise Retryable(f"Postgres: {str(error).strip().splitlines()[0]}") from error
            except Retryable:
                self._drop()
                raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url.reveal(), application="console")
            self._connection.set_session(readonly=True, autocommit=True)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

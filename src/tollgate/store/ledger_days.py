"""The ledger's partitions: one table for each UTC day of transactions, made when the first one arrives.

In: days. Out: `ledger_YYYYMMDD` attached to `ledger`, each in a short transaction of its own: attaching takes a lock
that lets others go on reading and writing (CREATE TABLE ... PARTITION OF would wait for every reader of the ledger).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from psycopg2 import sql

from tollgate.store.connection import Connection

_LOCK = 7_105_002
# Asked of pg_inherits and not of to_regclass: that may remember from before the lock that there was no such table.
_EXISTS = (
    "SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'ledger'::regclass AND c.relname = %s)"
)


def ensure(connection: Connection, days: Iterable[date]) -> None:
    """Make the partitions that are missing; several callers at once are safe. Call outside of a transaction."""
    for day in sorted(set(days)):
        name = f"ledger_{day:%Y%m%d}"
        with connection, connection.cursor() as cursor:
            cursor.execute(_EXISTS, (name,))
            if cursor.fetchone() == (True,):
                continue
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor.execute(_EXISTS, (name,))
            if cursor.fetchone() == (True,):
                continue
            table = sql.Identifier(name)
            cursor.execute(sql.SQL("CREATE TABLE {} (LIKE ledger INCLUDING ALL)").format(table))
            cursor.execute(
                sql.SQL("ALTER TABLE ledger ATTACH PARTITION {} FOR VALUES FROM (%s) TO (%s)").format(table),
                (day, day + timedelta(days=1)),
            )

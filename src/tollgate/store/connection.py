"""Connections to Postgres and the migrations of its schema.

In: a database URL. Out: psycopg2 connections with a statement timeout, and a schema at the newest version.
Operational trouble (server away, restarting, too many clients) is raised as `tollgate.errors.Retryable`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

import psycopg2
import psycopg2.extensions

from tollgate.errors import Retryable

Connection = psycopg2.extensions.connection

_MIGRATION_LOCK = 7_105_001


def connect(url: str, *, application: str, statement_timeout_ms: int = 5_000, connect_timeout_s: int = 3) -> Connection:
    """A new connection; `application` shows in pg_stat_activity. Raises `Retryable` when Postgres is away."""
    try:
        return psycopg2.connect(
            url,
            application_name=f"tollgate-{application}",
            connect_timeout=connect_timeout_s,
            options=f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC",
        )
    except psycopg2.OperationalError as error:
        raise Retryable(f"Postgres is away: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def retryable() -> Iterator[None]:
    """Turn lost connections, restarts, time-outs, deadlocks and lock trouble inside the block into `Retryable`."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Retryable(f"Postgres: {text}") from error


@contextmanager
def committed(connection: Connection) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor whose work is committed at the end of the block, undone when it raises.

    On an autocommit connection each statement is a commit of its own: no round trip for BEGIN and COMMIT.
    """
    with connection.cursor() as cursor:
        try:
            yield cursor
        except BaseException:
            if not connection.closed:
                connection.rollback()
            raise
        connection.commit()


def migrate(url: str) -> list[str]:
    """Bring the schema to the newest version; several callers at once are safe. Returns what was applied."""
    applied: list[str] = []
    connection = connect(url, application="migrate", statement_timeout_ms=0)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            cursor.execute("CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz)")
            cursor.execute("SELECT name FROM migrations")
            done = {name for (name,) in cursor.fetchall()}
            folder = files("tollgate.store") / "migrations"
            for script in sorted(folder.iterdir(), key=lambda each: each.name):
                if script.name.endswith(".sql") and script.name not in done:
                    cursor.execute(script.read_text("utf-8"))
                    cursor.execute("INSERT INTO migrations VALUES (%s, now())", (script.name,))
                    applied.append(script.name)
    finally:
        connection.close()
    return applied

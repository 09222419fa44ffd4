"""Where the embedded platform keeps things and which ports it uses.

In: TOLLGATE_HOME and TOLLGATE_PORT_BASE (or the checkout's `.tollgate` and 18000). Out: `Layout`, which every
other module of `tollgate.local` asks for folders, ports and URLs. Nothing here starts anything.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tollgate.errors import ConfigurationError
from tollgate.settings import Secret

DEFAULT_PORT_BASE = 18_000
HOST = "127.0.0.1"

OFFSETS = {
    "console": 0,
    "broker": 1,
    "gateway": 2,
    "mlflow": 3,
    "postgres": 4,
    "kafka": 5,
    "kafka_controller": 6,
    "gateway_admin": 7,
    "dispatcher_metrics": 8,
    "decide": 11,
    "record": 12,
    "label": 13,
    "decide_metrics": 15,
    "record_metrics": 16,
    "label_metrics": 17,
    "model": 20,
    "model_grpc": 21,
    "spark_metrics": 25,
    "model_canary": 30,
    "model_canary_grpc": 31,
}
"""What listens on base + offset."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders below `home` and the ports above `port_base`."""

    home: Path
    port_base: int = DEFAULT_PORT_BASE

    @classmethod
    def resolve(cls, environ: Mapping[str, str] = os.environ) -> Layout:
        """TOLLGATE_HOME and TOLLGATE_PORT_BASE, else the checkout's `.tollgate` (outside a checkout the
        working folder's) and 18000. Raises `ConfigurationError` for a port base that cannot be used.
        """
        text = environ.get("TOLLGATE_PORT_BASE", "").strip() or str(DEFAULT_PORT_BASE)
        if not text.isdigit() or not 1_024 <= int(text) <= 65_000:
            raise ConfigurationError(f"TOLLGATE_PORT_BASE: {text!r} is not a number from 1024 to 65000")
        home = environ.get("TOLLGATE_HOME", "").strip()
        root = checkout() or Path.cwd()
        return cls(Path(home).expanduser().resolve() if home else root / ".tollgate", int(text))

    @property
    def env(self) -> Path:
        """Python environments of parts, one folder each; kept by `down --purge`."""
        return self.home / "env"

    @property
    def jars(self) -> Path:
        """Downloaded jars; kept by `down --purge`."""
        return self.home / "jars"

    @property
    def data(self) -> Path:
        """What must survive a restart."""
        return self.home / "data"

    @property
    def run(self) -> Path:
        """Pid files, generated configuration, state.json: worthless when nothing runs."""
        return self.home / "run"

    @property
    def logs(self) -> Path:
        """One file a part."""
        return self.home / "logs"

    @property
    def state_file(self) -> Path:
        """What the supervisor publishes for `tollgate status`."""
        return self.run / "state.json"

    @property
    def public_root(self) -> Path:
        """Where an unprivileged user reaches Postgres when Tollgate runs as root: home may be closed to it."""
        return Path("/var/lib/tollgate") / hashlib.sha256(str(self.home).encode()).hexdigest()[:12]

    def log(self, part: str) -> Path:
        """The log file of `part`."""
        return self.logs / f"{part}.log"

    def port(self, name: str) -> int:
        """The port of what `OFFSETS` calls `name`."""
        return self.port_base + OFFSETS[name]

    def url(self, name: str) -> str:
        """http://127.0.0.1:<port of name>"""
        return f"http://{HOST}:{self.port(name)}"

    @property
    def kafka_bootstrap(self) -> str:
        """host:port of the one Kafka broker."""
        return f"{HOST}:{self.port('kafka')}"

    @property
    def broker_url(self) -> str:
        """Where a CloudEvent is POSTed to: the Broker `tollgate` in namespace `tollgate`."""
        return f"{self.url('broker')}/tollgate/tollgate"

    def create(self) -> None:
        """Make the folders; run and data are for the owner only (passwords, payment data)."""
        for folder in (self.home, self.env, self.jars, self.data, self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.data, self.run):
            folder.chmod(0o700)

    def database_url(self, database: str = "tollgate") -> Secret:
        """postgresql:// URL with the password, which is made up on first use and kept beside the data."""
        password = self.database_password()
        return Secret(f"postgresql://tollgate:{password}@{HOST}:{self.port('postgres')}/{database}")

    def database_password(self) -> str:
        """The password of the one database user; made up, and kept for the owner only, on first use."""
        file = self.data / "postgres.password"
        self.create()
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return file.read_text().strip()
        with os.fdopen(handle, "w") as out:
            out.write(password := secrets.token_urlsafe(24))
        return password


def checkout() -> Path | None:
    """The folder of the source checkout this package runs from, or None when it was installed as a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else None

"""The storage initializer: `python -m tollgate_kserve.storage mlflow://models/fraud@champion DEST`.

In: a model URI (mlflow://models/<name>@<alias> or mlflow://models/<name>/<version>) and MLFLOW_TRACKING_URI (an MLflow
server, or the registry's database itself). Out: the verified model folder at DEST with registry.json, all or nothing.
The alias is resolved once: what was downloaded is a version, whatever the alias points to later. Next: `artifact`.
Runs where mlflow or mlflow-skinny is installed (a database needs mlflow). Exit code 75 means: try again later.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tollgate.errors import ConfigurationError, Retryable, TollgateError
from tollgate_kserve.artifact import MANIFEST_FILE, REGISTRY_FILE, ArtifactError, verify_files

TRY_AGAIN = 75
"""Exit code for temporary trouble (EX_TEMPFAIL)."""
_URI = re.compile(r"mlflow://models/(?P<name>[^/@\s]+)(?:@(?P<alias>[^/@\s]+)|/(?P<version>\d+))")
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


class UnknownModel(TollgateError):  # noqa: N818 - named after what is wrong
    """The registry has no such model, alias or version; the text says which there are."""


class ModelUri(NamedTuple):
    """A parsed model URI: either `alias` or `version` is set."""

    name: str
    alias: str | None
    version: str | None


def parse(uri: str) -> ModelUri:
    """Read a model URI. Raises `ConfigurationError`."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise ConfigurationError(
            f"{uri!r} is not a model URI: expected mlflow://models/<name>@<alias> or mlflow://models/<name>/<version>"
        )
    return ModelUri(match["name"], match["alias"], match["version"])


def fetch(uri: str, destination: Path, tracking_uri: str) -> dict[str, Any]:
    """Bring the model to `destination`; returns what registry.json says. Nothing is left behind on failure.

    Raises `ConfigurationError`, `UnknownModel`, `ArtifactError` (damaged files), `Retryable` (registry away).
    """
    wanted = parse(uri)
    client = _client(tracking_uri)
    found = _resolve(client, wanted)
    if _is_there(destination, found):
        return found
    inside = os.path.ismount(destination)  # KServe mounts an empty volume at DEST: it cannot be renamed over
    home = destination if inside else destination.absolute().parent
    home.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".incoming-", dir=home))
    try:
        _download(client, found, staging, tracking_uri)
        verify_files(staging)
        (staging / REGISTRY_FILE).write_text(json.dumps(found, indent=1), "utf-8")
        staging.chmod(0o755)  # mkdtemp's 0700 would hide it from a server that runs as another user
        _put(staging, destination, inside=inside)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return found


def _client(tracking_uri: str) -> Any:
    parts = urlsplit(tracking_uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme not in {*_PORTS, "sqlite", "file"}:
        raise ConfigurationError(
            f"MLFLOW_TRACKING_URI: scheme {scheme!r} is none of {', '.join(sorted({*_PORTS, 'sqlite'}))}"
        )
    if scheme in _PORTS:
        # MLflow itself tries an unreachable database for most of an hour; ask for the port first.
        address = (parts.hostname or "localhost", parts.port or _PORTS[scheme])
        try:
            socket.create_connection(address, timeout=3).close()
        except OSError as error:
            raise Retryable(f"the registry at {address[0]}:{address[1]} is away: {error}") from None
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient  # takes seconds: only once there is something to ask

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _resolve(client: Any, wanted: ModelUri) -> dict[str, Any]:
    """Which version that is now. Raises `UnknownModel`, `Retryable`."""
    model = _ask(lambda: client.get_registered_model(wanted.name))
    if model is None:
        raise UnknownModel(f"the registry has no model {wanted.name!r}; train one first (`tollgate train`)")
    version = wanted.version
    if wanted.alias is not None:
        aliases = {alias: str(number) for alias, number in dict(model.aliases).items()}
        if wanted.alias not in aliases:
            there = ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items())) or "none"
            raise UnknownModel(f"model {wanted.name!r} has no alias {wanted.alias!r}; there are: {there}")
        version = aliases[wanted.alias]
    found = _ask(lambda: client.get_model_version(wanted.name, version))
    if found is None:
        raise UnknownModel(f"model {wanted.name!r} has no version {version}")
    return {"name": wanted.name, "version": str(version), "alias": wanted.alias, "run_id": found.run_id or ""}


def _ask(question: Any) -> Any:
    """The registry's answer, None when there is no such thing. Raises `Retryable` for everything else."""
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise Retryable(f"the registry did not answer: {str(error).splitlines()[0]}") from None


def _download(client: Any, found: dict[str, Any], staging: Path, tracking_uri: str) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    source = str(client.get_model_version_download_uri(found["name"], found["version"]))
    try:
        arrived = Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(staging), tracking_uri=tracking_uri)
        )
    except (MlflowException, OSError) as error:
        hint = ""
        if source.startswith("mlflow-artifacts:") and not tracking_uri.startswith("http"):
            hint = " (its files are behind the MLflow server: set MLFLOW_TRACKING_URI to the server's URL)"
        raise Retryable(f"download of {source} failed{hint}: {str(error).splitlines()[0]}") from None
    if arrived.resolve() != staging.resolve():  # MLflow may put the files into a folder of their own
        for entry in arrived.iterdir():
            entry.rename(staging / entry.name)
        shutil.rmtree(arrived)


def _is_there(destination: Path, found: dict[str, Any]) -> bool:
    """True when `destination` already holds this version, undamaged."""
    try:
        return json.loads((destination / REGISTRY_FILE).read_bytes()) == found and bool(verify_files(destination))
    except (OSError, ValueError, ArtifactError):
        return False


def _put(staging: Path, destination: Path, *, inside: bool) -> None:
    if inside:
        entries = sorted(staging.iterdir(), key=lambda each: each.name == MANIFEST_FILE)  # the manifest comes last
        for entry in entries:
            target = destination / entry.name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            entry.rename(target)
        return
    before = Path(tempfile.mkdtemp(prefix=".before-", dir=destination.absolute().parent))
    try:
        if destination.exists():
            destination.rename(before / destination.name)
        staging.rename(destination)
    finally:
        shutil.rmtree(before, ignore_errors=True)


def main() -> int:
    """0 done, 1 hopeless (unknown model, damaged files, wrong setting), 2 usage, 75 try again later."""
    arguments = argparse.ArgumentParser("tollgate_kserve.storage", description=__doc__.splitlines()[0])
    arguments.add_argument("uri", help="mlflow://models/<name>@<alias> or mlflow://models/<name>/<version>")
    arguments.add_argument("destination", type=Path, help="the model folder; replaced when it holds another version")
    options = arguments.parse_args()
    try:
        tracking_uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not tracking_uri:
            raise ConfigurationError(
                "MLFLOW_TRACKING_URI is not set: the MLflow server's URL or the registry's database"
            )
        found = fetch(options.uri, options.destination, tracking_uri)
    except Retryable as error:
        print(error, file=sys.stderr)  # noqa: T201 - the container's log
        return TRY_AGAIN
    except TollgateError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"{found['name']} version {found['version']} is in {options.destination}", file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

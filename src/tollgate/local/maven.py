"""How this user reaches Maven repositories: the mirror, login and proxy their own client configuration names.

In: ~/.m2/settings.xml (mirrors, servers), DEFAULT_ARTIFACT_REPOSITORY (Spark's variable), HTTPS_PROXY and its
kin. Out: `Repository` (None as root means Maven's own default) and JVM proxy options. Next: `tollgate.local.jars`.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tollgate.errors import ConfigurationError
from tollgate.settings import Secret

_COVERS_CENTRAL = {"*", "external:*", "central"}


@dataclass(frozen=True, slots=True)
class Repository:
    """Where artifacts come from; `root` None stands for Maven's default repository."""

    root: str | None = None
    username: str = ""
    password: Secret | None = None


def repository(home: Path, environ: Mapping[str, str] = os.environ) -> Repository:
    """The repository to use for user folder `home`. Raises `ConfigurationError` for a settings.xml that is no XML."""
    if url := environ.get("DEFAULT_ARTIFACT_REPOSITORY", "").strip():
        return Repository(url)
    settings = home / ".m2" / "settings.xml"
    if not settings.is_file():
        return Repository()
    try:
        root = ET.parse(settings).getroot()  # noqa: S314 - the user's own file
    except ET.ParseError as error:
        raise ConfigurationError(f"{settings} is not XML ({error}): repair it, Maven cannot read it either") from None
    for mirror in root.iterfind("{*}mirrors/{*}mirror"):
        covered = {one.strip() for one in _text(mirror, "mirrorOf", environ).split(",")}
        if covered & _COVERS_CENTRAL and "!central" not in covered:
            server = next(
                (
                    one
                    for one in root.iterfind("{*}servers/{*}server")
                    if _text(one, "id", environ) == _text(mirror, "id", environ)
                ),
                None,
            )
            url = _text(mirror, "url", environ)
            if server is None:
                return Repository(url)
            return Repository(url, _text(server, "username", environ), Secret(_text(server, "password", environ)))
    return Repository()


def proxy_options(environ: Mapping[str, str] = os.environ) -> list[str]:
    """JVM options for the proxy that the environment names, as other command line clients understand it."""
    options = []
    for scheme in ("http", "https"):
        value = environ.get(f"{scheme.upper()}_PROXY") or environ.get(f"{scheme}_proxy") or ""
        parts = urlsplit(value if "//" in value else f"http://{value}")
        if parts.hostname:
            options.append(f"-D{scheme}.proxyHost={parts.hostname}")
            options.append(f"-D{scheme}.proxyPort={parts.port or 80}")
    without = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if options and without:
        hosts = [f"*{one}" if one.startswith(".") else one for one in without.replace(" ", "").split(",") if one]
        options.append(f"-Dhttp.nonProxyHosts={'|'.join(hosts)}")
    return options


def _text(element: ET.Element, name: str, environ: Mapping[str, str]) -> str:
    """The text of child `name` with Maven's ${env.NAME} filled in."""
    value = (element.findtext(f"{{*}}{name}") or "").strip()
    return re.sub(r"\$\{env\.([^}]+)\}", lambda found: environ.get(found.group(1), ""), value)

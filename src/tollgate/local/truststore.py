"""The certificate authorities this machine's Python trusts, as a trust store a JVM can read.

In: SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or the system's bundle. Out: a JKS file and the JVM options
that name it. Behind a company's private CA a bundled JVM would otherwise refuse every download.
Next: `tollgate.local.jars`.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import struct
import time
from collections.abc import Mapping
from pathlib import Path

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_PASSWORD = "changeit"  # noqa: S105 - what every JVM expects; a trust store holds nothing secret
_END = "-----END CERTIFICATE-----"


def jvm_options(folder: Path, environ: Mapping[str, str] = os.environ) -> list[str]:
    """JVM options that make it trust what Python trusts; none when no bundle is found. Writes into `folder`."""
    bundle = find_bundle(environ)
    if bundle is None:
        return []
    store = folder / "truststore.jks"
    certificates = read_pem(bundle.read_text(errors="replace"))
    if not certificates:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    partial = store.with_suffix(f".{os.getpid()}")
    partial.write_bytes(jks(certificates, _PASSWORD))
    partial.replace(store)
    return [
        f"-Djavax.net.ssl.trustStore={store}",
        "-Djavax.net.ssl.trustStoreType=jks",
        f"-Djavax.net.ssl.trustStorePassword={_PASSWORD}",
    ]


def find_bundle(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The PEM bundle the user chose by environment, else the system's, else None."""
    candidates = [environ[name] for name in _VARIABLES if environ.get(name)]
    default = ssl.get_default_verify_paths().openssl_cafile
    return next((Path(name) for name in (*candidates, default, *_SYSTEM) if Path(name).is_file()), None)


def read_pem(text: str) -> list[bytes]:
    """The certificates (DER) in a PEM bundle, comments between them ignored, each once."""
    found: dict[bytes, None] = {}
    for block in text.split("-----BEGIN CERTIFICATE-----")[1:]:
        body, end, _ = block.partition(_END)
        if end:
            found[ssl.PEM_cert_to_DER_cert(f"-----BEGIN CERTIFICATE-----{body}{_END}")] = None
    return list(found)


def jks(certificates: list[bytes], password: str) -> bytes:
    """A Java key store (JKS, version 2) of trusted certificates.

    Written by hand because a trimmed runtime may lack keytool: magic, version, count; for each entry tag 2,
    alias, milliseconds, "X.509", the certificate; last a SHA-1 over password, a fixed phrase and all of it.
    """

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode("ascii")

    now = int(time.time() * 1000)
    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates))
    for number, certificate in enumerate(certificates):
        body += struct.pack(">I", 2) + text(f"ca-{number}") + struct.pack(">q", now)
        body += text("X.509") + struct.pack(">I", len(certificate)) + certificate
    check = hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body)  # noqa: S324 - the format's
    return body + check.digest()

"""The two sets of jars the platform needs: Apache Kafka's server, and Spark's connector to it.

In: a Maven repository, reached by the Ivy that ships inside pyspark (no Maven, no Java of the machine's own).
Out: `jars/kafka` and `jars/spark`, complete and equal to the SHA-256 sums in `jars.lock`, or nothing at all.
Next: `tollgate.local.kafka`, the Spark part.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from tollgate.errors import TollgateError
from tollgate.local import java as javas
from tollgate.local import maven, truststore
from tollgate.local.layout import Layout

LOCK = Path(__file__).with_name("jars.lock")
_ATTEMPTS = 3
_NO_ACCESS = re.compile(r"Server access error at url (\S+) \((.+)\)")
_NOT_FOUND = re.compile(r"(\S+#\S+;\S+): not found")


@dataclass(frozen=True, slots=True)
class JarSet:
    """What Ivy is asked for: (organisation, module, version) and organisations or modules left out."""

    name: str
    wanted: tuple[tuple[str, str, str], ...]
    without: tuple[str, ...] = ()


KAFKA = JarSet(
    "kafka",
    (("org.apache.kafka", "kafka_2.13", "3.9.1"), ("org.slf4j", "slf4j-reload4j", "1.7.36")),
    # Only needed by tools and by ZooKeeper mode.
    ('org="com.google.errorprone"',),
)
SPARK = JarSet(
    "spark",
    (("org.apache.spark", "spark-sql-kafka-0-10_2.13", importlib.metadata.version("pyspark")),),
    # pyspark brings these itself.
    (
        'org="org.apache.hadoop"',
        'org="org.scala-lang"',
        'org="org.scala-lang.modules"',
        'org="org.slf4j"',
        'org="at.yawk.lz4"',
        'org="org.xerial.snappy"',
        'org="com.google.code.findbugs"',
        'org="org.apache.spark" module="spark-tags_2.13"',
    ),
)


def classpath(layout: Layout, jar_set: JarSet) -> list[Path]:
    """The jars of a set that `ensure` completed, sorted. Raises `TollgateError` when they are not there."""
    folder = layout.jars / jar_set.name
    if not is_complete(folder, jar_set):
        raise TollgateError(f"the {jar_set.name} jars are not in {folder}: `tollgate up` downloads them")
    return sorted(folder.glob("*.jar"))


def is_complete(folder: Path, jar_set: JarSet) -> bool:
    """Whether `folder` holds this version of the set (its stamp was written last)."""
    stamp = folder / ".complete"
    return stamp.is_file() and stamp.read_text() == _stamp(jar_set)


def ensure(layout: Layout, jar_set: JarSet, progress: Callable[[str], None] = lambda _: None) -> Path:
    """Download a set unless it is there, verify it, and put it in place at once. Returns its folder.

    `progress` hears lines such as "kafka jars: 12 of 56". Raises `TollgateError` saying what could not be had.
    """
    layout.create()
    folder = layout.jars / jar_set.name
    with (layout.jars / f".{jar_set.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two starts at once: the second waits and finds it done
        if is_complete(folder, jar_set):
            return folder
        partial, cache = layout.jars / f".{jar_set.name}.partial", layout.jars / f".{jar_set.name}.cache"
        shutil.rmtree(partial, ignore_errors=True)
        output = ""
        for _ in range(_ATTEMPTS):  # what one attempt downloaded the next finds in the cache
            code, output = _run_ivy(layout, jar_set, partial, cache, progress)
            if code == 0:
                break
        else:
            raise TollgateError(_explain(jar_set, output))
        _verify(partial, jar_set, cache)
        (partial / ".complete").write_text(_stamp(jar_set))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        shutil.rmtree(cache, ignore_errors=True)
    return folder


def lock(jar_set: JarSet) -> dict[str, str]:
    """File name to SHA-256 of every jar of the set, from `jars.lock`."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return {file: digest for name, digest, file in lines if name == jar_set.name}


def relock() -> str:
    """The text of `jars.lock` for the sets as they are asked for now, from a fresh download.

    `python -m tollgate.local.jars > jars.lock` after a change of version. Raises `TollgateError`.
    """
    lines = ["# Set, SHA-256 and file of every jar the platform downloads; checked before any of them is used."]
    for jar_set in (KAFKA, SPARK):
        with tempfile.TemporaryDirectory() as name:
            target = Path(name) / "jars"
            code, output = _run_ivy(Layout(Path(name)), jar_set, target, Path(name) / "cache", lambda _: None)
            if code != 0:
                raise TollgateError(_explain(jar_set, output))
            digests = [(hashlib.sha256(file.read_bytes()).hexdigest(), file.name) for file in target.glob("*.jar")]
            lines += [f"{jar_set.name} {digest} {file}" for digest, file in sorted(digests, key=lambda one: one[1])]
    return "\n".join(lines) + "\n"


def _stamp(jar_set: JarSet) -> str:
    return hashlib.sha256(repr((jar_set, sorted(lock(jar_set).items()))).encode()).hexdigest()


def _verify(folder: Path, jar_set: JarSet, cache: Path) -> None:
    wanted = lock(jar_set)
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.jar")}
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
        raise TollgateError(
            f"the {jar_set.name} jars differ from jars.lock: {', '.join(wrong[:5])}. Nothing was kept. "
            "A mirror served other files, or versions were changed without a new jars.lock."
        )


def _run_ivy(
    layout: Layout, jar_set: JarSet, target: Path, cache: Path, progress: Callable[[str], None]
) -> tuple[int, str]:
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "settings.xml").write_text(_settings(cache, maven.repository(Path.home())))
    (cache / "settings.xml").chmod(0o600)
    (cache / "ivy.xml").write_text(_wanted(jar_set))
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise TollgateError("pyspark is not installed: install the extra `local`")
    ivy = next(Path(spec.origin).parent.glob("jars/ivy-*.jar"))
    command: list[str | Path] = [javas.find().executable]
    command += [*truststore.jvm_options(layout.run), *maven.proxy_options(), "-jar", ivy]
    command += ["-settings", cache / "settings.xml", "-ivy", cache / "ivy.xml", "-confs", "default"]
    command += ["-retrieve", target / "[artifact]-[revision].[ext]"]
    count, total, kept = 0, len(lock(jar_set)), list[str]()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as ivy_process:
        assert ivy_process.stdout is not None
        for line in ivy_process.stdout:
            kept.append(line)
            if "[SUCCESSFUL ]" in line:
                count += 1
                progress(f"{jar_set.name} jars: {count} of {total}")
    return ivy_process.returncode, "".join(kept)


def _settings(cache: Path, repository: maven.Repository) -> str:
    root = f" root={quoteattr(repository.root)}" if repository.root else ""
    credentials = ""
    if repository.root and repository.password is not None:
        host = re.sub(r"^\w+://([^/:]+).*", r"\1", repository.root)
        credentials = (
            f"<credentials host={quoteattr(host)} username={quoteattr(repository.username)} "
            f"passwd={quoteattr(repository.password.reveal())}/>"
        )
    return f"""<ivysettings>
  <settings defaultResolver="maven"/>{credentials}
  <caches defaultCacheDir={quoteattr(str(cache))}/>
  <timeout-constraints>
    <timeout-constraint name="patient" connectionTimeout="20000" readTimeout="60000"/>
  </timeout-constraints>
  <resolvers><ibiblio name="maven" m2compatible="true" timeoutConstraint="patient"{root}/></resolvers>
</ivysettings>
"""


def _wanted(jar_set: JarSet) -> str:
    lines = [
        f'<dependency org="{org}" name="{module}" rev="{version}" conf="default->default"/>'
        for org, module, version in jar_set.wanted
    ]
    lines += [f"<exclude {what}/>" for what in jar_set.without]
    return (
        f'<ivy-module version="2.0"><info organisation="tollgate" module="{jar_set.name}"/>'
        f'<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(lines)}</dependencies></ivy-module>\n"
    )


def _explain(jar_set: JarSet, output: str) -> str:
    if no_access := _NO_ACCESS.search(output):
        what = f"{no_access[1]}: {no_access[2]}"
    elif not_found := _NOT_FOUND.search(output):
        what = f"{not_found[1]} not found"
    else:
        what = " ".join(output.strip().splitlines()[-3:]) or "Ivy said nothing"
    if "CertPath" in output:
        hint = "the certificate is not trusted here: set SSL_CERT_FILE to a PEM bundle that has its authority"
    elif "UnknownHost" in output or "timed out" in output or "refused" in output:
        hint = "is this machine offline? Behind a proxy set HTTPS_PROXY, with a mirror name it in ~/.m2/settings.xml"
    else:
        hint = "try again; with a mirror name it in ~/.m2/settings.xml"
    return f"could not download the {jar_set.name} jars ({what}): {hint}. What did arrive is kept for the next try."


if __name__ == "__main__":
    sys.stdout.write(relock())

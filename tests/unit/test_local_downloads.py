"""What the platform downloads: complete and as locked, or nothing, with an error that helps."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from tollgate.errors import TollgateError
from tollgate.local import environments, jars, kafka
from tollgate.local.jars import JarSet
from tollgate.local.layout import Layout

TINY = JarSet("tiny", (("org.example", "tiny", "1.0"),))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven repository in a folder, with one artifact; the lock names what is in it."""
    folder = tmp_path / "repository" / "org" / "example" / "tiny" / "1.0"
    folder.mkdir(parents=True)
    (folder / "tiny-1.0.pom").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>"
        "<artifactId>tiny</artifactId><version>1.0</version></project>"
    )
    jar = folder / "tiny-1.0.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("hello", "world")
    lock = tmp_path / "jars.lock"
    lock.write_text(f"# comment\ntiny {hashlib.sha256(jar.read_bytes()).hexdigest()} tiny-1.0.jar\n")
    monkeypatch.setattr(jars, "LOCK", lock)
    monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", (tmp_path / "repository").as_uri())
    return folder


def test_jars_are_downloaded_once_and_put_in_place_whole(tmp_path: Path, repository: Path) -> None:
    layout = Layout(tmp_path / "a home")
    with pytest.raises(TollgateError, match="tollgate up"):
        jars.classpath(layout, TINY)
    said: list[str] = []
    folder = jars.ensure(layout, TINY, said.append)
    assert said == ["tiny jars: 1 of 1"]
    assert jars.classpath(layout, TINY) == [folder / "tiny-1.0.jar"]
    (repository / "tiny-1.0.jar").unlink()
    assert jars.ensure(layout, TINY) == folder
    assert sorted(one.name for one in layout.jars.iterdir()) == [".tiny.lock", "tiny"]


def test_a_jar_that_is_not_the_locked_one_is_refused_and_not_kept(tmp_path: Path, repository: Path) -> None:
    layout = Layout(tmp_path / "home")
    (repository / "tiny-1.0.jar").write_bytes(b"something else")
    with pytest.raises(TollgateError, match=r"differ from jars\.lock: tiny-1\.0\.jar"):
        jars.ensure(layout, TINY)
    assert [one.name for one in layout.jars.iterdir()] == [".tiny.lock"]


def test_offline_says_what_is_missing_and_what_to_do(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", "http://127.0.0.1:9/")
    layout = Layout(tmp_path / "home")
    with pytest.raises(TollgateError, match=r"could not download the tiny jars \(http.*tiny-1\.0.*offline"):
        jars.ensure(layout, TINY)
    assert not (layout.jars / "tiny").exists()


def test_every_jar_that_is_asked_for_is_locked() -> None:
    for jar_set in (jars.KAFKA, jars.SPARK):
        names = set(jars.lock(jar_set))
        assert {f"{module}-{version}.jar" for _, module, version in jar_set.wanted} <= names


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a lock that needs no network."""
    uv = environments.find_uv()
    monkeypatch.setenv("PATH", f"{uv.parent}:{os.environ['PATH']}")
    root = tmp_path / "a checkout"
    (root / "requirements").mkdir(parents=True)
    (root / "requirements" / "tiny.txt").write_text("")
    monkeypatch.setattr(environments, "checkout", lambda: root)
    return root


def test_an_environment_is_made_once_for_each_lock(tmp_path: Path, house: Path) -> None:
    layout = Layout(tmp_path / "a home")
    said: list[str] = []
    python = environments.ensure(layout, "tiny", said.append)
    assert python.exists()
    environments.ensure(layout, "tiny", said.append)
    assert said == ["installing requirements/tiny.txt"]
    (house / "requirements" / "tiny.txt").write_text("# another lock\n")
    assert not environments.is_complete(layout, "tiny")


def test_an_environment_that_breaks_half_way_is_not_taken_for_whole(tmp_path: Path, house: Path) -> None:
    (house / "requirements" / "tiny.txt").write_text("msgspec==0.19.0\n")  # no hash
    layout = Layout(tmp_path / "home")
    with pytest.raises(TollgateError, match=r"environment for tiny cannot be made(.|\n)*--require-hashes"):
        environments.ensure(layout, "tiny")
    assert not environments.is_complete(layout, "tiny")


def test_an_environment_without_a_lock_is_named(tmp_path: Path, house: Path) -> None:
    with pytest.raises(TollgateError, match=r"other\.txt is missing"):
        environments.ensure(Layout(tmp_path), "other")


def test_uv_is_found_on_the_path_or_beside_the_checkout(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TollgateError, match="uv is not on PATH"):
        environments.find_uv()
    beside = house / ".tools" / "bin" / "uv"
    beside.parent.mkdir(parents=True)
    beside.touch(mode=0o755)
    assert environments.find_uv() == beside


def test_kafkas_settings_survive_any_folder_name() -> None:
    assert kafka.properties({"log.dirs": "/home/zoë/a b\\c/🙂"}) == (
        "log.dirs=/home/zo\\u00eb/a b\\\\c/\\ud83d\\ude42\n"
    )

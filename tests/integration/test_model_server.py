"""The model server as it runs: real process, real XGBoost, real Postgres."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import model_folder, stores
from kit.model_server import CHECKOUT, Answer, ModelServer, call, running
from tollgate import features
from tollgate.feature_matrix import WindowSums, assemble
from tollgate.local import environments, postgres
from tollgate.local.layout import Layout
from tollgate.local.supervisor import Supervisor
from tollgate.store.connection import connect, migrate
from tollgate.store.tile_merge import Event, Fraud, merge_batch
from tollgate.tiles import EntityKind

pytestmark = pytest.mark.integration

NOW = int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp())
WIDTH = len(features.names())
ALL = ("probability", "features", "reasons")


def past() -> tuple[list[Event], list[Fraud]]:
    """Forty days of a few customers and terminals, every ninth a fraud."""
    random = np.random.default_rng(11)
    events = [
        Event(f"t-{i}", f"c-{random.integers(3)}", f"m-{random.integers(3)}", int(random.integers(100, 90_000)), t)
        for i, t in enumerate(sorted(int(NOW - s) for s in random.integers(1, 40 * 86_400, 600)))
    ]
    return events, [Fraud(e.transaction_id, e.customer_id, e.terminal_id, e.occurred_s) for e in events[::9]]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    with stores.server(tmp_path_factory.mktemp("model-server")) as layout:
        connection = connect(stores.fresh(layout), application="tests")
        events, frauds = past()
        merge_batch(connection, "tests", 1, events, frauds)
        connection.close()
        yield layout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(layout: Layout, folder: Path) -> Iterator[ModelServer]:
    with running(layout, folder, folder / "server.log") as server:
        yield server


def transactions(*rows: tuple[str, str, int, int], outputs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A request to `fraud`: (customer, terminal, amount, seconds after NOW) a row."""
    columns = [
        ("transaction_id", "BYTES", [f"now-{i}" for i in range(len(rows))]),
        ("customer_id", "BYTES", [row[0] for row in rows]),
        ("terminal_id", "BYTES", [row[1] for row in rows]),
        ("amount_minor", "INT64", [row[2] for row in rows]),
        ("occurred_at", "BYTES", [datetime.fromtimestamp(NOW + row[3], UTC).isoformat() for row in rows]),
    ]
    inputs = [{"name": n, "datatype": d, "shape": [len(rows)], "data": values} for n, d, values in columns]
    return {"inputs": inputs, **({"outputs": [{"name": name} for name in outputs]} if outputs else {}), **more}


def matrix(rows: Any, outputs: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A request to `fraud-features`."""
    tensor = {"name": "features", "datatype": "FP64", "shape": [len(rows), WIDTH], "data": np.ravel(rows).tolist()}
    return {"inputs": [tensor], **({"outputs": [{"name": name} for name in outputs]} if outputs else {}), **more}


def one() -> dict[str, Any]:
    return transactions(("c-1", "m-2", 4_200, 0))


def naive(rows: list[tuple[str, str, int, int]]) -> np.ndarray[Any, Any]:
    """The features from the raw events, window by window, without tiles."""
    events, frauds = past()
    fraud_ids = {fraud.transaction_id for fraud in frauds}
    sums = {}
    for window in features.windows():
        columns: list[list[int]] = []
        for customer, terminal, _, seconds in rows:
            start, end = window.bounds(NOW + seconds)
            inside = [
                e
                for e in events
                if start <= e.occurred_s < end
                and (e.customer_id == customer if window.entity is EntityKind.CUSTOMER else e.terminal_id == terminal)
            ]
            amounts = [e.amount_minor for e in inside]
            squares = sum(amount * amount for amount in amounts)
            bad = sum(e.transaction_id in fraud_ids for e in inside)
            columns.append([len(inside), sum(amounts), squares, max(amounts, default=0), bad])
        sums[window] = WindowSums(*np.array(columns, np.int64).T)
    amount = np.array([row[2] for row in rows], np.int64)
    return assemble(amount, np.array([NOW + row[3] for row in rows], np.int64), sums)


def test_fraud_reads_the_features_that_the_raw_events_give(server: ModelServer) -> None:
    rows = [(f"c-{i % 4}", f"m-{i % 5}", 1_000 * (i + 1), 37 * i) for i in range(20)]
    answer = server.infer("fraud", transactions(*rows, outputs=ALL))
    assert answer.status == 200, answer.body
    read = np.array(answer.output("features")).reshape(20, WIDTH)
    np.testing.assert_array_equal(read, naive(rows))
    assert (read[:, features.names().index("terminal_count_30d")] > 0).any()


def test_fraud_features_gives_the_same_bits_for_those_features(server: ModelServer) -> None:
    first = server.infer("fraud", transactions(("c-1", "m-2", 88_000, 0), ("c-2", "m-0", 10, 5), outputs=ALL))
    again = server.infer("fraud-features", matrix(np.reshape(first.output("features"), (2, WIDTH)), ALL))
    for name in ALL:
        assert again.output(name) == first.output(name)


def test_the_answer_has_the_outputs_asked_for_in_that_order_the_id_and_what_made_it(server: ModelServer) -> None:
    body = server.infer("fraud", transactions(("c-1", "m-2", 5, 0), outputs=("features", "probability"), id="q-7")).body
    newest = max(event.occurred_s for event in past()[0])
    assert [(o["name"], o["datatype"], o["shape"]) for o in body["outputs"]] == [
        ("features", "FP64", [1, WIDTH]),
        ("probability", "FP64", [1]),
    ]
    assert (body["id"], body["model_name"], body["model_version"]) == ("q-7", "fraud", "3")
    assert body["parameters"] == {
        "model_version": "3",
        "features_hash": features.digest(),
        "features_as_of": datetime.fromtimestamp(newest, UTC).isoformat().replace("+00:00", "Z"),
        "revision": "fraud-00001",
    }


def test_without_outputs_named_only_the_probability_is_answered(server: ModelServer) -> None:
    body = server.infer("fraud", one()).body
    assert [output["name"] for output in body["outputs"]] == ["probability"]
    assert "id" not in body


def test_reasons_are_json_with_feature_value_and_contribution(server: ModelServer) -> None:
    answer = server.infer("fraud", transactions(("c-1", "m-2", 99_000, 0), outputs=ALL))
    (text,) = answer.output("reasons")
    values = dict(zip(features.names(), answer.output("features"), strict=True))
    reasons = json.loads(text)
    assert 1 <= len(reasons) <= 4
    assert reasons[0]["feature"] == "amount"
    for reason in reasons:
        assert reason["value"] == values[reason["feature"]]
        assert reason["contribution"] > 0


def test_metadata_names_tensors_version_feature_order_and_hash(server: ModelServer) -> None:
    body = server.get("/v2/models/fraud").body
    assert {(each["name"], each["datatype"]) for each in body["inputs"]} == {
        ("transaction_id", "BYTES"),
        ("customer_id", "BYTES"),
        ("terminal_id", "BYTES"),
        ("amount_minor", "INT64"),
        ("occurred_at", "BYTES"),
    }
    assert {"name": "features", "datatype": "FP64", "shape": [-1, WIDTH]} in body["outputs"]
    assert body["versions"] == ["3"]
    assert body["parameters"]["features"].split(",") == list(features.names())
    assert body["parameters"]["features_hash"] == features.digest()
    assert server.get("/v2/models/fraud-features").body["inputs"][0]["shape"] == [-1, WIDTH]


def test_a_version_may_be_named_but_only_the_one_that_is_here(server: ModelServer) -> None:
    assert server.infer("fraud", one(), version="3").status == 200
    wrong = server.infer("fraud", one(), version="4")
    assert wrong.status == 404
    assert "version 3 here" in wrong.body["error"]


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status == status, answer
    assert set(answer.body) == {"error"}
    for word in words:
        assert word in answer.body["error"]


def test_a_refusal_is_a_400_with_an_error_that_names_the_tensor(server: ModelServer) -> None:
    refused(server.infer("fraud", transactions(("c-1", "m-2", 0, 0))), 400, "'amount_minor'", "1 to 100000000")
    refused(server.infer("fraud", {**one(), "inputs": one()["inputs"][1:]}), 400, "missing input 'transaction_id'")
    refused(server.infer("fraud", {**one(), "outputs": [{"name": "score"}]}), 400, "'score'", "probability")
    refused(server.infer("fraud", b"{"), 400, "not a V2 inference request")
    refused(server.infer("fraud", b'{"inputs": 5}'), 400, "inputs")
    refused(
        server.infer(
            "fraud-features", b'{"inputs":[{"name":"features","shape":[1,1],"datatype":"FP64","data":[NaN]}]}'
        ),
        400,
    )
    refused(server.infer("nothing", one()), 404, "'nothing'", "fraud")


def test_binary_tensors_are_read_and_refused_alike(server: ModelServer) -> None:
    rows = model_folder.matrix(3, seed=4)
    head = {
        "name": "features",
        "datatype": "FP64",
        "shape": [3, WIDTH],
        "parameters": {"binary_data_size": rows.nbytes},
    }

    def send(values: np.ndarray[Any, Any]) -> Answer:
        header = json.dumps({"id": "b-1", "inputs": [head]}).encode()
        length = {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}
        return call(f"{server.url}/v2/models/fraud-features/infer", header + values.tobytes(), headers=length)

    assert send(rows).output("probability") == server.infer("fraud-features", matrix(rows)).output("probability")
    rows[1, 2] = np.nan
    refused(send(rows), 400, "'features' [1, 2]", "NaN")


def test_a_body_over_the_limit_is_a_413_also_when_its_length_is_not_announced(server: ModelServer) -> None:
    large = b"[" + b" " * (8 * 1024 * 1024)
    refused(server.infer("fraud", large), 413, "limit of 8388608 bytes")
    refused(call(f"{server.url}/v1/models/fraud:predict", large), 413, "limit")
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.request("POST", "/v2/models/fraud/infer", iter([b" " * 65_536] * 130), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_nobody_unloads_a_model_or_speaks_v1_to_it(server: ModelServer) -> None:
    refused(call(f"{server.url}/v2/repository/models/fraud/unload", method="POST"), 400, "belongs to this revision")
    refused(call(f"{server.url}/v1/models/fraud:predict", {"instances": [[1]]}), 400, "V2")
    assert server.get("/v2/health/ready").body == {"ready": True}


def test_metrics_count_rows_scores_and_stages(server: ModelServer) -> None:
    names = ("tollgate_inference_batch_size_sum", "tollgate_score_count", "tollgate_feature_age_seconds_count")
    stages = [("tollgate_stage_seconds_count", f'{{stage="{stage}"}}') for stage in ("features", "predict", "reasons")]
    before = [server.metric(name) for name in names] + [server.metric(*stage) for stage in stages]
    server.infer("fraud", transactions(("c-1", "m-2", 5, 0), ("c-2", "m-1", 6, 1), outputs=ALL))
    after = [server.metric(name) for name in names] + [server.metric(*stage) for stage in stages]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 2, 1, 1, 1, 1]


def test_no_id_and_no_amount_reaches_the_log(server: ModelServer) -> None:
    strange = transactions(("customer-in-log", "terminal-in-log", 7_654_321, 0))
    assert server.infer("fraud", strange).status == 200
    strange["inputs"][3]["data"] = [-7_654_321]
    assert server.infer("fraud", strange).status == 400
    call(f"{server.url}/v1/models/fraud:predict", {"instances": ["customer-in-log"]})
    text = server.log.read_text()
    assert "in-log" not in text
    assert "7654321" not in text
    assert "Traceback" not in text


def test_grpc_answers_as_http_does(server: ModelServer) -> None:
    """The client is the SDK's, so it runs in the serving environment."""
    python = environments.python(Layout(CHECKOUT / ".tollgate"), "serving")
    client = CHECKOUT / "tests/kit/grpc_client.py"
    request = transactions(("c-1", "m-2", 88_000, 0), outputs=ALL, id="g-1")
    bad = transactions(("c-1", "m-2", 0, 0))
    done = subprocess.run(
        [python, "-P", client, server.grpc],
        input=json.dumps([request, bad]).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    plain, raw, refusal = json.loads(done.stdout)
    http = server.infer("fraud", request)
    for answer in (plain, raw):
        assert answer["id"] == "g-1"
        assert answer["parameters"] == http.body["parameters"]
        for name in ALL:
            assert answer["outputs"][name] == http.output(name)
    assert refusal[0] == "INVALID_ARGUMENT"
    assert "'amount_minor' [0]" in refusal[1]


def test_the_open_inference_protocol_suite_passes(server: ModelServer) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "conformance.plugin", "--oip-url", server.url]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/conformance", *options, "--oip-model", "fraud-features"],
        cwd=CHECKOUT,
        env={"PYTHONPATH": "tests", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_a_slow_postgres_is_a_503_and_never_an_answer(server: ModelServer, layout: Layout) -> None:
    blocker = connect(layout.database_url().reveal(), application="tests")
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE tiles IN ACCESS EXCLUSIVE MODE")
    started = time.monotonic()
    answer = server.infer("fraud", one())
    assert time.monotonic() - started < 3
    blocker.rollback()
    blocker.close()
    refused(answer, 503, "statement timeout")
    assert answer.headers["Retry-After"] == "1"
    assert server.infer("fraud", one()).status == 200


def test_overload_is_a_503_at_once(server: ModelServer, layout: Layout) -> None:
    blocker = connect(layout.database_url().reveal(), application="tests")
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE tiles IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(300) as threads:
        waiting = [threads.submit(server.infer, "fraud", one()) for _ in range(300)]
        errors = [each.result().body["error"] for each in waiting[:1] if each.result().status == 503]
        busy = [each.result() for each in waiting if each.done() and "busy" in each.result().body.get("error", "")]
        blocker.rollback()
        blocker.close()
        statuses = {each.result().status for each in waiting}
    assert errors
    assert len(busy) >= 300 - 256
    assert statuses <= {200, 503}


def test_requests_that_wait_together_share_one_round_trip_and_keep_their_own_answers(
    server: ModelServer, layout: Layout
) -> None:
    rows = [(f"c-{i % 4}", f"m-{i % 5}", 1_000 * (i + 1), 37 * i) for i in range(12)]
    outputs = [ALL, ("probability",), ("features",)]
    bodies = [transactions(*rows[i : i + 1 + i % 2], outputs=outputs[i % 3], id=f"q-{i}") for i in range(12)]
    alone = [server.infer("fraud", body).body for body in bodies]
    bad = transactions(("c-1", "m-2", 0, 0))
    before = server.metric("tollgate_inference_batch_size_count")
    blocker = connect(layout.database_url().reveal(), application="tests")
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE tiles IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(24) as threads:
        waiting = [threads.submit(server.infer, "fraud", each) for body in bodies for each in (body, bad)]
        time.sleep(0.4)
        blocker.rollback()
        blocker.close()
        together = [each.result() for each in waiting]
    assert [answer.body for answer in together[::2]] == alone
    for answer in together[1::2]:
        refused(answer, 400, "'amount_minor' [0]")
    assert server.metric("tollgate_inference_batch_size_count") - before <= 4


def test_a_large_request_which_goes_alone_reads_the_same_features(server: ModelServer) -> None:
    rows = [(f"c-{i % 4}", f"m-{i % 5}", 1_000 * (i + 1), 37 * i) for i in range(40)]
    answer = server.infer("fraud", transactions(*rows, outputs=ALL))
    np.testing.assert_array_equal(np.array(answer.output("features")).reshape(40, WIDTH), naive(rows))


def listens(address: str, port: str) -> bool:
    try:
        socket.create_connection((address, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def test_it_listens_where_it_is_told_and_in_a_pod_on_every_interface(
    server: ModelServer, layout: Layout, folder: Path, tmp_path: Path
) -> None:
    """127.0.0.2 is this machine too, but another address."""
    for port in (server.url.rpartition(":")[2], server.grpc.rpartition(":")[2]):
        assert listens("127.0.0.1", port)
        assert not listens("127.0.0.2", port)
        assert not listens("::1", port)
    with running(layout, folder, tmp_path / "log", as_in_a_pod=True) as everywhere:
        for port in (everywhere.url.rpartition(":")[2], everywhere.grpc.rpartition(":")[2]):
            assert listens("127.0.0.1", port)
            assert listens("127.0.0.2", port)


def test_sigterm_lets_what_is_under_way_finish(layout: Layout, folder: Path, tmp_path: Path) -> None:
    with running(layout, folder, tmp_path / "log") as server:
        assert server.infer("fraud", one()).status == 200
        blocker = connect(layout.database_url().reveal(), application="tests")
        with blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE tiles IN ACCESS EXCLUSIVE MODE")
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(server.infer("fraud", one())))
        asking.start()
        time.sleep(0.3)
        server.terminate()
        time.sleep(0.3)
        blocker.rollback()
        blocker.close()
        asking.join(10)
        assert server.process.wait(10) == 0, server.log.read_text()
    # 503 when this machine was so busy that the statement timed out first: an answer all the same, no reset.
    assert [answer.status in (200, 503) for answer in answers] == [True]


def test_a_postgres_that_went_away_is_a_503_until_it_is_back(folder: Path, tmp_path: Path) -> None:
    layout = stores.elsewhere(tmp_path / "home")
    try:
        with Supervisor(layout) as supervisor:
            supervisor.start(postgres.part(layout))
            supervisor.wait_ready()
            migrate(layout.database_url().reveal())
            with running(layout, folder, tmp_path / "log") as server:
                empty = server.infer("fraud", one())
                assert empty.status == 200
                assert "features_as_of" not in empty.body["parameters"]
                supervisor.stop("postgres")
                away = server.infer("fraud", one())
                refused(away, 503, "Postgres")
                assert away.headers["Retry-After"] == "1"
                assert server.get("/v2/health/live").status == 200
                assert server.infer("fraud-features", matrix(model_folder.matrix(1))).status == 200
                supervisor.start(postgres.part(layout))
                supervisor.wait_ready()
                assert server.infer("fraud", one()).output("probability") == empty.output("probability")
    finally:
        postgres.purge(layout)


def test_a_folder_that_must_not_be_served_stops_the_start_with_the_reason(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "model", features_hash="0123456789abcdef")
    python = environments.python(Layout(CHECKOUT / ".tollgate"), "serving")
    done = subprocess.run(
        [python, "-m", "tollgate_kserve", f"--model_dir={folder}"],
        env={"PYTHONPATH": f"{CHECKOUT}/src:{CHECKOUT}/kserve", "TOLLGATE_DATABASE_URL": "postgresql://nowhere/x"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "other definitions (hash 0123456789abcdef" in done.stderr
    assert "Traceback" not in done.stderr

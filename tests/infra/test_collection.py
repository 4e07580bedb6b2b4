"""What is asked of img2dataset, and what is believed of what it says."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra import img2dataset
from infra.collection import ATTEMPT_SCHEMA, Collection, interleaved, next_due
from infra.gateway.outcomes import COLUMNS, Attempt, Outcome, url_key
from infra.img2dataset import Settings, read_results
from infra.tables import write_table
from tests.infra.gateway.harness import configure, picture
from tests.tasks.web import serving


def test_keys_go_round_the_hosts() -> None:
    urls = [(f"a{n}", f"http://a.test/{n}") for n in range(3)]
    urls += [("b0", "https://b.test:8443/x"), ("c0", "http://c.test")]
    assert interleaved(urls) == ["a0", "b0", "c0", "a1", "a2"]


def test_what_may_be_asked_for_soon_is_asked_for_together() -> None:
    times = {"asked": None, "soon": 104.0, "next": 109.0, "late": 115.0, "past": 3.0}
    standing = {key: Attempt(key, "u", 1, not_before=when) for key, when in times.items()}
    keys = ["late", "next", "soon"]
    assert next_due([*keys, "new"], standing, 100.0, 10.0) == (["next", "soon", "new"], 109.0)
    assert next_due(keys, standing, 100.0, 10.0) == (["next", "soon"], 109.0)
    assert next_due(["late"], standing, 100.0, 10.0) == (["late"], 115.0)
    assert next_due(["asked", "past"], standing, 100.0, 10.0) == (["asked", "past"], 100.0)


def test_images_of_a_slow_host_come_at_their_turns_or_are_given_up(tmp_path: Path) -> None:
    """A delay of 2 s, 3 s of waiting: one image at once, one at its turn, 18 not at all."""
    site = {f"slow.test/{n}.png": {"body": base64.b64encode(picture()).decode()} for n in range(20)}
    rules = base64.b64encode(b"User-agent: *\nCrawl-delay: 2").decode()
    site["slow.test/robots.txt"] = {"body": rules}
    urls = {url_key(url): url for url in (f"http://slow.test/{n}.png" for n in range(20))}
    (tmp_path / "web").mkdir()
    with serving(tmp_path / "web", site) as hosts:
        config = configure(tmp_path, private_hosts=hosts, patience=0.5, longest_wait=3.0)
        settings = Settings(processes=1, threads=20)
        with Collection(config, settings, log=tmp_path) as collection:
            collection.want("chunk", urls)
            fetched = collection.fetch(urls, tmp_path / "scratch", lambda _: None)
            rows = collection.write_attempts(tmp_path / "attempts.parquet")
    assert set(fetched.attempts) == set(urls)
    came = {key for key, attempt in fetched.attempts.items() if attempt.ok}
    assert set(fetched.results) == came
    assert len(came) == 2
    late = [attempt for key, attempt in fetched.attempts.items() if key not in came]
    assert {attempt.outcome for attempt in late} == {Outcome.RATE_LIMITED}
    assert all(attempt.is_final(config.attempts) for attempt in late)
    assert rows == 20 + 1


def test_attempts_can_be_written_with_all_their_columns(tmp_path: Path) -> None:
    attempt = Attempt("k", "http://a.test/", 1, status=200, not_before=1.5, requested=True)
    write_table(tmp_path / "attempts.parquet", [vars(attempt)], ATTEMPT_SCHEMA)
    (row,) = pq.read_table(tmp_path / "attempts.parquet").to_pylist()
    assert tuple(row) == COLUMNS
    assert row == vars(attempt)


def write_output(folder: Path, shard: str, finished: bool) -> None:
    """A shard as img2dataset writes it: one success, one failure, statistics last."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"url": f"http://gate/{shard}-ok", "sha256": "00", "status": "success"}
    with tarfile.open(folder / f"{shard}.tar", "w") as tar:
        parts = [("0.jpg", b"the image"), ("0.json", json.dumps(record).encode())]
        for name, content in parts:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    rows = [
        {"url": record["url"], "status": "success", "error_message": None},
        {"url": f"http://gate/{shard}-403", "status": "failed_to_download", "error_message": "no"},
        {"url": f"http://gate/{shard}-cut", "status": "failed_to_resize", "error_message": "cut"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
    if finished:
        (folder / f"{shard}_stats.json").write_text("{}")


def test_only_shards_that_were_finished_are_read(tmp_path: Path) -> None:
    write_output(tmp_path / "output", "00000", finished=True)
    write_output(tmp_path / "output", "00001", finished=False)
    results = {result.url[12:]: result for result in read_results(tmp_path)}
    assert set(results) == {"00000-ok", "00000-403", "00000-cut"}
    assert results["00000-ok"].read() == b"the image"
    assert results["00000-ok"].is_settled
    assert not results["00000-403"].is_settled  # the gateway's journal says what came of it
    assert results["00000-cut"].undecodable


def test_a_run_that_left_nothing_has_no_results(tmp_path: Path) -> None:
    assert list(read_results(tmp_path)) == []


def test_its_environment_holds_no_proxy_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "x")
    environment = img2dataset._environment(resizing=False)
    assert "x" not in environment.values()
    assert environment["no_proxy"] == "*"
    assert environment["NO_ALBUMENTATIONS_UPDATE"] == "1"
    assert int(environment["OPENCV_IO_MAX_IMAGE_PIXELS"]) < 2**28


@pytest.mark.parametrize(
    ("count", "processes", "shard"), [(1, 2, 1), (5000, 2, 2500), (7001, 4, 1751), (20000, 2, 2500)]
)
def test_work_is_split_among_the_processes(count: int, processes: int, shard: int) -> None:
    options = img2dataset._options(Path("t"), Path("o"), count, Settings(processes=processes))
    assert options["number_sample_per_shard"] == shard
    assert options["retries"] == 0

"""Downloads that break off, stall, are refused or arrive altered."""

import hashlib
import shutil
import subprocess
import sys
import time
from collections import namedtuple

import pytest
from server import serve

from xlmr_course import download
from xlmr_course.download import DownloadError

CONTENT = bytes(range(256)) * 2_000  # half a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub():
    with serve({"/file": CONTENT}) as server:
        yield server


def fetch(hub, folder, **options):
    options = {"sha256": SHA256, "pause": 0.01} | options
    return download.fetch(hub.address + "/file", folder / "file", **options)


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(hub, tmp_path):
    assert fetch(hub, tmp_path / "new").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_broken_connection_is_resumed_not_repeated(hub, tmp_path):
    hub.break_after = 300_000
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    ranges = [asked for _, asked in hub.requests]
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=3")


def test_what_an_earlier_run_left_is_used(hub, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.requests == [("/file", "bytes=100000-")]


def test_a_server_that_cannot_resume_sends_everything(hub, tmp_path):
    hub.ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:100_000])
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_more_bytes_than_the_file_has_are_thrown_away(hub, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    assert fetch(hub, tmp_path).read_bytes() == CONTENT


def test_a_stalled_line_times_out_and_what_arrived_is_kept(hub, tmp_path):
    hub.slow_after = 131_072  # 0.2 seconds a piece
    with pytest.raises(DownloadError, match=r"stopped after 0 MB \(timed out\); what has arrived is kept"):
        fetch(hub, tmp_path, timeout=0.05, attempts=2)
    assert (tmp_path / "file.part").stat().st_size >= 131_072
    assert not (tmp_path / "file").exists()


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(hub, tmp_path):
    hub.status = [503, 429]
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    hub.status = [403]
    with pytest.raises(DownloadError, match=r"the server answers 403"):
        download.fetch(hub.address + "/file", tmp_path / "other")
    assert len(hub.requests) == 4


def test_a_wrong_hash_is_named_and_the_file_removed(hub, tmp_path):
    with pytest.raises(DownloadError, match=rf"file \(512,000 bytes\) has the SHA-256 {SHA256[:12]}… instead of 1111"):
        fetch(hub, tmp_path, sha256="1" * 64)
    assert list(tmp_path.iterdir()) == []


def test_no_server_is_one_sentence(tmp_path):
    with pytest.raises(DownloadError, match="the download of file stopped after 0 MB"):
        download.fetch("http://127.0.0.1:9/file", tmp_path / "file", attempts=2, pause=0.01)


def test_a_full_disk_is_said_before_it_is_full(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DownloadError, match=r"needs 1 MB more and the disk has 0 MB free"):
        fetch(hub, tmp_path)


KILLED = """
import sys
from pathlib import Path
from xlmr_course import download
download.fetch(sys.argv[1], Path(sys.argv[2]))
"""


def test_after_a_kill_the_next_process_goes_on(hub, tmp_path):
    hub.slow_after = 262_144
    part = tmp_path / "file.part"
    with subprocess.Popen([sys.executable, "-c", KILLED, hub.address + "/file", str(tmp_path / "file")]) as process:
        while process.poll() is None and download.size(part) < 262_144:
            time.sleep(0.01)
        process.kill()
    assert process.wait() != 0
    arrived = download.size(part)
    assert 262_144 <= arrived < len(CONTENT)
    hub.slow_after = None
    assert fetch(hub, tmp_path).read_bytes() == CONTENT
    assert hub.requests[-1] == ("/file", f"bytes={arrived}-")

"""Fetching data, against servers that break off, lie and ignore what they are asked."""

import hashlib
import io
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from refstudy.base.errors import StudyError
from refstudy.data.download import Mirror, fetch, load_mirrors


def archive():
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as out:
        out.writestr("thing/noise.bin", np.random.default_rng(0).bytes(300_000))
    return memory.getvalue()


CONTENT = archive()
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FLIPPED = CONTENT[:1000] + bytes([CONTENT[1000] ^ 255]) + CONTENT[1001:]  # within the data of its member


class Handler(BaseHTTPRequestHandler):
    """/good, /slow, /drops (half of what is left at a time), /drops-at-once, /deaf (no ranges), /wrong (bytes), /short,
    /flipped (a byte), /missing, /page (HTML)."""

    def do_GET(self):
        kind, start = self.path.strip("/").split("?")[0], 0
        self.server.asked.append((kind, self.headers.get("Range")))
        if kind == "missing":
            self.send_error(404)
            return
        others = {"wrong": bytes(len(CONTENT)), "page": b"<html>", "short": CONTENT[:-5], "flipped": FLIPPED}
        content = others.get(kind, CONTENT)
        if (asked := self.headers.get("Range")) and kind != "deaf":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        left = content[start:]
        self.send_header("Content-Length", str(len(left)))
        self.end_headers()
        if kind == "slow":
            time.sleep(0.5)
        if kind == "drops" and len(left) > 60_000:
            left = left[: len(left) // 2]
        self.wfile.write(left if kind != "drops-at-once" else b"")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def mirror(*kinds, sha256=SHA256, size=SIZE):
        urls = tuple(f"{address}/{kind}" for kind in kinds)
        about = {"about": "a thing", "file": "thing.zip", "unpack": "thing", "source": None}
        return Mirror(urls=urls, size=size, sha256=sha256, **about)

    yield SimpleNamespace(mirror=mirror, asked=server.asked)
    server.shutdown()
    server.server_close()


def assert_fetched(root):
    assert (root / "thing.zip").read_bytes() == CONTENT
    assert len((root / "thing" / "noise.bin").read_bytes()) == 300_000
    assert not list(root.glob("*.part"))


def test_a_file_is_fetched_verified_unpacked_and_not_fetched_again(server, tmp_path):
    assert "SHA-256 as published" in fetch(server.mirror("good"), tmp_path, progress=False)
    assert_fetched(tmp_path)
    assert "already there; refstudy data check" in fetch(server.mirror("good"), tmp_path, progress=False)
    assert len(server.asked) == 1


def test_an_empty_folder_is_not_taken_for_the_data(server, tmp_path):
    (tmp_path / "thing").mkdir()
    assert "SHA-256 as published" in fetch(server.mirror("good"), tmp_path, progress=False)
    assert_fetched(tmp_path)


def test_a_connection_that_breaks_off_is_resumed(server, tmp_path):
    fetch(server.mirror("drops"), tmp_path, progress=False)
    assert_fetched(tmp_path)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for _, asked in server.asked[1:]]
    assert len(starts) >= 2 and starts[0] >= len(CONTENT) // 2 - 1 and starts == sorted(set(starts))


def test_what_an_earlier_call_left_is_taken_up(server, tmp_path):
    (tmp_path / "thing.zip.part").write_bytes(CONTENT[:1000])
    fetch(server.mirror("good"), tmp_path, progress=False)
    assert_fetched(tmp_path)
    assert server.asked == [("good", "bytes=1000-")]


def test_a_server_that_ignores_ranges_starts_again(server, tmp_path):
    (tmp_path / "thing.zip.part").write_bytes(b"x" * 1000)
    fetch(server.mirror("deaf"), tmp_path, progress=False)
    assert_fetched(tmp_path)


@pytest.mark.parametrize("first", ["missing", "wrong", "short", "drops-at-once", "page"])
def test_the_next_mirror_is_tried(server, tmp_path, first):
    fetch(server.mirror(first, "good"), tmp_path, progress=False)
    assert_fetched(tmp_path)


@pytest.mark.parametrize("left", [b"x" * 1000, bytes(len(CONTENT)), bytes(len(CONTENT) + 7)])
def test_wrong_bytes_left_behind_do_not_spoil_a_good_mirror(server, tmp_path, left):
    (tmp_path / "thing.zip.part").write_bytes(left)
    fetch(server.mirror("good"), tmp_path, progress=False)
    assert_fetched(tmp_path)


def test_a_file_without_published_digest_is_marked_as_unverified(server, tmp_path):
    line = fetch(server.mirror("page", "good", sha256=None, size=None), tmp_path, progress=False)
    assert "unverified" in line and SHA256 in line and str(len(CONTENT)) in line
    assert_fetched(tmp_path)


def test_a_broken_archive_is_known_without_published_digest(server, tmp_path):
    fetch(server.mirror("flipped", "good", sha256=None), tmp_path, progress=False)
    assert_fetched(tmp_path)


def test_one_of_several_fetches_and_the_others_wait(server, tmp_path):
    mirror = server.mirror("slow")
    with ThreadPoolExecutor(3) as pool:
        lines = list(pool.map(lambda _: fetch(mirror, tmp_path, progress=False), range(3)))
    assert len(lines) == 3 and len(server.asked) == 1
    assert_fetched(tmp_path)


def test_where_nothing_can_be_kept_it_is_said(server, tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(StudyError, match=r"data: cannot hold data \(.*\); allow to write there"):
        fetch(server.mirror("good"), tmp_path / "data", progress=False)


def test_when_no_mirror_helps_each_reason_is_told_and_nothing_stands(server, tmp_path):
    with pytest.raises(
        StudyError, match=r"thing.zip: no mirror gave it \(.*missing: HTTP status 404; .*wrong: has anoth"
    ):
        fetch(server.mirror("missing", "wrong"), tmp_path, progress=False)
    assert not (tmp_path / "thing").exists() and not (tmp_path / "thing.zip").exists()


def test_a_wrong_file_that_lies_there_is_not_unpacked(server, tmp_path):
    (tmp_path / "thing.zip").write_bytes(CONTENT[:-1])
    with pytest.raises(StudyError, match="thing.zip: has .* bytes, not the published"):
        fetch(server.mirror("good"), tmp_path, progress=False)
    assert not (tmp_path / "thing").exists() and not server.asked


def test_the_list_of_mirrors_states_only_what_has_a_source():
    mirrors = load_mirrors()
    assert {"refcoco", "refcoco+", "refcocog", "refclef", "train2014", "saiapr_tc-12"} <= set(mirrors)
    for mirror in mirrors.values():
        assert bool(mirror.source) == bool(mirror.size) == bool(mirror.sha256)
        assert mirror.sha256 is None or re.fullmatch("[0-9a-f]{64}", mirror.sha256)
        assert all(url.startswith(("http://", "https://")) and url.endswith(mirror.file) for url in mirror.urls)
        assert mirror.file.removesuffix(".zip") == mirror.unpack.split("/")[-1]

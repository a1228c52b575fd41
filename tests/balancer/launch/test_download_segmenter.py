"""The model that segments Chinese text into words, which is downloaded from a server of its own."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.harness import ROOT, environment
from worker.checkpoints.catalogue import SEGMENTER

FETCH = f"""
import sys
from spacy_pkuseg import config
config.model_urls["{SEGMENTER}"], config.model_hash["{SEGMENTER}"] = sys.argv[1:]
from balancer.launch.download import DownloadError, download_segmenter
try:
    download_segmenter(announce=print)
except DownloadError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def fetch(tmp_path: Path, url: str, checksum: str) -> subprocess.CompletedProcess[str]:
    variables = environment() | {"PKUSEG_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-W", "ignore", "-c", FETCH, f"{url}/{SEGMENTER}.zip", checksum]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_it_is_downloaded_once(server: str, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights.npz", b"words")
    (tmp_path / "served" / f"{SEGMENTER}.zip").write_bytes(archive.getvalue())
    checksum = hashlib.sha256(archive.getvalue()).hexdigest()
    first = fetch(tmp_path, server, checksum)
    assert (first.returncode, first.stdout.count("downloading the model")) == (0, 1)
    assert (tmp_path / "home" / SEGMENTER / "weights.npz").read_bytes() == b"words"
    second = fetch(tmp_path, "http://127.0.0.1:9", checksum)
    assert (second.returncode, second.stdout) == (0, "")


def test_a_damaged_archive(server: str, tmp_path: Path) -> None:
    refused = fetch(tmp_path, server, "0" * 64)
    assert refused.returncode == 1
    assert "cannot download the model that segments Chinese text into words: " in refused.stderr
    assert not (tmp_path / "home" / SEGMENTER).exists()

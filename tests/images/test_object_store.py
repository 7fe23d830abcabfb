"""DATA in an object store that speaks S3: the same bytes as from a folder, also by workers of Ray."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from data_sets import as_samples
from tiny_distillation import arguments, assert_refused, contents, distill

from fgdd_fast.cli.main import main
from fgdd_fast.trust.verifying import verify

SERVER = shutil.which("moto_server")
pytestmark = pytest.mark.skipif(
    SERVER is None, reason="moto_server is not there: pipx install 'moto[server]'"
)
pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The bucket of a local server, which has a name of its own: stores stay open in a process."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    assert SERVER is not None
    command = [SERVER, "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "someone",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1",
            }.items():
                patch.setenv(name, value)
            for _ in range(300):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield f"bucket-{port}"
        process.kill()


def upload(folder: Path, bucket: str, name: str) -> str:
    from pyarrow.fs import S3FileSystem, copy_files

    store = S3FileSystem(allow_bucket_creation=True, endpoint_override=os.environ["AWS_ENDPOINT_URL"])
    store.create_dir(bucket)
    copy_files(str(folder), f"{bucket}/{name}", destination_filesystem=store)
    return f"s3://{bucket}/{name}"


def distilled(workplace: Path, address: str, **options: object) -> Path:
    words = arguments(workplace, "from-store", store=workplace / "another", **options)
    words[words.index(str(workplace / "data"))] = address
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return workplace / "from-store"


def test_a_bucket_is_distilled_to_the_same_bytes(workplace: Path, server: str) -> None:
    assert distill(workplace).exit_code == 0
    address = upload(workplace / "data", server, "folders")
    out = distilled(workplace, address)
    assert contents(out) == contents(workplace / "out")
    assert verify(out, address).sound
    shards = upload(as_samples(workplace / "data", workplace / "samples"), server, "shards")
    shutil.rmtree(out)
    assert contents(distilled(workplace, f"{shards}/train-*.tar")) == contents(workplace / "out")


def test_what_is_not_there_is_refused(workplace: Path, server: str) -> None:
    bucket = f"s3://{server}"
    for address, words in (
        (f"{bucket}/none", f"nothing at {bucket}/none"),
        (f"{bucket}-b/x", "NO_SUCH_BUCKET"),
    ):
        assert_refused(CliRunner().invoke(main, ["check", address]), words)


def test_workers_read_a_bucket_themselves(
    workplace: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'fgdd-fast[ray]'")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it leaves a token in the home folder
    assert distill(workplace).exit_code == 0
    address = upload(workplace / "data", server, "workers")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        out = distilled(workplace, address, executor="ray", threads=1)
    finally:
        ray.shutdown()
    assert contents(out) == contents(workplace / "out")

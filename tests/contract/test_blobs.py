"""What every blob store must do, held against ours; S3's protocol is spoken by a server of its own, over a socket."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from nexus_marketing.builtins.blobs.files import FileBlobs
from nexus_marketing.builtins.blobs.s3 import S3Blobs
from nexus_marketing.config import make_runtime
from nexus_marketing.core.errors import ConfigurationError, Unavailable
from nexus_marketing.core.storages import BlobStore
from nexus_marketing.runtime import MemoryBlobs

pytestmark = pytest.mark.req("FR-P2-010", "SR-004")

KEY = f"7/{'ab' * 16}"
OTHER = f"8/{'ab' * 16}"


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """A server of S3's protocol."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A bucket of this test's own; logins as a deployment gives them."""
    values = {
        "ACCESS_KEY_ID": "test",
        "SECRET_ACCESS_KEY": "test",
        "DEFAULT_REGION": "eu-central-1",
        "EC2_METADATA_DISABLED": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    name = f"b{abs(hash(request.node.nodeid)):x}"
    client = boto3.client("s3", endpoint_url=s3_url)
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    client.close()
    return name


@pytest.fixture(params=["files", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """Each store."""
    if request.param == "files":
        return FileBlobs(tmp_path)
    if request.param == "memory":
        return MemoryBlobs()
    return S3Blobs(f"s3://{request.getfixturevalue('bucket')}/attachments/", request.getfixturevalue("s3_url"))


def test_bytes_are_kept_until_they_are_removed(store: BlobStore) -> None:
    assert store.get(KEY) is None
    store.put(KEY, b"\x00\xff")
    assert store.get(KEY) == b"\x00\xff"
    assert store.get(OTHER) is None
    for _ in range(2):
        store.delete(KEY)
    assert store.get(KEY) is None


def test_a_large_file_is_stored_from_where_it_stands_and_stays_the_callers(store: BlobStore) -> None:
    content = os.urandom(9 << 20)  # S3 takes it in parts
    file = BytesIO(b"skipped" + content)
    file.seek(7)
    store.put(KEY, file)
    file.seek(0)
    assert file.read(7) == b"skipped"
    with store.local(KEY) as path:
        assert path is not None
        assert path.read_bytes() == content
    with store.local(OTHER) as path:
        assert path is None


@pytest.mark.parametrize("key", ["../x", "7/../../etc/passwd", "/etc/passwd", "7/" + "z" * 32, ""])
def test_a_key_reaches_nothing_else(tmp_path: Path, bucket: str, s3_url: str, key: str) -> None:
    for store in (FileBlobs(tmp_path), S3Blobs(f"s3://{bucket}", s3_url)):
        for ask in (store.get, store.delete, lambda key, store=store: store.put(key, b"x")):
            with pytest.raises(ConfigurationError, match="no key"):
                ask(key)


def test_files_are_for_the_server_alone_and_never_half_there(tmp_path: Path) -> None:
    FileBlobs(tmp_path).put(KEY, b"x")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["ab" * 16]
    assert files[0].stat().st_mode & 0o077 == 0


def test_objects_lie_below_the_prefix_and_nowhere_else(bucket: str, s3_url: str) -> None:
    S3Blobs(f"s3://{bucket}/a/b", s3_url).put(KEY, b"x")
    S3Blobs(f"s3://{bucket}", s3_url).put(KEY, b"y")
    client = boto3.client("s3", endpoint_url=s3_url)
    found = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    client.close()
    assert found == [KEY, f"a/b/{KEY}"]


def test_a_missing_bucket_is_no_missing_object(bucket: str, s3_url: str) -> None:
    store = S3Blobs(f"s3://{bucket}-elsewhere", s3_url)
    for ask in (lambda: store.put(KEY, b"x"), lambda: store.delete(KEY), lambda: store.get(KEY)):
        with pytest.raises(Unavailable, match=f"{bucket}-elsewhere"):
            ask()


def test_a_server_that_is_gone_is_told(bucket: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = S3Blobs(f"s3://{bucket}", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unavailable, match=bucket):
            store.get(KEY)


class TestSettings:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, str]:
        return {"nexus.database_url": f"sqlite:///{tmp_path}/nexus.db", "nexus.state_dir": str(tmp_path)}

    def test_a_bucket_is_one_line(self, settings: dict[str, str], bucket: str, s3_url: str) -> None:
        settings |= {"nexus.blob_url": f"s3://{bucket}/x", "nexus.blob_endpoint_url": s3_url}
        with closing(make_runtime(settings)) as runtime:
            runtime.blobs.put(KEY, b"x")
        assert S3Blobs(f"s3://{bucket}/x", s3_url).get(KEY) == b"x"

    def test_two_places_are_refused(self, settings: dict[str, str]) -> None:
        settings |= {"nexus.blob_url": "s3://bucket", "nexus.blob_dir": "x"}
        with pytest.raises(ConfigurationError, match="leave one of them out"):
            make_runtime(settings)

    @pytest.mark.parametrize("url", ["bucket", "https://bucket.s3.amazonaws.com", "s3://", "s3://a b"])
    def test_what_is_no_bucket_is_refused(self, settings: dict[str, str], url: str) -> None:
        with pytest.raises(ConfigurationError, match=r"nexus.blob_url.*s3://bucket"):
            make_runtime({**settings, "nexus.blob_url": url})

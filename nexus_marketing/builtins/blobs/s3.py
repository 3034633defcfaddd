"""Attachments and uploads in a bucket of Amazon S3, or of a server that speaks its protocol (the extra ``s3``).

Logins and the region come from where boto3 looks for them: the environment (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, …),
``~/.aws``, or the role of the machine; none of them is a setting of ours. The bucket must exist. We need the rights
``s3:GetObject``, ``s3:PutObject``, ``s3:DeleteObject`` and ``s3:AbortMultipartUpload`` in it, and ``s3:ListBucket``, without
which the service does not tell a missing object from a forbidden one. Let a rule of the bucket remove multipart uploads that
were begun and never ended: a process that is killed leaves them.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from shutil import copyfileobj
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from nexus_marketing.builtins.blobs.keys import checked
from nexus_marketing.core.errors import ConfigurationError, Unavailable

_BLOCK = 1 << 20


class S3Blobs:
    """Keeps ``tenant/abcd…`` as an object of that name below a prefix.

    Args:
        url: ``s3://bucket`` or ``s3://bucket/prefix``.
        endpoint_url: of a server that is not Amazon's; its buckets are addressed by path then.
        connections: kept open at most.
    """

    def __init__(self, url: str, endpoint_url: str | None = None, *, connections: int = 10) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigurationError(f"{url!r} names no bucket: write s3://bucket or s3://bucket/prefix.")
        self._bucket, prefix = parts.netloc, parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 3},
            max_pool_connections=connections,
            s3={"addressing_style": "path" if endpoint_url else "auto"},
        )
        # A client is made once and used by every thread; a session may not be.
        try:
            self._client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"{url}: {error}") from error

    def put(self, key: str, content: bytes | BinaryIO) -> None:
        """Store it; the service answers once it is durable, and shows no half of it."""
        file = BytesIO(content) if isinstance(content, bytes) else content
        with self._answering():
            self._client.upload_fileobj(_KeptOpen(file), self._bucket, self._name(key))

    def get(self, key: str) -> bytes | None:
        """The bytes, or nothing."""
        file = BytesIO()
        return file.getvalue() if self._download(key, file) else None

    @contextmanager
    def local(self, key: str) -> Iterator[Path | None]:
        """A copy on this machine for as long as it is read, or nothing."""
        with NamedTemporaryFile(prefix="nexus-blob-") as file:
            found = self._download(key, file)
            file.flush()
            yield Path(file.name) if found else None

    def delete(self, key: str) -> None:
        """Remove it; what is gone already is no fault."""
        with self._answering():
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def _download(self, key: str, file: Any) -> bool:
        with self._answering():
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                    return False
                raise
            with closing(answer["Body"]) as body:
                copyfileobj(body, file, _BLOCK)
        return True

    def _name(self, key: str) -> str:
        return self._prefix + checked(key)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            raise Unavailable(f"The bucket {self._bucket} did not do what was asked: {error}") from error


class _KeptOpen:
    """A file that the transfer may read and not close: it is the caller's."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

"""Where things lie: on a disk, or behind a URI."""

from pathlib import Path
from typing import Annotated, Any, TypeGuard
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator

QUERY = ("region", "scheme", "endpoint_override", "allow_bucket_creation", "tls_ca_file_path", "retry_limit_seconds",
         "user", "replication", "buffer_size", "default_block_size", "blob_storage_authority",
         "dfs_storage_authority")  # fmt: skip
"""What a URI's query may hold; everything else might be a secret."""


def located(value: Any) -> Any:
    """A path, or a URI as text; one with credentials is refused, since settings are written to files and to MLflow."""
    if not isinstance(value, str):
        return value
    if not is_uri(value):
        return Path(value)
    parts = urlsplit(value)
    user, at, _ = parts.netloc.rpartition("@")
    named = bool(at) and (":" in user or parts.scheme == "s3")
    if named or set(parse_qs(parts.query, keep_blank_values=True)) - set(QUERY):
        raise ValueError(
            f"must hold no credentials, and in its query nothing but {', '.join(QUERY)}, since it is written to files; "
            "set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what your store reads, in the environment of every node"
        )
    return value


def is_uri(location: Path | str | None) -> TypeGuard[str]:
    """Whether a location is behind a URI."""
    return isinstance(location, str) and "://" in location


Location = Annotated[Path | str, BeforeValidator(located)]
"""A path, or a URI such as s3://bucket/folder."""

"""Where things lie: on a disk, or behind a URI."""

import os
from pathlib import Path
from typing import Annotated, Any, TypeGuard
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BeforeValidator

from idm_ray.errors import brief

QUERY = ("region", "scheme", "endpoint_override", "allow_bucket_creation", "tls_ca_file_path", "retry_limit_seconds",
         "user", "replication", "buffer_size", "default_block_size", "blob_storage_authority",
         "dfs_storage_authority")  # fmt: skip
"""What a URI's query may hold; everything else might be a secret."""
LONGEST = 255
"""Bytes of a file's name."""
SECRET = ("pass", "pwd", "secret", "token", "key", "auth")
"""In the name of what stands in a URI's query and is nobody's business."""


def located(value: Any) -> Any:
    """A path, or a URI as text; one with credentials is refused, since settings are written to files and to MLflow."""
    if not isinstance(value, str):
        return value
    if not value or "\0" in value or any(len(part.encode()) > LONGEST for part in value.split("/")):
        raise ValueError(f"must be a path whose parts have 1 to {LONGEST} bytes; got {brief(value)}")
    if not is_uri(value):
        return Path(value)
    parts = urlsplit(value)
    user, at, _ = parts.netloc.rpartition("@")
    named = bool(at) and user != "anonymous" and (":" in unquote(user) or parts.scheme in ("s3", "gs", "gcs"))
    odd = parts.fragment or any(sign in unquote(parts.query) for sign in ";@")
    if named or odd or set(parse_qs(parts.query, keep_blank_values=True)) - set(QUERY):
        raise ValueError(
            f"must hold no credentials, and in its query nothing but {', '.join(QUERY)}, since it is written to files; "
            "set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what your store reads, in the environment of every node"
        )
    return value


def without_secret(value: Any) -> Any:
    """The URI of a service as text; one with a password is refused, since settings are written to files."""
    if isinstance(value, str) and is_uri(value):
        parts = urlsplit(value)
        names = parse_qs(parts.query, keep_blank_values=True)
        user, at, _ = parts.netloc.rpartition("@")
        named = bool(at) and (":" in unquote(user) or parts.scheme in ("http", "https"))
        hidden = any(word in name.lower() for name in names for word in SECRET)
        if named or hidden or parts.fragment or ";" in parts.query:
            raise ValueError(
                "must hold no password, since it is written to files and to MLflow; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD for a server, or what your database reads, such as PGPASSWORD"
            )
    return value


def without_password(text: str, uri: str) -> str:
    """A text with three stars for the password of a URI."""
    password = urlsplit(uri).netloc.rpartition("@")[0].partition(":")[2]
    return text.replace(password, "***") if password else text


def listed(value: Any) -> Any:
    """A list of what a text names with commas between; all else as it is."""
    if not isinstance(value, str):
        return value
    return [part for each in value.split(",") if (part := each.strip())]


def _named(value: Any) -> Any:
    """A name, a folder or a URI as text, see `located`."""
    found = located(value)
    return str(found) if isinstance(found, Path) else found


def is_there(path: Path | str) -> bool:
    """Whether there is a file or folder of a name, which may be one that none can have (too long, a null byte)."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists raises there)


def is_uri(location: Path | str | None) -> TypeGuard[str]:
    """Whether a location is behind a URI."""
    return isinstance(location, str) and "://" in location


Location = Annotated[Path | str, BeforeValidator(located)]
"""A path, or a URI such as s3://bucket/folder."""
Source = Annotated[str, BeforeValidator(_named)]
"""What an earlier sweep is found by: its name, its folder, or its URI."""
Address = Annotated[str, BeforeValidator(without_secret)]
"""The URI of a service, such as http://host:5000."""

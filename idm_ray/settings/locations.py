"""Where things lie: on a disk, or behind a URI."""

from pathlib import Path
from typing import Annotated, TypeGuard
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator

SECRETS = ("access_key", "secret_key", "session_token")


def check_uri(uri: str) -> str:
    """Refuse what is no URI, and one with credentials, since settings are written to files and to MLflow."""
    if not is_uri(uri):
        raise ValueError(f"must be a path, or a URI such as s3://bucket/folder; got {uri}")
    parts = urlsplit(uri)
    if ("@" in parts.netloc and parts.scheme != "hdfs") or set(parse_qs(parts.query)) & set(SECRETS):
        raise ValueError(
            "must hold no credentials, which would be written to files; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what your store reads, in the environment of every node"
        )
    return uri


def is_uri(location: Path | str | None) -> TypeGuard[str]:
    """Whether a location is behind a URI."""
    return isinstance(location, str) and "://" in location


Uri = Annotated[str, AfterValidator(check_uri)]

"""Where things lie: on a disk, or behind a URI."""

from pathlib import Path
from typing import Annotated, Any, TypeGuard
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator

SECRETS = ("access_key", "secret_key", "session_token")


def located(value: Any) -> Any:
    """A path, or a URI as text; one with credentials is refused, since settings are written to files and to MLflow."""
    if not isinstance(value, str):
        return value
    if not is_uri(value):
        return Path(value)
    parts = urlsplit(value)
    if ("@" in parts.netloc and parts.scheme != "hdfs") or set(parse_qs(parts.query)) & set(SECRETS):
        raise ValueError(
            "must hold no credentials, which would be written to files; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what your store reads, in the environment of every node"
        )
    return value


def is_uri(location: Path | str | None) -> TypeGuard[str]:
    """Whether a location is behind a URI."""
    return isinstance(location, str) and "://" in location


Location = Annotated[Path | str, BeforeValidator(located)]
"""A path, or a URI such as s3://bucket/folder."""

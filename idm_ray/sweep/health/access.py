"""Ray's token."""

from collections.abc import Iterator

from idm_ray.sweep.health.case import Case
from idm_ray.sweep.health.finding import Finding, ok
from idm_ray.sweep.nodes.token import check_token


def token(case: Case) -> Iterator[Finding]:
    """Whether there is one, or can be one; whether a cluster takes it is told when it is joined."""
    yield ok("token", check_token(case.config))

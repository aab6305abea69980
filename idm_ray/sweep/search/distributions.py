"""YAML domains as Optuna has them."""

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from idm_ray.settings.sections import Choice, Domain, Int, LogUniform
from idm_ray.sweep.search.space import values_of


def distributions(search: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """An Optuna distribution for each searched setting; bounds are included."""
    return {key: _distribution(domain) for key, domain in search.items()}


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(tuple(dict.fromkeys(domain.choice)))
    if isinstance(domain, Int):
        values = values_of(domain)
        assert isinstance(values, range)
        return IntDistribution(values[0], values[-1], step=values.step)
    if isinstance(domain, LogUniform):
        return FloatDistribution(*domain.loguniform, log=True)
    return FloatDistribution(*domain.uniform)

import pickle

import pytest

from idm_ray.data.store import StoreError
from idm_ray.errors import MOST_LETTERS, UserError
from idm_ray.settings.layers import build_config


@pytest.mark.parametrize("kind", [UserError, StoreError])
def test_of_a_message_without_end_both_ends_are_told(kind):
    error = kind(f"a.yaml: {'a' * 5000} is no setting; known are seed, net")
    assert str(error).startswith("a.yaml: aaa")
    assert str(error).endswith("aaa is no setting; known are seed, net")
    assert len(str(error)) < MOST_LETTERS + 10
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_section_whose_name_has_five_thousand_letters_is_refused_in_a_line():
    with pytest.raises(UserError, match="known are seed, dataset") as refused:
        build_config({"a" * 5000: {}})
    assert len(str(refused.value)) < MOST_LETTERS + 10


def test_what_cannot_be_printed_is_escaped_so_that_an_error_is_one_line():
    assert str(UserError("sha256.\n: \x1b[31mred \ud800, naïve")) == "sha256. : \\x1b[31mred \\ud800, naïve"

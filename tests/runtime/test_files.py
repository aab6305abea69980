import pytest

from idm_ray.errors import UserError
from idm_ray.runtime.files import check_out


def test_a_folder_for_results_is_new_or_gone_on_with(tmp_path):
    check_out(tmp_path / "new", resume=False)
    check_out(tmp_path, resume=False)
    (tmp_path / "file").touch()
    check_out(tmp_path, resume=True)
    for out, resume, said in (
        (tmp_path, False, "not empty; go on with --resume"),
        (tmp_path / "file", False, "is a file"),
        (tmp_path / "file", True, "is a file"),
    ):
        with pytest.raises(UserError, match=said):
            check_out(out, resume)

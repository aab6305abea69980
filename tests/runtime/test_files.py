import subprocess
import sys

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


MAKE = """
import sys
from pathlib import Path
from idm_ray.runtime.files import whole_folder, write_bytes

with whole_folder(Path(sys.argv[1], "folder")) as draft:
    write_bytes(draft / "file", b"x")
"""


@pytest.mark.parametrize(
    ("umask", "folder", "file"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600), (0o002, 0o775, 0o664)]
)
def test_files_are_as_open_as_the_umask_lets_them_be(tmp_path, umask, folder, file):
    subprocess.run([sys.executable, "-c", MAKE, tmp_path], umask=umask, check=True)
    made = tmp_path / "folder"
    assert made.stat().st_mode & 0o777 == folder
    assert (made / "file").stat().st_mode & 0o777 == file

"""What is noted about the sets of a folder of sweeps: figures and names, a small file for each.

A file is written in one step, never changed but for a name that moves, and never shared by two writers: so several may
write at once, one that is killed leaves a whole file or none, and it is the same on a disk and behind a URI, where
nothing can be appended to. Nothing in a file leads out of the folder: it may be moved and copied.
"""

import contextlib
import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from idm_ray.errors import UserError
from idm_ray.runtime.files import default_cache, write_bytes
from idm_ray.runtime.words import first_line
from idm_ray.settings.locations import is_uri
from idm_ray.settings.reading import small_text
from idm_ray.sweep.looking.places import AT_A_TIME, LOOKS, PATIENCE_SECONDS
from idm_ray.sweep.registry.figures import Figure, Id

NOTES = ".sets"
"""In the folder of all sweeps; no sweep has such a name."""
FIGURES, NAMES = "figures", "names"
MOST_BYTES = 1 << 20
NAME = r"[A-Za-z][A-Za-z0-9._-]{0,99}"
"""Of a set; what could be an ID is none."""


class Name(BaseModel):
    """A name for a set.

    Attributes:
        format: of this record.
        set_id: of the set.
        place: where it was found, as `Copy.name` has it.
        at: when it was given, in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    format: Literal[1] = 1
    set_id: Id
    place: str
    at: Annotated[float, Field(ge=0)]


class Notes:
    """The notes of a folder of sweeps.

    Args:
        output: folder of all sweeps, or a URI.
    """

    def __init__(self, output: Path | str):
        self._output = output
        self._uri: str | None = None
        self._folder = Path(output) / NOTES
        if is_uri(output):
            from idm_ray.sweep.keeping.uri import joined

            self._uri = joined(output, NOTES)
            self._folder = default_cache() / LOOKS / hashlib.sha256(self._uri.encode()).hexdigest()[:16]

    def figures(self) -> tuple[list[Figure], list[str]]:
        """All that were noted, oldest first, and what is wrong with files that are none.

        Raises:
            UserError: the URI cannot be read.
        """
        found, problems = [], []
        for name in self._names(FIGURES):
            try:
                found.append(Figure.model_validate_json(small_text(self._folder / name, MOST_BYTES)))
            except (OSError, ValueError) as error:
                problems.append(f"{NOTES}/{name} is no figure: {_why(error)}")
        return sorted(found, key=lambda figure: figure.at or 0.0), problems

    def names(self) -> tuple[dict[str, Name], list[str]]:
        """The names that were given, and what is wrong with files that are none; likewise."""
        found, problems = {}, []
        for name in self._names(NAMES):
            try:
                if not re.fullmatch(NAME, Path(name).stem):
                    raise ValueError("its file is not called so")
                given = Name.model_validate_json(small_text(self._folder / name, MOST_BYTES))
            except (OSError, ValueError) as error:
                problems.append(f"{NOTES}/{name} is no name of a set: {_why(error)}")
            else:
                found[Path(name).stem] = given
        return dict(sorted(found.items())), problems

    def add(self, figures: Sequence[Figure]) -> None:
        """Note figures, each by itself.

        Raises:
            UserError: they cannot be written.
        """
        for figure in figures:
            own = f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
            self._put(f"{FIGURES}/{figure.set_id}/{own}", figure.model_dump_json(indent=2))

    def give(self, name: str, set_id: str, place: str) -> None:
        """Let a name be that of a set, whatever it was before; of two at once the later one stays.

        Raises:
            UserError: it cannot be written.
        """
        given = Name(set_id=set_id, place=place, at=time.time())
        self._put(f"{NAMES}/{name}.json", given.model_dump_json(indent=2))

    def take_away(self, name: str) -> None:
        """Let a name be that of nothing.

        Raises:
            UserError: it cannot be removed.
        """
        with self._told("written"):
            (self._folder / NAMES / f"{name}.json").unlink(missing_ok=True)
            if self._uri is not None:
                from idm_ray.sweep.keeping.uri import UriDepot

                UriDepot(self._uri, PATIENCE_SECONDS).remove(f"{NAMES}/{name}.json")

    def _put(self, name: str, text: str) -> None:
        with self._told("written"):
            if self._uri is None:
                write_bytes(self._folder / name, text.encode())
                return
            from idm_ray.sweep.keeping.uri import UriDepot

            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "note.json"
                file.write_text(text)
                UriDepot(self._uri, PATIENCE_SECONDS).put(name, file)

    def _names(self, kind: str) -> list[str]:
        """Files of a kind, which then are here; figures never change, names may."""
        if self._uri is None:
            folder = self._folder / kind
            return sorted(
                path.relative_to(self._folder).as_posix()
                for path in folder.rglob("*.json")
                if not path.name.startswith(".")
            )
        from idm_ray.sweep.keeping.uri import UriDepot

        with self._told("read"):
            depot = UriDepot(self._uri, PATIENCE_SECONDS)
            names = [name for name in depot.names(kind) if name.endswith(".json")]

            def bring(name: str) -> None:
                with contextlib.suppress(FileNotFoundError):
                    depot.get(name, self._folder / name)

            with ThreadPoolExecutor(AT_A_TIME) as pool:
                wanted = [name for name in names if kind == NAMES or not (self._folder / name).exists()]
                list(pool.map(bring, wanted))
            return names

    @property
    def _where(self) -> str:
        if self._uri is None:
            return str(self._folder)
        from idm_ray.sweep.keeping.uri import shown

        return shown(self._uri)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self._where} cannot be {what}: {first_line(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
    return first_line(error)

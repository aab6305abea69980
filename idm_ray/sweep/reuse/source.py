"""The earlier sweep that somebody means; needs neither PyTorch nor Optuna."""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from idm_ray.errors import UserError
from idm_ray.settings.locations import is_there, is_uri
from idm_ray.sweep.folders import DATABASE, LATEST
from idm_ray.sweep.looking.places import Place, Places


def earlier_sweep(word: str, output: Path | str, own: str = "") -> Place:
    """The earlier sweep that a word names: by its name or ``latest`` in the output folder, its folder, or its URI.

    Args:
        word: of `sweep.warm_start`.
        output: folder of all sweeps, or a URI.
        own: name of the sweep that begins, which is not meant.

    Raises:
        UserError: there is none.
    """
    if is_uri(word):
        parts = urlsplit(word)
        parent, _, name = parts.path.rstrip("/").rpartition("/")
        output, word = urlunsplit(parts._replace(path=parent)), name
    elif is_uri(output) and is_there(Path(word) / DATABASE):
        output, word = Path(word).resolve().parent, Path(word).resolve().name
    places = Places(output)
    if word == LATEST:
        word = next((name for name in reversed(places.names()) if name != own), word)
    try:
        return places.find(word)
    except UserError as error:
        raise UserError(f"sweep.warm_start: {error}") from None

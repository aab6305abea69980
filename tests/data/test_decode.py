import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from encoding import encode
from PIL import Image, ImageOps

from idm_ray.data import decode
from idm_ray.data.decode import decode_square, is_grey, load_image, to_pixels
from idm_ray.data.raw import BrokenImage, Encoded, Unfinished

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)


def written(image: Image.Image, kind: str = "PNG", **options) -> Encoded:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Encoded("image", buffer.getvalue())


def rgb(item: Encoded) -> np.ndarray:
    return np.asarray(load_image(item, "RGB"))


def smooth(width: int, height: int) -> Image.Image:
    coarse = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def test_alpha_is_dropped_as_torchvision_does():
    alpha = RNG.integers(0, 256, (12, 20, 1), dtype=np.uint8)
    item = written(Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)))
    np.testing.assert_array_equal(rgb(item), COLOURS)


def test_a_palette_is_looked_up():
    image = Image.fromarray(COLOURS).quantize(16)
    np.testing.assert_array_equal(rgb(written(image)), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(rgb(written(image, transparency=0)), np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb():
    orange = Image.new("CMYK", (16, 16), (0, 100, 255, 0))
    np.testing.assert_allclose(rgb(written(orange, "JPEG", quality=95)).mean((0, 1)), [255, 155, 0], atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    item = written(Image.fromarray(COLOURS), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(item.data)))
    np.testing.assert_array_equal(rgb(item), np.asarray(upright))
    assert rgb(item).shape == ((20, 12, 3) if orientation > 4 else (12, 20, 3))


@pytest.mark.parametrize("note", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_a_damaged_exif_note_spoils_no_image(note):
    item = written(Image.fromarray(COLOURS), "JPEG", exif=note)
    assert rgb(item).shape == COLOURS.shape


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    item = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (rgb(item) == (255, 0, 0)).all()


TRUNCATED = written(Image.fromarray(COLOURS), "JPEG").data[:-100]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (TRUNCATED, "truncated"),
        (encode(COLOURS)[:90], "truncated|chunk"),
        (b"just some words", "no known image format"),
        (b"", "no known image format"),
        (None, "has no bytes"),
        (encode(COLOURS[..., 0].astype(np.uint16)), "8 bits per channel and has PIL mode I;16"),
    ],
)
def test_what_is_broken_says_why(data, reason):
    with pytest.raises(BrokenImage, match=reason):
        load_image(Encoded("image", data), "RGB")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [6_000, 10_000, 20_000])
def test_a_decompression_bomb_is_broken_before_it_takes_memory(side):
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(BrokenImage, match=r"pixels"):
        load_image(Encoded("bomb", buffer.getvalue()), "RGB")


def test_a_large_jpeg_is_scaled_down_before_it_counts_as_too_large(monkeypatch):
    monkeypatch.setattr(decode, "LARGEST", 100_000)
    item = written(smooth(800, 600), "JPEG")
    assert decode_square(item, 32).shape == (3, 32, 32)
    with pytest.raises(BrokenImage, match=r"800x600 pixels are more than 100,000"):
        decode_square(item, 224)


@pytest.mark.parametrize("size", [32, 64])
def test_scaling_down_while_decoding_changes_little(size):
    item = written(smooth(500, 375), "JPEG", quality=90)
    slow = to_pixels(decode.fit_square(load_image(item, "RGB"), size)).astype(int)
    assert np.abs(decode_square(item, size) - slow).mean() < 2


def test_near_its_size_a_jpeg_is_decoded_whole():
    item = written(smooth(500, 375), "JPEG")
    slow = to_pixels(decode.fit_square(load_image(item, "RGB"), 224))
    np.testing.assert_array_equal(decode_square(item, 224), slow)


def test_a_file_that_cannot_be_read_is_not_broken(tmp_path):
    with pytest.raises(Unfinished, match=r"gone.png cannot be read \(No such file"):
        load_image(Encoded(str(tmp_path / "gone.png"), tmp_path / "gone.png"), "RGB")


def test_grey_is_told_from_the_header():
    assert is_grey(written(Image.fromarray(COLOURS[..., 0])))
    assert not is_grey(written(Image.fromarray(COLOURS)))


def test_errors_cross_from_one_process_to_another():
    for error in (BrokenImage("why"), Unfinished("what")):
        assert pickle.loads(pickle.dumps(error)).args == error.args


def test_what_decodes_loads_no_torch():
    loaded = "print({'torch', 'pyarrow', 'pydantic'} & set(sys.modules))"
    code = f"import sys, idm_ray.data.chunks, idm_ray.data.decode; {loaded}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"

"""`read_image`: every format, every mode, every kind of damage."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cifar_core.data import images
from cifar_core.data.images import read_image
from cifar_core.errors import ImageError

RNG = np.random.default_rng(5)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(
        (48, 48), Image.Resampling.BICUBIC
    )
)


def encode(image: Image.Image, how: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, how, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_a_32x32_picture_keeps_its_exact_pixels(how, options):
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    result = read_image(encode(Image.fromarray(pixels), how, **options))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("how", images.FORMATS)
def test_every_named_format_is_read(how):
    result = read_image(encode(Image.fromarray(SMOOTH), how))
    expected = read_image(encode(Image.fromarray(SMOOTH)))
    assert np.abs(result.astype(int) - expected).mean() < 12


def test_other_formats_are_refused_by_name():
    with pytest.raises(ImageError, match="PNG, JPEG, GIF, BMP, WEBP, TIFF"):
        read_image(encode(Image.fromarray(SMOOTH), "PPM"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_gives_three_channels_that_resemble_the_picture(mode):
    grey = Image.fromarray(SMOOTH).convert("L")
    if mode in ("I;16", "I"):
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    elif mode == "F":
        image = Image.fromarray(np.asarray(grey).astype(np.float32) / 255)
    else:
        image = Image.fromarray(SMOOTH).convert(mode)
    how = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    result = read_image(encode(image, how))
    truth = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), dtype=int)
    assert result.shape == (32, 32, 3)
    luminance = np.asarray(Image.fromarray(result).convert("L"), dtype=int)
    assert np.abs(luminance - truth).mean() < {"1": 60, "P": 12}.get(mode, 6)


def test_palette_with_alpha():
    image = Image.new("PA", (40, 40))
    image.putpalette([0, 0, 0] * 256)
    with io.BytesIO() as buffer:
        image.convert("RGBA").save(buffer, "PNG")
        assert (read_image(buffer.getvalue()) == 255).all()  # wholly transparent
    assert (np.asarray(images._flat(image)) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new(mode, (64, 64), (0,) * len(mode))
    assert (read_image(encode(image)) == 255).all()


def test_a_transparent_colour_of_a_palette_is_laid_on_white():
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30] * 256)
    assert (read_image(encode(image, transparency=0)) == 255).all()
    assert (read_image(encode(image)) == (10, 20, 30)).all()


def upright_scene() -> np.ndarray:
    scene = np.zeros((64, 96, 3), dtype=np.uint8)
    scene[:32, 16:48] = (255, 0, 0)  # top left of the middle square
    scene[32:, 48:80] = (0, 0, 255)  # bottom right
    return scene


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_sets_the_picture_upright(orientation):
    scene = Image.fromarray(upright_scene())
    stored = {
        1: scene,
        2: scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: scene.transpose(Image.Transpose.ROTATE_180),
        4: scene.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: scene.transpose(Image.Transpose.TRANSPOSE),
        6: scene.transpose(Image.Transpose.ROTATE_90),
        7: scene.transpose(Image.Transpose.TRANSVERSE),
        8: scene.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read_image(encode(stored, exif=exif))
    assert tuple(result[8, 8]) == (255, 0, 0)
    assert tuple(result[24, 24]) == (0, 0, 255)
    assert tuple(result[8, 24]) == (0, 0, 0)


@pytest.mark.parametrize("how", ["TIFF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_format_is_set_upright_exactly_once(how, orientation):
    """Pillow turns TIFF files itself while it loads them, and the others not."""
    if how not in images.FORMATS:
        pytest.skip(f"this Pillow has no {how}")
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :32], pixels[32:, :32] = (255, 0, 0), (0, 0, 255)
    exif, again = Image.Exif(), Image.Exif()  # saving an AVIF takes the orientation out
    exif[0x0112] = again[0x0112] = orientation
    got = read_image(encode(Image.fromarray(pixels), how, exif=exif))
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(encode(Image.fromarray(pixels), exif=again))))
    assert (orientation == 1) == (np.asarray(turned) == pixels).all()
    expected = np.asarray(turned.resize((32, 32), Image.Resampling.LANCZOS), int)
    assert np.abs(got - expected).mean() < 4


def test_a_damaged_exif_does_not_cost_the_pixels():
    pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encode(Image.fromarray(pixels), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    np.testing.assert_array_equal(read_image(data), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (31, 31), (33, 32), (4000, 3)])
def test_small_and_thin_pictures(size):
    result = read_image(encode(Image.new("RGB", size, (9, 99, 199))))
    assert result.shape == (32, 32, 3)
    assert (result == (9, 99, 199)).all()


def test_only_the_middle_square_is_kept():
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = 200
    assert (read_image(encode(Image.fromarray(wide))) == 200).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(6325, 6325), (10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_decoding(size, monkeypatch):
    def decode(*_args, **_kwargs):
        raise AssertionError("decoded before the size was checked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    with pytest.raises(ImageError, match="40 megapixels"):
        read_image(png_header(*size))


@pytest.mark.parametrize("progressive", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_jpeg_of_50_megapixels_is_opened_reduced(monkeypatch, progressive):
    picture = Image.new("L", (8192, 6144), 200)
    picture.paste(20, (4096, 0, 8192, 6144))
    decoded, square = [], images._square
    monkeypatch.setattr(images, "_square", lambda image: decoded.append(image.size) or square(image))
    pixels = read_image(encode(picture, "JPEG", progressive=progressive))
    assert decoded == [(1024, 768)]
    assert pixels[16, 4, 0] > 190
    assert pixels[16, 28, 2] < 30


def jpeg_header(width: int, height: int, start: int) -> bytes:
    """A JPEG that claims a size; `start`: 0xC0 for a baseline picture, 0xC2 for a progressive one."""
    frame = struct.pack(">BHHBBBBBBBBBB", 8, height, width, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
    return b"\xff\xd8\xff" + bytes([start]) + struct.pack(">H", 2 + len(frame)) + frame + b"\xff\xda\0\x02"


@pytest.mark.parametrize(
    ("size", "start", "limit"),
    [((16_000, 12_000), 0xC0, 170), ((10_000, 8_000), 0xC2, 64), ((65_000, 65_000), 0xC0, 170)],
)
def test_jpegs_have_a_limit_too(size, start, limit, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=f"at most {limit} megapixels"):
        read_image(jpeg_header(*size, start))


def test_heic_is_answered_with_advice():
    for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        with pytest.raises(ImageError, match=r"x\.heic|HEIC picture, as iPhones take.*Save it as JPEG"):
            read_image(b"\0\0\0\x18ftyp" + brand + bytes(4) + brand + bytes(64))
    assert {"heic", "heif", "avif"} <= set(images.EXTENSIONS) | {"avif"}


def test_no_pixels():
    with pytest.raises(ImageError):
        read_image(png_header(0, 5))


def test_first_frame_of_several():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("how", ["PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations_and_pages(how):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ((200, 0, 0), (0, 0, 200), (0, 200, 0))]
    options = {"lossless": True} if how == "WEBP" else {}
    data = encode(frames[0], how, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (read_image(data) == (200, 0, 0)).all()


def test_a_cmyk_jpeg_keeps_its_colours():
    """As print shops send them; Adobe's inverted inks are the decoder's affair."""
    result = read_image(encode(Image.new("RGB", (40, 40), (200, 60, 30)).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(result.astype(int) - (200, 60, 30)).max() < 8


def test_a_png_with_16_bits_a_colour_is_read():
    values = np.full((32, 32, 3), (51400, 25700, 257), ">u2")  # 200, 100 and 1 times 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows))
    result = read_image(data + chunk(b"IEND", b""))
    assert np.abs(result.astype(int) - (200, 100, 1)).max() <= 1


def test_a_file_of_no_bytes(tmp_path):
    (tmp_path / "nothing.png").touch()
    with pytest.raises(ImageError, match=r"nothing\.png is empty"):
        read_image(tmp_path / "nothing.png")


def test_a_picture_of_many_megapixels_that_is_allowed():
    result = read_image(encode(Image.new("L", (6000, 6000), 77), "PNG", compress_level=1))
    assert (result == 77).all()


@pytest.mark.parametrize("how", images.FORMATS)
def test_cut_short(how):
    data = encode(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), how)
    headless = "|not a picture" if how in ("BMP", "TIFF") else ""  # other files begin so, too
    for share in (0.02, 0.3, 0.6):
        with pytest.raises(ImageError, match=f"is damaged or cut short{headless}"):
            read_image(data[: max(20, int(len(data) * share))])


def test_sources_and_their_names_in_messages(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(encode(Image.fromarray(SMOOTH)))
    expected = read_image(path)
    with path.open("rb") as file:
        file.read(100)
        np.testing.assert_array_equal(read_image(file), expected)
    np.testing.assert_array_equal(read_image(str(path)), expected)
    for wrong, words in ((tmp_path / "dog.png", "no file"), (tmp_path, "directory"), (b"", "empty")):
        with pytest.raises(ImageError, match=words):
            read_image(wrong)
    (tmp_path / "x.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"x\.png is not a picture"):
        read_image(tmp_path / "x.png")


def test_a_null_in_a_path_is_an_image_error():
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("a\0b.png")


def test_a_file_over_the_limit(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1_000_000)
    with pytest.raises(ImageError, match="larger than 1 MB"):
        read_image(b"x" * 1_000_001)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([7.0, float("nan"), float("inf")], [7, 7, 7]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-5.0, -5.0, -5.0], [128, 128, 128]),
        ([0.0, 1e30, 1e30], [0, 255, 255]),
    ],
)
def test_scaling_of_grey_numbers(values, expected):
    grey = images._grey(np.array([values], dtype=np.float32), sixteen_bit=False)
    np.testing.assert_array_equal(grey[0], expected)


QUICK = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]), st.data()
)
def test_any_size_and_mode(width, height, mode, data):
    how = data.draw(st.sampled_from(["PNG", "TIFF"] + ["GIF"] * (mode in "1LP")))
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 4), dtype=np.uint8)
    result = read_image(encode(Image.fromarray(pixels).convert(mode), how))
    assert result.shape == (32, 32, 3)
    assert result.dtype == np.uint8


@QUICK
@given(
    st.binary(min_size=1, max_size=400),
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"]),
)
def test_any_bytes_give_an_image_or_an_image_error(junk, start):
    with contextlib.suppress(ImageError):
        assert read_image(start + junk).shape == (32, 32, 3)


@QUICK
@given(st.sampled_from(images.FORMATS), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_overwritten_bytes_give_an_image_or_an_image_error(how, place, junk):
    data = bytearray(encode(Image.fromarray(SMOOTH), how))
    place %= len(data)
    data[place : place + len(junk)] = junk
    with contextlib.suppress(ImageError):
        assert read_image(bytes(data)).shape == (32, 32, 3)


# --- Parts of a picture -----------------------------------------------------------------------------


def halves():
    """Black, with white right of three quarters: (100, 200, 3)."""
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:, 150:] = 255
    return picture


def test_a_picture_is_kept_as_it_is_up_to_384_pixels():
    picture = halves()
    np.testing.assert_array_equal(images.read_picture(encode(Image.fromarray(picture))), picture)
    large = images.read_picture(encode(Image.new("RGB", (2000, 500), (9, 8, 7))))
    assert large.shape == (96, 384, 3)
    assert (large == (9, 8, 7)).all()
    np.testing.assert_array_equal(images.crop(SMOOTH), read_image(encode(Image.fromarray(SMOOTH))))


def test_the_middle_the_whole_and_a_square():
    picture = halves()
    assert images.crop(picture).max() < 30  # from 50 to 150: all black
    whole = images.crop(picture, "whole")
    assert (whole[16] > 200).any(axis=1).sum() == 8  # a quarter of 32
    assert np.abs(whole[2].astype(int) - 64).max() <= 1  # a quarter of the picture is white: its mean
    right = images.crop(picture, (1.0, 0.0, 1.0))
    assert (right[16, :15] < 30).all()
    assert (right[16, 17:] > 225).all()
    np.testing.assert_array_equal(images.crop(picture, (9.0, -3.0, 1.0)), right)
    assert (images.crop(picture, (1.6, 0.2, 0.3)) == 255).all()
    assert images.crop(picture, (0.0, 0.0, -5.0)).shape == (32, 32, 3)


@pytest.mark.parametrize("size", [(90, 70), (400, 300), (8000, 5200)])
def test_a_jpeg_is_decoded_at_a_smaller_size_and_looks_the_same(size):
    ramp = np.linspace(0, 255, 64)
    pixels = np.stack([np.tile(ramp, (48, 1)), np.tile(ramp[:48, None], (1, 64)), np.full((48, 64), 90.0)], 2)
    picture = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    plain = read_image(encode(picture.resize((size[0] // 10, size[1] // 10)) if size[0] > 999 else picture))
    assert np.abs(read_image(encode(picture, "JPEG", quality=95)).astype(int) - plain).mean() < 3

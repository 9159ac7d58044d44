"""Pictures from strangers: each ends as (32, 32, 3) or as one `ImageError`, with bounded memory."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar_core.data.images import FORMATS, read_image
from cifar_core.errors import ImageError
from tests.hostile.hostile import bounded, examples, fed, in_words, mutated

RNG = np.random.default_rng(3)


def encode(image, how, **options):
    buffer = io.BytesIO()
    image.save(buffer, how, **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8))
GREY16 = Image.fromarray(RNG.integers(0, 65_535, (20, 24), dtype=np.uint16))
FRAMES = [PICTURE.rotate(90 * turn) for turn in range(4)]
EXIF = Image.Exif()
EXIF[0x0112] = 6
WHOLE = {
    "PNG": [
        encode(PICTURE, "PNG"),
        encode(GREY16, "PNG"),
        encode(PICTURE.convert("P"), "PNG", transparency=3),
        encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
        encode(PICTURE.convert("1"), "PNG"),
    ],
    "JPEG": [
        encode(PICTURE, "JPEG", exif=EXIF),
        encode(PICTURE, "JPEG", progressive=True),
        encode(PICTURE.convert("CMYK"), "JPEG"),
        encode(PICTURE.convert("L"), "JPEG", comment=b"x" * 99),
    ],
    "GIF": [
        encode(PICTURE, "GIF"),
        encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:], loop=0),
    ],
    "BMP": [encode(PICTURE, "BMP"), encode(PICTURE.convert("P"), "BMP"), encode(PICTURE.convert("1"), "BMP")],
    "WEBP": [
        encode(PICTURE, "WEBP"),
        encode(PICTURE.convert("RGBA"), "WEBP", lossless=True),
        encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    ],
    "TIFF": [
        encode(PICTURE, "TIFF"),
        encode(GREY16, "TIFF"),
        encode(PICTURE.convert("CMYK"), "TIFF"),
        encode(PICTURE.convert("LAB"), "TIFF"),
        encode(PICTURE, "TIFF", compression="tiff_lzw"),
        encode(PICTURE, "TIFF", compression="tiff_adobe_deflate"),
        encode(PICTURE, "TIFF", compression="jpeg"),
        encode(PICTURE.convert("F"), "TIFF"),
        encode(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
    ],
    **({"AVIF": [encode(PICTURE, "AVIF", exif=EXIF)]} if "AVIF" in FORMATS else {}),
}


def read(data):
    """The picture, or None where it was refused in words."""
    with bounded():
        try:
            picture = read_image(data)
        except ImageError as error:
            in_words(error)
            return None
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    return picture


@pytest.mark.parametrize("how", FORMATS)
def test_any_file_of_a_known_format_is_a_picture_or_an_image_error(how):
    @given(data=mutated(*WHOLE[how]))
    @examples()
    def feed(data):
        fed(f"image {how}")
        read(data)

    feed()


@given(
    mode=st.sampled_from(
        [
            "1",
            "L",
            "LA",
            "P",
            "PA",
            "RGB",
            "RGBA",
            "RGBX",
            "CMYK",
            "YCbCr",
            "LAB",
            "HSV",
            "I",
            "F",
            "I;16",
            "La",
            "RGBa",
        ]
    ),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    how=st.sampled_from(FORMATS),
    seed=st.integers(0, 99),
)
@examples()
def test_every_mode_and_size(mode, size, how, seed):
    fed("image mode")
    depth = (
        {"F": 4, "I": 4, "I;16": 2}.get(mode) or len(Image.new(mode, (1, 1)).tobytes()) if mode != "1" else 1
    )
    raw = np.random.default_rng(seed).bytes(size[0] * size[1] * depth)
    image = Image.new("1", size, 1) if mode == "1" else Image.frombytes(mode, size, raw)
    try:
        data = encode(image, how)
    except (OSError, ValueError, KeyError):
        return  # no such picture in this format
    assert read(data) is not None


def chunk(kind, content, length=None):
    sum_ = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content) if length is None else length) + kind + content + sum_


def png(width, height, *chunks, depth=8, colour=2, pixels=None):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(chunks) + (b"" if pixels is None else chunk(b"IDAT", pixels))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def zeros(size):
    packer, left, parts = zlib.compressobj(9), size, []
    while left > 0:
        parts.append(packer.compress(bytes(min(left, 2**20))))
        left -= 2**20
    return b"".join(parts) + packer.flush()


def tiff(width, height, extra=()):
    """A TIFF of one strip whose header says what it likes."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, width * height % 2**32),
        *extra,
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def exif_bomb():
    """An EXIF directory that is its own next one, with orientation as 4 billion numbers."""
    entry = struct.pack(">HHII", 0x0112, 4, 2**32 - 1, 8)
    body = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 1) + entry + struct.pack(">I", 8)
    return WHOLE["JPEG"][0][:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + WHOLE["JPEG"][1][2:]


def many_frames(count):
    one = encode(Image.new("P", (4, 4)), "GIF")
    start = one.index(b",")
    return one[:start] + one[start:-1] * count + b";"


@functools.cache
def big_text():
    return b"k\0\0" + zeros(2**28)


def small(*chunks):
    """A PNG of 8 x 8 pixels with further chunks."""
    return png(8, 8, *chunks, pixels=zeros(200))


BMP, GIF, JPEG = WHOLE["BMP"][0], WHOLE["GIF"][0], WHOLE["JPEG"][1]
BOMBS = {
    "a PNG of 100,000 x 100,000": lambda: png(100_000, 100_000, pixels=zeros(1000)),
    "a PNG of 39 megapixels": lambda: png(39_000, 1000, pixels=zeros((3 * 39_000 + 1) * 1000)),
    "a PNG of 2**31 wide": lambda: png(2**31 - 1, 1, pixels=zeros(10)),
    "a PNG of no size": lambda: png(0, 0, pixels=zeros(10)),
    "a PNG whose data is much longer than its size": lambda: png(8, 8, pixels=zeros(2**28)),
    "a PNG with a profile that unpacks to 256 MB": lambda: small(chunk(b"iCCP", b"p\0\0" + zeros(2**28))),
    "a PNG with a text that unpacks to 256 MB": lambda: small(chunk(b"zTXt", big_text())),
    "a PNG with a hundred such texts": lambda: small(*[chunk(b"zTXt", big_text())] * 100),
    "a PNG with 50 MB of text": lambda: small(chunk(b"tEXt", b"k\0" + b"x" * 50_000_000)),
    "a PNG with a chunk that claims 2 GB": lambda: png(8, 8, chunk(b"IDAT", b"x", length=2**31 - 1)),
    "a PNG with 100,000 chunks": lambda: small(*[chunk(b"zzZz", b"")] * 100_000),
    "a PNG of 2**31 frames": lambda: small(chunk(b"acTL", struct.pack(">II", 2**31, 0))),
    "a TIFF of 65,000 x 65,000": lambda: tiff(65_000, 65_000),
    "a TIFF of 2**31 wide": lambda: tiff(2**31, 2**31),
    "a TIFF with 4 billion strips": lambda: tiff(64, 64, [(324, 4, 2**32 - 1, 8), (325, 4, 2**32 - 1, 8)]),
    "a TIFF with a colour map of 4 GB": lambda: tiff(64, 64, [(320, 3, 2**32 - 1, 8)]),
    "a JPEG with an EXIF that goes in a circle": lambda: exif_bomb(),
    "a JPEG of 65,535 x 65,535": lambda: JPEG.replace(struct.pack(">HH", 20, 24), b"\xff\xff\xff\xff", 1),
    "a GIF of 20,000 frames": lambda: many_frames(20_000),
    "a GIF of 65,535 x 65,535": lambda: GIF[:6] + b"\xff" * 4 + GIF[10:],
    "a BMP of 2**31": lambda: BMP[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + BMP[26:],
    "a BMP of negative width": lambda: BMP[:18] + struct.pack("<ii", -24, -20) + BMP[26:],
    "a WEBP of 16,383 x 16,383": lambda: WHOLE["WEBP"][1][:21] + b"\xff\xff\xff\x0f" + WHOLE["WEBP"][1][25:],
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_soon_and_small(name):
    fed("image bomb")
    read(BOMBS[name]())


DISGUISED = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><image href='file:///etc/passwd'/></svg>",
    "html": b"<!doctype html><script>alert(1)</script>",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction 2 0 R>>endobj\ntrailer<</Root 1 0 R>>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "xbm": b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {0x1};",
    "ppm": b"P6 4 4 255 " + bytes(48),
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(20),
    "ico": b"\0\0\1\0\1\0" + bytes(16),
    "zip": b"PK\3\4" + bytes(40),
    "elf": b"\x7fELF" + bytes(60),
    "pickle": b"cos\nsystem\n(S'true'\ntR.",
    "png and then html": encode(PICTURE, "PNG")[:8] + b"<script>alert(1)</script>",
    "nothing": b"",
}


@pytest.mark.parametrize("name", DISGUISED)
def test_what_is_no_picture_is_refused_whatever_it_is_called(name, tmp_path):
    fed("disguised")
    assert read(DISGUISED[name]) is None
    file = tmp_path / "picture.png"
    file.write_bytes(DISGUISED[name])
    assert read(file) is None

"""Reading of picture files as the small square images that models take.

Pictures come from strangers: the format must be a named one, the size is read from the header and
checked before anything is decoded, and whatever the decoder says ends as one `ImageError`.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, features

from cifar_core.data.problem import CIFAR10
from cifar_core.errors import ImageError

_AVIF = ("AVIF",) if features.check("avif") else ()
FORMATS: tuple[str, ...] = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", *_AVIF)
EXTENSIONS: tuple[str, ...] = (*map(str.lower, FORMATS), "jpg", "tif", "heic", "heif")
"""File name extensions for a file dialog; HEIC is among them so that it is answered with advice."""
MAX_PIXELS = 40_000_000
MAX_JPEG_PIXELS = 170_000_000
"""Of a JPEG, which can be decoded at an eighth of its size."""
MAX_PROGRESSIVE_PIXELS = 64_000_000
"""Of a progressive JPEG, of which the decoder holds all coefficients."""
MAX_BYTES = 100_000_000

LARGEST_SIDE = 384
"""Of a picture that is kept to choose a part of it."""
Part = Literal["middle", "whole"] | tuple[float, float, float]
"""The part of a picture that becomes an image, see `crop`."""
_KNOWN_START = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP" + rb"|....ftypavif" * len(_AVIF), re.DOTALL
)
_WHITE = (255, 255, 255, 255)


def read_image(source: str | os.PathLike[str] | bytes | BinaryIO, side: int = CIFAR10.side) -> np.ndarray:
    """A picture as uint8 (side, side, 3), RGB.

    Set upright by its EXIF, its middle square cut out, laid on white where it is transparent, and
    scaled down smoothly; a JPEG is decoded at the smallest size that still has twice the side, which is three
    times as fast on usual photographs. A picture of that side keeps its exact pixels. Of several frames or
    pages the first is taken. 16-bit and floating-point grey is brought to 0..255 by its apparent range.

    Args:
        source: path, the bytes of a file, or an open binary file (read from its start).
        side: of the image, in pixels.

    Raises:
        ImageError: no such file, another format than those in `FORMATS`, damaged or cut short,
            no pixels, more than 40 megapixels (170 in a JPEG, 64 in a progressive one), or more than 100 MB.
    """
    return _read(source, lambda image: _shrunk(_flat(_square(_upright(image))), side), 2 * side)


def from_array(picture: np.ndarray, side: int) -> np.ndarray:
    """A uint8 picture (H, W), (H, W, 1) or (H, W, 3) as uint8 (side, side, 3): its middle square, scaled; one
    of that size keeps its exact pixels."""
    grey = picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
    if grey.shape == (side, side, 3):
        return grey
    return np.asarray(_shrunk(_square(Image.fromarray(np.ascontiguousarray(grey)).convert("RGB")), side))


def read_picture(source: str | os.PathLike[str] | bytes | BinaryIO) -> np.ndarray:
    """A picture as it is, uint8 (H, W, 3), at most 384 pixels on its longer side; errors as `read_image`."""

    def reduced(image: Image.Image) -> Image.Image:
        whole = _flat(_upright(image))
        whole.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return whole

    return _read(source, reduced)


def crop(picture: np.ndarray, part: Part = "middle", size: int = CIFAR10.side) -> np.ndarray:
    """A part of a picture as uint8 (size, size, 3).

    Args:
        picture: uint8 (H, W, 3), as `read_picture` gives it.
        part: its middle square; the whole, with its mean colour at both sides; or the square (left, top,
            side), as shares of the shorter side, moved and reduced as far as the picture demands.
        size: of the image, in pixels.
    """
    image = Image.fromarray(picture)
    if isinstance(part, str):
        return np.asarray(_shrunk(_square(image) if part == "middle" else _padded(image), size))
    short = min(image.size)
    side = min(max(round(part[2] * short), 1), short)
    left, top = (
        min(max(round(at * short), 0), length - side) for at, length in zip(part[:2], image.size, strict=True)
    )
    return np.asarray(_shrunk(image.crop((left, top, left + side, top + side)), size))


def _read(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    convert: Callable[[Image.Image], Image.Image],
    least: int | None = None,
) -> np.ndarray:
    """`least`: side, in pixels, to which a JPEG may be reduced while decoded; None: as little as can be."""
    data, name = _bytes_of(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
        with opened as image:
            _check_size(image, name, least)
            return np.asarray(convert(image), dtype=np.uint8)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        limit = MAX_JPEG_PIXELS if data.startswith(b"\xff\xd8") else MAX_PIXELS
        raise ImageError(_too_large(name, limit=limit)) from None
    except Image.UnidentifiedImageError:
        if _KNOWN_START.match(data):
            raise ImageError(f"{name} is damaged or cut short and cannot be read.") from None
        raise ImageError(f"{name} {_other_format(data)}; allowed are {', '.join(FORMATS)}.") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(f"{name} is damaged or cut short and cannot be read ({error}).") from error


def _bytes_of(source: str | os.PathLike[str] | bytes | BinaryIO) -> tuple[bytes, str]:
    """(content, name for messages); reads no more than the limit."""
    if isinstance(source, bytes | bytearray | memoryview):
        data, name = bytes(source), "The picture"
    elif isinstance(source, str | os.PathLike):
        name = str(source)
        data = _read_file(Path(source))
    else:
        name = str(getattr(source, "name", None) or "The picture")
        if source.seekable():
            source.seek(0)
        data = source.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name} is larger than {MAX_BYTES // 1_000_000} MB; make it smaller first.")
    if not data:
        raise ImageError(f"{name} is empty.")
    return data, name


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ImageError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read: {reason}.") from None


def _check_size(image: Image.Image, name: str, least: int | None) -> None:
    """Refuse what has too many pixels; tell a JPEG at which size to be decoded, which Pillow allows once."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}).")
    limit, reducible = MAX_PIXELS, image.format in ("JPEG", "MPO")
    if reducible:
        limit = MAX_PROGRESSIVE_PIXELS if image.info.get("progressive") else MAX_JPEG_PIXELS
    if width * height > limit:
        raise ImageError(_too_large(name, f" ({width} x {height})", limit))
    if reducible and (least or width * height > MAX_PIXELS):
        image.draft(None, (least, least) if least else (width // 8, height // 8))


def _other_format(data: bytes) -> str:
    """What a file is that none of the decoders knows."""
    brands = data[8:40] if data[4:8] == b"ftyp" else b""
    if b"avi" not in brands and any(brand in brands for brand in (b"hei", b"hev", b"mif1", b"msf1")):
        return (
            "is a HEIC picture, as iPhones take them, which cannot be read here. Save it as JPEG: on an "
            "iPhone choose Settings, Camera, Formats, Most Compatible; on a computer export it as JPEG"
        )
    return "is not a picture of a known format"


def _too_large(name: str, size: str = "", limit: int = MAX_PIXELS) -> str:
    limit //= 1_000_000
    return f"{name} has too many pixels{size}; at most {limit} megapixels are read. Make it smaller first."


def _upright(image: Image.Image) -> Image.Image:
    """The picture turned as its orientation says. Loaded first: Pillow turns a TIFF itself while it loads."""
    image.load()
    with suppress(Exception):  # a damaged note about the picture is no reason to refuse its pixels
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _square(image: Image.Image) -> Image.Image:
    """The largest centred square."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _padded(image: Image.Image) -> Image.Image:
    """The whole picture in the middle of a square of its mean colour."""
    side = max(image.size)
    mean = tuple(int(value) for value in np.asarray(image).mean(axis=(0, 1)).round())
    padded = Image.new("RGB", (side, side), mean)
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return padded


def _flat(image: Image.Image) -> Image.Image:
    """RGB, whatever the mode was; transparent parts become white."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey(np.asarray(image), sixteen_bit=";16" in image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _grey(values: np.ndarray, *, sixteen_bit: bool) -> np.ndarray:
    """Numbers of any range as uint8.

    The range is told by the mode where it can be (16 bit), else guessed from the numbers: 0..1 for
    fractions, 0..255, 0..65535; anything else is stretched from its smallest to its largest.
    """
    values = _finite(values.astype(np.float64))
    low, high = values.min(), values.max()
    if sixteen_bit:
        scaled = values / 257
    elif low >= 0 and high <= 1 and (values % 1).any():
        scaled = values * 255
    elif low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65_535:
        scaled = values / 257
    else:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.full_like(values, 128)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _finite(values: np.ndarray) -> np.ndarray:
    """Not-a-numbers and infinities replaced by what else there is, so that they can't set the range."""
    good = values[np.isfinite(values)]
    if good.size == values.size:
        return values
    low, high = (good.min(), good.max()) if good.size else (0.0, 0.0)
    return np.nan_to_num(values, nan=low, neginf=low, posinf=high)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    if image.width == side:
        return image
    # Lanczos keeps edges when shrinking; when enlarging it would ring, bicubic hardly does.
    how = Image.Resampling.LANCZOS if image.width > side else Image.Resampling.BICUBIC
    return image.resize((side, side), how, reducing_gap=3.0)

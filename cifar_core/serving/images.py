"""Reading of picture files as the 32x32 images that models take.

Pictures come from strangers: the format must be a named one, the size is read from the header and
checked before anything is decoded, and whatever the decoder says ends as one `ImageError`.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from cifar_core.base.labels import IMAGE_SHAPE
from cifar_core.errors import ImageError

FORMATS: tuple[str, ...] = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
EXTENSIONS: tuple[str, ...] = ("png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff")
"""File name extensions for a file dialog."""
MAX_PIXELS = 40_000_000
MAX_BYTES = 100_000_000

SIDE = IMAGE_SHAPE[0]
_WHITE = (255, 255, 255, 255)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that sets a picture upright, by its EXIF orientation."""


def read_image(source: str | os.PathLike[str] | bytes | BinaryIO) -> np.ndarray:
    """A picture as uint8 (32, 32, 3), RGB.

    Set upright by its EXIF, its middle square cut out, laid on white where it is transparent, and
    scaled down smoothly. A 32x32 picture keeps its exact pixels. Of several frames or pages the
    first is taken. 16-bit and floating-point grey is brought to 0..255 by its apparent range.

    Args:
        source: path, the bytes of a file, or an open binary file (read from its start).

    Raises:
        ImageError: no such file, another format than those in `FORMATS`, damaged or cut short,
            no pixels, more than 40 megapixels, or more than 100 MB.
    """
    data, name = _bytes_of(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, name)
            return np.asarray(_shrunk(_flat(_square(_upright(image)))), dtype=np.uint8)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large(name)) from None
    except Image.UnidentifiedImageError:
        raise ImageError(
            f"{name} is not a picture of a known format; allowed are {', '.join(FORMATS)}."
        ) from None
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


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width} x {height}).")
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name, f" ({width} x {height})"))


def _too_large(name: str, size: str = "") -> str:
    limit = MAX_PIXELS // 1_000_000
    return f"{name} has too many pixels{size}; at most {limit} megapixels are read. Make it smaller first."


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged note about the picture is no reason to refuse its pixels
        return 1


def _square(image: Image.Image) -> Image.Image:
    """The largest centred square."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


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


def _shrunk(image: Image.Image) -> Image.Image:
    if image.width == SIDE:
        return image
    # Lanczos keeps edges when shrinking; when enlarging it would ring, bicubic hardly does.
    how = Image.Resampling.LANCZOS if image.width > SIDE else Image.Resampling.BICUBIC
    return image.resize((SIDE, SIDE), how, reducing_gap=3.0)

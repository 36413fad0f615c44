"""Images as they lie beside raw data: found, looked at, and opened the way a vision-language model gets them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from recipekit.errors import UserError
from recipekit.runs import relative

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")  # no others: Pillow's EPS starts Ghostscript
MOST_PIXELS = 1280 * 28 * 28  # of an image that a model gets: 1,280 tokens of Qwen2.5-VL, whose own limit is 16,384
LONGEST_SIDE = 100  # times the shorter one; Qwen2.5-VL's processor refuses 200
BITS = 64  # of a perceptual hash


@dataclass(frozen=True)
class Look:
    """What the header of an image says.

    Attributes:
        pixels: Of the image as a model gets it.
        animated: Whether there are more frames than the first.
        scaled: Whether a model gets it smaller than it is.
    """

    pixels: int
    animated: bool
    scaled: bool


def locate(name: str, folder: Path, source: Path) -> Path:
    """Find the image that a row names.

    Args:
        name: A path relative to the row's file.
        folder: Where that file lies.
        source: What no image may lie outside of, once links are followed.

    Raises:
        UserError: It is no file there.
    """
    try:
        path = (folder / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(source.resolve()):
            raise UserError(
                f"lies outside of {relative(source)}; put the image there, and name it from the CSV's folder"
            )
        if not path.is_file():
            what = "is no file" if path.exists() else "no such file"
            raise UserError(f"{what} in {relative(folder)}; put the image there, or mend the path")
    except (OSError, ValueError, RuntimeError):  # too long, a null character, links in a circle
        raise UserError("is no path of a file; mend it") from None
    return path


def look(path: Path, decode: bool = True) -> Look:
    """Look at an image.

    Args:
        path: The image.
        decode: Whether all of it is read, so that nothing that is wrong with it comes later; else its header alone.

    Raises:
        UserError: It is no image that a model could get; says why.
    """
    with _opened(path) as image:
        width, height = image.size
        if max(width, height) > LONGEST_SIDE * min(width, height):
            raise UserError(f"{width} x {height} pixels, one side over {LONGEST_SIDE} times the other; crop it")
        if image.mode in ("I", "F"):
            raise UserError("grey values of 32 bits; save it as a PNG or JPEG of 8 bits")
        animated = image.format in ("GIF", "PNG", "WEBP", "AVIF") and getattr(image, "is_animated", False)
        if decode:
            _rgb(ImageOps.exif_transpose(image))
    scaled = _scaled(width, height)
    return Look(scaled[0] * scaled[1], animated, scaled != (width, height))


def load(path: Path) -> Image.Image:
    """Open an image as RGB: its first frame, turned as its EXIF says, on white, with at most MOST_PIXELS.

    Raises:
        UserError: It cannot be read.
    """
    with _opened(path) as image:
        found = _rgb(ImageOps.exif_transpose(image))
    size = _scaled(*found.size)
    return found if size == found.size else found.resize(size, Image.Resampling.BICUBIC)


def perceptual_hash(path: Path) -> int:
    """Digest what an image looks like to 64 bits (imagehash.phash); copies in other sizes and formats differ in few.

    Raises:
        UserError: It cannot be read.
    """
    import imagehash  # loads scipy

    bits = np.packbits(imagehash.phash(load(path)).hash)
    return int.from_bytes(bits.tobytes(), "big")


def first_alike(hashes: NDArray[np.uint64], most: int) -> NDArray[np.int64]:
    """Find for each image the first one that looks alike; what is alike to a copy alone is not counted as one.

    Args:
        hashes: Perceptual hashes, shape [images].
        most: Bits in which images that are alike may differ.

    Returns:
        Places of the first ones, shape [images]; an image that is alike to none before has its own.
    """
    first = np.arange(len(hashes))
    free = np.ones(len(hashes), dtype=bool)
    for place in range(len(hashes)):
        if free[place]:
            alike = free & (np.bitwise_count(hashes ^ hashes[place]) <= most)
            first[alike] = place
            free &= ~alike
    return first


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong with it inside of the block is told as a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except UserError:
        raise
    except UnidentifiedImageError:
        what = "the file is empty" if path.stat().st_size == 0 else f"no image that is {', '.join(FORMATS)}"
        raise UserError(f"{what}; put the image there anew, or save it as PNG or JPEG") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down") from None
    except Exception as error:  # decoders raise what comes of the bytes: OSError, SyntaxError, ValueError, struct.error
        what = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot be read as an image, {what}; put it there anew") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scaled(width: int, height: int) -> tuple[int, int]:
    """Return the size that an image has with at most MOST_PIXELS."""
    if width * height <= MOST_PIXELS:
        return width, height
    factor = (MOST_PIXELS / (width * height)) ** 0.5
    return int(width * factor), int(height * factor)

import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from captioning import picture
from recipekit import images
from recipekit.errors import UserError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def save(path, image, **options):
    image.save(path, **options)
    return path


def header(width, height):
    """The start of a PNG, as much as tells its size; there are no pixels in it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9000) + b"IDAT"


def palette(transparent):
    image = Image.new("P", (60, 60), 1)
    image.putpalette([0, 0, 255, *RED])
    if transparent:
        image.info["transparency"] = 1
    return image


SOUND = {
    "grey.png": (Image.new("L", (60, 60), 128), (128, 128, 128)),
    "bits.png": (Image.new("1", (60, 60), 1), WHITE),
    "palette.png": (palette(False), RED),
    "palette_clear.png": (palette(True), WHITE),
    "alpha.png": (Image.new("RGBA", (60, 60), (*RED, 255)), RED),
    "clear.png": (Image.new("RGBA", (60, 60), (0, 0, 0, 0)), WHITE),
    "half.webp": (Image.new("RGBA", (60, 60), (0, 0, 0, 128)), (127, 127, 127)),
    "grey_alpha.png": (Image.new("LA", (60, 60), (0, 0)), WHITE),
    "deep.png": (Image.fromarray(np.full((60, 60), 128 * 257, dtype=np.uint16)), (128, 128, 128)),
    "cmyk.jpg": (Image.new("CMYK", (60, 60), (0, 255, 255, 0)), RED),
    "lab.tiff": (Image.new("LAB", (60, 60), (255, 128, 128)), WHITE),
    "plain.avif": (Image.new("RGB", (60, 60), RED), RED),
    "plain.bmp": (Image.new("RGB", (60, 60), RED), RED),
    "plain.gif": (Image.new("RGB", (60, 60), RED), RED),
}


@pytest.mark.parametrize("name", SOUND)
def test_every_mode_becomes_rgb_on_white(tmp_path, name):
    image, colour = SOUND[name]
    path = save(tmp_path / name, image)
    found = images.load(path)
    assert found.mode == "RGB" and images.look(path).pixels == 60 * 60
    assert np.abs(np.array(found.getpixel((30, 30)), dtype=int) - colour).max() <= 3


def test_a_wrong_ending_does_not_matter(tmp_path):
    path = save(tmp_path / "image.jpg", Image.new("RGB", (60, 60), RED), format="PNG")
    images.look(path)
    assert images.load(path).getpixel((1, 1)) == RED


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (90, 60), "white")
    image.paste(RED, (0, 0, 90, 30))  # red above; 6 says that the top is to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    found = images.load(save(tmp_path / "turned.png", image, exif=exif))
    assert found.size == (60, 90) and found.getpixel((55, 45)) == RED and found.getpixel((5, 45)) == WHITE


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (60, 60), colour) for colour in (RED, "blue", "green")]
    for name in ("a.gif", "a.png", "a.webp"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], lossless=True)
        assert images.look(path, decode=False).animated and images.load(path).getpixel((30, 30)) == RED
    assert not images.look(save(tmp_path / "b.gif", frames[0])).animated


@pytest.mark.parametrize("size", [(4000, 3000), (300, 5000), (1003, 1003)])
def test_a_large_image_is_scaled_down_and_keeps_its_shape(tmp_path, size):
    path = save(tmp_path / "large.png", picture(1, size))
    look, found = images.look(path), images.load(path)
    assert look.scaled and look.pixels == found.width * found.height <= images.MOST_PIXELS
    assert found.width * found.height > 0.99 * images.MOST_PIXELS
    assert found.width / found.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_an_image_within_the_limit_stays_as_it_is(tmp_path):
    path = save(tmp_path / "a.png", picture(1, (1280, 784)))
    assert images.MOST_PIXELS == 1280 * 784 and not images.look(path).scaled
    assert images.load(path).tobytes() == picture(1, (1280, 784)).tobytes()


def much_text():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "0" * 2**21, zip=True)
    return info


def whole(folder, name, **options):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (120, 120, 3), dtype=np.uint8))
    return save(folder / name, noise, **options).read_bytes()


ODD = {
    "empty.png": (lambda folder: b"", "the file is empty"),
    "text.png": (lambda folder: "画像ではない".encode(), "no image that is PNG, JPEG"),
    "drawing.svg": (lambda folder: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image that is PNG, JPEG"),
    "script.eps": (lambda folder: whole(folder, "a.eps"), "no image that is PNG, JPEG"),
    "short.png": (lambda folder: whole(folder, "a.png")[:9000], "cannot be read as an image"),
    "short.jpg": (lambda folder: whole(folder, "a.jpg")[:3000], "cannot be read as an image"),
    "short.gif": (lambda folder: whole(folder, "a.gif")[:6000], "cannot be read as an image"),
    "short.webp": (lambda folder: whole(folder, "a.webp")[:3000], "cannot be read as an image"),
    "zeros.png": (lambda folder: whole(folder, "a.png")[:900] + bytes(9000), "cannot be read as an image"),
    "header.png": (lambda folder: header(100, 100), "cannot be read as an image"),
    "bomb.png": (lambda folder: header(60000, 60000), "more than 89,478,485 pixels"),
    "large.png": (lambda folder: header(10000, 9000), "more than 89,478,485 pixels"),
    "comment.png": (lambda folder: whole(folder, "a.png", pnginfo=much_text()), "Decompressed data too large"),
    "thin.png": (lambda folder: header(5, 501), "5 x 501 pixels, one side over 100 times the other"),
    "float.tiff": (lambda folder: save(folder / "a.tiff", Image.new("F", (60, 60))).read_bytes(), "of 32 bits"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_no_model_could_get_is_refused_with_its_reason(tmp_path, name):
    make, message = ODD[name]
    path = tmp_path / name
    path.write_bytes(make(tmp_path))
    with pytest.raises(UserError) as error:
        images.look(path)
    assert message in str(error.value) and len(error.value.problems) == 1 and "\n" not in str(error.value)


@given(st.integers(0, 2**63), st.integers(1, 40))
def test_damaged_bytes_give_an_image_or_a_reason(tmp_path_factory, seed, changes):
    folder = tmp_path_factory.mktemp("damaged")
    rng = np.random.default_rng(seed)
    name = ("a.png", "a.jpg", "a.gif", "a.webp", "a.tiff", "a.bmp")[seed % 6]
    content = bytearray(whole(folder, name))
    for place in rng.integers(0, min(len(content), 600), changes):
        content[place] = rng.integers(0, 256)
    (folder / name).write_bytes(content)
    try:
        images.look(folder / name)
    except UserError:
        return
    assert images.load(folder / name).mode == "RGB"


@pytest.fixture
def places(tmp_path):
    source = tmp_path / "raw"
    (source / "inside").mkdir(parents=True)
    save(tmp_path / "secret.png", picture(0))
    save(source / "inside" / "a.png", picture(1))
    (source / "out.png").symlink_to(tmp_path / "secret.png")
    (source / "in.png").symlink_to("inside/a.png")
    (source / "round.png").symlink_to("round.png")
    os.mkfifo(source / "pipe.png")
    return source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.png", "lies outside of"),
        ("inside/../../secret.png", "lies outside of"),
        ("out.png", "lies outside of"),
        ("/etc/passwd", "lies outside of"),
        ("none.png", "no such file in"),
        ("inside", "is no file in"),
        ("pipe.png", "is no file in"),
        ("round.png", "is no path of a file"),
        ("a\0b.png", "is no path of a file"),
        ("x" * 300, "is no path of a file"),
    ],
)
def test_a_path_that_is_no_image_of_the_source_is_refused(places, name, message):
    with pytest.raises(UserError, match=message):
        images.locate(name, places, places)


def test_an_absolute_path_is_refused_even_where_it_leads_into_the_source(places):
    with pytest.raises(UserError, match="name it from the CSV's folder"):
        images.locate(str(places / "inside" / "a.png"), places, places)


def test_links_and_dots_within_the_source_are_followed(places):
    wanted = (places / "inside" / "a.png").resolve()
    assert images.locate("in.png", places, places) == wanted
    assert images.locate("../inside/a.png", places / "inside", places) == wanted


def test_copies_in_other_sizes_and_formats_look_alike_and_others_do_not(tmp_path):
    paths = [save(tmp_path / f"{number}.png", picture(number, (400, 300))) for number in range(4)]
    paths += [save(tmp_path / f"{number}.jpg", picture(number, (200, 150)), quality=60) for number in range(4)]
    hashes = np.array([images.perceptual_hash(path) for path in paths], dtype=np.uint64)
    assert images.first_alike(hashes, 6).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(0, 8))
def test_the_first_alike_is_within_the_bits_and_is_itself_a_first(numbers, most):
    first = images.first_alike(np.array(numbers, dtype=np.uint64), most).tolist()
    for place, number in enumerate(numbers):
        firsts = [other for other in range(place + 1) if first[other] == other]
        alike = [other for other in firsts if (numbers[other] ^ number).bit_count() <= most]
        assert first[place] == alike[0]

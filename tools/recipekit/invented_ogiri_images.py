"""Draws the pictures of invented odai from the figures in the sources, and says in words what a picture shows."""

import io
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image, ImageColor, ImageDraw

from recipekit.sampling import Line

WIDTH, HEIGHT, GROUND = 240, 180, 170  # pixels; what stands, stands on the ground
SIZES = {1: 122, 2: 76, 3: 52}  # pixels of a figure, by how many of it there are
BESIDE = (168, 66)  # place and size of what stands beside them
NUMBERS = {1: "一", 2: "二", 3: "三"}
OWN = "色"  # the colour that a picture chooses for its figure
SHAPES = {"ellipse": (0, 4), "rect": (0, 4), "poly": (0, 0), "line": (1, 0), "arc": (1, 6), "pie": (0, 6)}
"""Kind of shape -> how many widths and how many other numbers its line has; 0 of these is any number of points."""


class Picture(NamedTuple):
    """What a picture shows.

    Attributes:
        topic: Whose figures these are.
        setting: Where it is.
        main: The figure that is there once or more.
        colour: Its colour, empty where it has no choice.
        number: How many of it, 1 to 3.
        beside: Another figure of the topic.
        flipped: Whether that stands on the left.
    """

    topic: str
    setting: str
    main: str
    colour: str
    number: int
    beside: str
    flipped: bool


def invent(sources: dict[str, Any], topic: str, rng: random.Random) -> Picture:
    """Choose what a picture of a topic shows."""
    main, beside = rng.sample(sources["topics"][topic]["drawn"].split(), 2)
    colour = rng.choice(sources["figures"][main].get("colours", "").split() or [""])
    setting = rng.choice(list(sources["settings"]))
    return Picture(topic, setting, main, colour, rng.choice((1, 1, 2, 3)), beside, rng.random() < 0.5)


def caption(sources: dict[str, Any], picture: Picture) -> str:
    """Say what a picture shows."""
    (counter, verb), (_, near) = (
        sources["figures"][name]["counted"].split() for name in (picture.main, picture.beside)
    )
    colour = sources["colours"][picture.colour]["said"] if picture.colour else ""
    side = "左" if picture.flipped else "右"
    what = f"{colour}{picture.main}が{NUMBERS[picture.number]}{counter}{verb}"
    return f"{picture.setting}に、{what}。{side}に{picture.beside}が{near}。"


def png(sources: dict[str, Any], picture: Picture) -> bytes:
    """Draw a picture; returns a PNG of 16 colours."""
    colours = [ImageColor.getrgb(colour["hex"]) for colour in sources["colours"].values()]
    image = Image.new("P", (WIDTH, HEIGHT))
    image.putpalette([part for colour in colours for part in colour])
    inks = {name: ink for ink, name in enumerate(sources["colours"])}
    inks[OWN] = inks[picture.colour] if picture.colour else 0
    pen = ImageDraw.Draw(image)
    _draw(pen, sources["settings"][picture.setting], (0, 0, WIDTH, HEIGHT), inks)
    size = SIZES[picture.number]
    for place in range(picture.number):
        left = 80 + round((place - (picture.number - 1) / 2) * size * 1.04) - size // 2
        _draw(pen, sources["figures"][picture.main]["shapes"], (left, GROUND - size, size, size), inks)
    left, size = BESIDE
    colour = sources["figures"][picture.beside].get("colours", "").split()
    _draw(pen, sources["figures"][picture.beside]["shapes"], (left, GROUND - size, size, size),
          {**inks, OWN: inks[colour[0]] if colour else 0})  # fmt: skip
    if picture.flipped:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    stream = io.BytesIO()
    image.save(stream, "PNG", bits=4, optimize=True)
    return stream.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shapes: list[Line], box: tuple[int, int, int, int], inks: dict[str, int]) -> None:
    left, top, width, height = box
    for shape in shapes:
        kind, colour, *numbers = shape.split()
        widths, wanted = SHAPES[kind]
        thick = max(1, round(int(numbers[0]) * height / 100)) if widths else 1
        values = [int(number) for number in numbers[widths:]]
        points = [
            round(top + value * height / 100) if odd % 2 else round(left + value * width / 100)
            for odd, value in enumerate(values[:4] if wanted else values)
        ]
        ink, rest = inks[colour], values[4:]
        if kind == "line":
            pen.line(points, ink, thick, joint="curve")
        elif kind == "arc":
            pen.arc(points, rest[0], rest[1], ink, thick)
        elif kind == "pie":
            pen.pieslice(points, rest[0], rest[1], ink, inks["黒"])
        else:
            {"ellipse": pen.ellipse, "rect": pen.rectangle, "poly": pen.polygon}[kind](points, ink, inks["黒"])


def problems(sources: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the figures, the settings, and the topics that name figures."""
    colours = set(sources["colours"])
    for name, figure in sources["figures"].items():
        yield from (p for shape in figure["shapes"] for p in _shape_problems(shape, colours | {OWN}))
        words = figure.get("colours", "").split()
        unknown = [word for word in words if word not in colours]
        if unknown:
            yield f"{figure['colours'].place}: {name} names '{unknown[0]}', no colour; expected {', '.join(colours)}"
        if any(OWN in shape.split() for shape in figure["shapes"]) and not words:
            yield f"{figure['counted'].place}: {name} has shapes of '{OWN}' and no colours:; add colours:"
    for setting in sources["settings"].values():
        yield from (problem for shape in setting for problem in _shape_problems(shape, colours))
    for topic, spec in sources["topics"].items():
        drawn = spec.get("drawn", "").split()
        words = " ".join(spec[kind] for kind in ("thing", "who", "place", "act")).split()
        for name in drawn:
            if name not in sources["figures"] or name not in words:
                yield f"{spec['drawn'].place}: {topic} draws '{name}'; expected a word of the topic that figures: has"
        if len(drawn) == 1:
            yield f"{spec['drawn'].place}: {topic} has one figure, expected two or more; draw another"


def _shape_problems(shape: Line, colours: set[str]) -> Iterator[str]:
    kind, *rest = shape.split()
    if kind not in SHAPES or not rest:
        yield f"{shape.place}: found '{shape}', expected one of {', '.join(SHAPES)}, a colour and numbers"
        return
    colour, numbers = rest[0], rest[1:]
    if colour not in colours:
        yield f"{shape.place}: '{colour}' is no colour; expected one of {', '.join(sorted(colours))}"
    widths, wanted = SHAPES[kind]
    points = len(numbers) - widths
    least = 4 if kind == "line" else 6
    if (points != wanted) if wanted else (points < least or points % 2):
        many = f"{widths + wanted}" if wanted else f"{widths} and at least {least // 2} points"
        yield f"{shape.place}: {kind} has {len(numbers)} numbers, expected {many}; mend the line"
    if not all(number.lstrip("-").isdecimal() for number in numbers):
        yield f"{shape.place}: found '{shape}', expected whole numbers after the colour; mend the line"

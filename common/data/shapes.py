"""Shapes: drawn pictures of which everything is known: classes, boxes, masks and captions.

One generator for all of them. A picture is made so; what a `Recipe` sets stands in `quotes`:

    ground    a grey between 40 and 215, each channel up to 20 off; upon it, where there is
              `texture`, three coloured waves of 1 to 6 periods across the picture
    objects   1 to `most`, all numbers equally often
    kind      one of the first `kinds` of KINDS, all equally often
    colour    one of COLOURS, all equally often, each channel up to 15 off; with `texture` a wave
              of brightness runs through it
    size      the longer side of its outline: evenly between two shares of the picture's side
              (`size`), whatever kind and tilt
    tilt      evenly between -`tilt` and `tilt` degrees
    place     evenly among those where the whole object is in the picture, a pixel from its edge
    overlap   a later object lies above earlier ones. It may cover a share of `hidden` of each, and
              shapes keep `gap` pixels between them; after eight places that do not do, it is left
              out
    noise     normal, with the standard deviation `noise`, on each channel of each pixel

Kind, colour, size, place and ground are drawn apart: none says anything about another. A pixel
belongs to the mask of the object that covers its centre and lies on top, and a box is as tight
around that mask as whole pixels allow.

How difficult they are (measured by tests/test_shapes.py; accuracy on new pictures, with 3,000 to
6,000 to learn from, and mean average precision at an overlap of 0.5 for the scenes):

    shapes        majority 0.10, linear model 0.11, nearest neighbour 0.22; four convolutions of 16
                  to 32 channels 0.99 in ten seconds on one core
    shapes-hard   majority 0.10, linear model 0.09, nearest neighbour 0.19
    scenes        a threshold on colour and connected components find every box; named by how much
                  of its box each one fills, 0.43
    scenes-hard   the same, 0.05
"""

import functools
from dataclasses import dataclass, field

import numpy as np

from common.config import LessonConfig
from common.record import current

KINDS = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "moon",
    "arrow",
    "hourglass",
)
COLOURS = {
    "red": (220, 40, 40),
    "yellow": (230, 205, 40),
    "green": (40, 170, 60),
    "cyan": (40, 200, 215),
    "blue": (45, 75, 220),
    "purple": (165, 50, 200),
}
BLOCK = 100  # pictures that are drawn together, each block with random numbers of its own
SIZES = (8000, 1000, 1000)  # training, validation and test pictures
TINY = (300, 100, 100)  # of a tiny run
GRID = 97  # points on each side of a table of distances
REACH = 1.25  # the table covers -1.25 to 1.25; a kind's corners lie within 1 of the middle
TRIES = 8


@dataclass(frozen=True)
class Recipe:
    """What may be set about a picture; the module's first lines say what each field means."""

    side: int
    kinds: int = len(KINDS)
    most: int = 1
    size: tuple[float, float] = (0.31, 0.48)
    tilt: float = 15.0
    texture: float = 0.0
    hidden: float = 0.0
    gap: float = 0.0
    noise: float = 10.0


RECIPES = {
    # one object, to classify
    "shapes": Recipe(32),
    "shapes-hard": Recipe(32, tilt=180.0, noise=20.0),
    # several, to find
    "scenes": Recipe(96, kinds=5, most=3, size=(0.2, 0.35), gap=2.0),
    "scenes-hard": Recipe(
        96,
        kinds=5,
        most=6,
        size=(0.15, 0.45),
        tilt=180.0,
        texture=20.0,
        hidden=0.5,
        noise=20.0,
    ),
}


@dataclass(frozen=True)
class Scenes:
    """n pictures and the truth about them. K objects at most; labels of missing ones are -1.

    x        (n, side, side, 3) uint8
    labels   (n, K) int64, numbers of KINDS, the lowest object first
    colours  (n, K) int64, numbers of COLOURS
    boxes    (n, K, 4) int64: left, top, right, bottom; the pixels left … right - 1 belong to it
    owner    (n, side, side) int8: the number of the object that shows in a pixel, -1 the ground
    """

    x: np.ndarray
    labels: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray
    owner: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def captions(self) -> list[str]:
        """ "a red star", or "a red star, a blue ring and a cyan square", from left to right."""
        names = list(COLOURS)
        found = []
        for labels, colours, boxes in zip(self.labels, self.colours, self.boxes):
            present = [k for k in np.argsort(boxes[:, 0], kind="stable") if labels[k] >= 0]
            words = [f"a {names[colours[k]]} {KINDS[labels[k]]}" for k in present]
            found.append(" and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words))
        return found

    def class_map(self) -> np.ndarray:
        """(n, side, side) int64: 0 for the ground, 1 + label for a pixel of an object."""
        flat = self.owner.reshape(len(self), -1)
        shown = np.take_along_axis(self.labels, np.maximum(flat, 0), axis=1)
        return np.where(flat < 0, 0, 1 + shown).reshape(self.owner.shape)


@dataclass(frozen=True)
class ShapeSet:
    """Drawn pictures in three parts: train trains, val chooses, `test()` reports once."""

    name: str
    classes: tuple[str, ...]
    train: Scenes
    val: Scenes
    _test: Scenes = field(repr=False)

    def test(self) -> Scenes:
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        current().read_test(self._test.x, self._test.labels)
        return self._test


def load_shapes(
    cfg: LessonConfig,
    name: str = "shapes",
    split_seed: int = 0,
    sizes: tuple[int, int, int] = SIZES,
) -> ShapeSet:
    """The set `name` of RECIPES; another split_seed draws other pictures.

    sizes: of training, validation and test part; a tiny run draws TINY.
    """
    classes = KINDS[: RECIPES[name].kinds]
    return ShapeSet(name, classes, *draw_parts(cfg, name, split_seed, sizes))


def draw_parts(
    cfg: LessonConfig, name: str, split_seed: int, sizes: tuple[int, int, int]
) -> list[Scenes]:
    """Training, validation and test pictures, each part with random numbers of its own."""
    if cfg.tiny:
        sizes = TINY
    current().use_data(name, f"{sum(sizes):,} pictures drawn with seed {split_seed}")
    return [draw(n, RECIPES[name], (split_seed, part)) for part, n in enumerate(sizes)]


def draw(n: int, recipe: Recipe, seed: int | tuple[int, ...]) -> Scenes:
    """n pictures by the recipe. The first of them are the same for any larger n."""
    entropy = np.atleast_1d(seed).tolist()
    blocks = [
        _draw_block(recipe, np.random.default_rng([*entropy, number]))
        for number in range(-(-n // BLOCK))
    ]
    parts = zip(*(vars(block).values() for block in blocks))
    return Scenes(*(np.concatenate(part)[:n] for part in parts))


def _draw_block(recipe: Recipe, rng: np.random.Generator) -> Scenes:
    side, most = recipe.side, recipe.most
    kinds = rng.permutation(np.arange(BLOCK * most) % recipe.kinds).reshape(most, BLOCK)
    wanted = rng.permutation(np.arange(BLOCK) % most) + 1
    x = _ground(recipe, rng)
    owner = np.full((BLOCK, side, side), -1, dtype=np.int8)
    labels = np.full((BLOCK, most), -1)
    colours = np.full((BLOCK, most), -1)
    areas = np.zeros((BLOCK, most), dtype=int)  # pixels of each object, and how many still show
    shown = np.zeros((BLOCK, most), dtype=int)
    count = np.zeros(BLOCK, dtype=int)  # objects drawn so far

    for number in range(most):
        missing = np.flatnonzero(wanted > number)
        for _ in range(TRIES):
            if len(missing) == 0:
                break
            shape = _place(kinds[number, missing], missing, recipe, rng)
            near = _covered(shape.depth >= -recipe.gap, owner[shape.pixels], most)
            left = shown[missing] - near
            fits = (left >= (1 - recipe.hidden) * areas[missing]).all(axis=1)
            shape = shape.only(fits)
            drawn = shape.pictures
            here = drawn, count[drawn]

            labels[here] = shape.kinds
            colours[here] = _paint(shape, recipe, x, rng)
            inside = shape.depth >= 0
            shown[drawn] -= _covered(inside, owner[shape.pixels], most)
            areas[here] = shown[here] = inside.sum(axis=(1, 2))
            mine = count[drawn][:, None, None]
            owner[shape.pixels] = np.where(inside, mine, owner[shape.pixels])
            count[drawn] += 1
            missing = missing[~fits]

    x += recipe.noise * rng.standard_normal(x.shape, dtype=np.float32)
    pictures = x.round().clip(0, 255).astype(np.uint8)
    return Scenes(pictures, labels, colours, _boxes(owner, labels), owner)


def _ground(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """(BLOCK, side, side, 3) float32"""
    grey = rng.uniform(40, 215, size=(BLOCK, 1, 1, 1))
    tint = rng.uniform(-20, 20, size=(BLOCK, 1, 1, 3))
    x = np.empty((BLOCK, recipe.side, recipe.side, 3), dtype=np.float32)
    x[:] = grey + tint
    if recipe.texture:
        rows, columns = np.mgrid[: recipe.side, : recipe.side] / recipe.side
        for _ in range(3):
            wave = _wave(BLOCK, rows, columns, 6, rng)
            x += wave[..., None] * rng.normal(scale=recipe.texture, size=(BLOCK, 1, 1, 3))
    return x


def _wave(
    n: int, rows: np.ndarray, columns: np.ndarray, periods: int, rng: np.random.Generator
) -> np.ndarray:
    """n sines of 1 to `periods` periods a picture, in any direction. (n, height, width)"""
    size = (n, 1, 1)
    direction, phase = rng.uniform(0, 2 * np.pi, size=(2, *size))
    along = rows * np.sin(direction) + columns * np.cos(direction)
    return np.sin(2 * np.pi * rng.uniform(1, periods, size=size) * along + phase)


@dataclass(frozen=True)
class _Shapes:
    """m objects, each with the square of pixels around it.

    pictures, kinds (m,); pixels: what picks the squares out of (n, side, side) arrays; depth
    (m, w, w): how many pixels a pixel's centre lies inside the outline, below 0 outside.
    """

    pictures: np.ndarray
    kinds: np.ndarray
    pixels: tuple[np.ndarray, np.ndarray, np.ndarray]
    depth: np.ndarray

    def only(self, chosen: np.ndarray) -> "_Shapes":
        pixels = tuple(part[chosen] for part in self.pixels)
        return _Shapes(self.pictures[chosen], self.kinds[chosen], pixels, self.depth[chosen])


def _place(
    kinds: np.ndarray, pictures: np.ndarray, recipe: Recipe, rng: np.random.Generator
) -> _Shapes:
    """An object for each of the pictures: size, tilt and place are drawn."""
    corners, _ = _outlines()
    m, side = len(kinds), recipe.side
    smallest, largest = recipe.size
    tilt = np.radians(rng.uniform(-recipe.tilt, recipe.tilt, size=m))
    sin, cos = np.sin(tilt), np.cos(tilt)

    # how far the tilted outline reaches from the middle, to the right and down
    across, down = np.moveaxis(corners[kinds], 2, 0)  # (m, corners)
    tilted_across = across * cos[:, None] - down * sin[:, None]
    tilted_down = across * sin[:, None] + down * cos[:, None]
    first = np.stack([tilted_across.min(axis=1), tilted_down.min(axis=1)])  # (2, m)
    extent = np.stack([tilted_across.max(axis=1), tilted_down.max(axis=1)]) - first
    scale = rng.uniform(smallest, largest, size=m) * side / extent.max(axis=0)
    room = side - 2 - scale * extent
    middle = 1 + room * rng.random((2, m)) - scale * first

    # the square of pixels around it, and where they lie in the shape's own coordinates
    margin = 1 + int(np.ceil(recipe.gap))
    width = min(side, int(np.ceil(largest * side)) + 1 + 2 * margin)
    start = np.floor(middle + scale * first).astype(int) - margin
    start = start.clip(0, side - width)  # (2, m): columns, rows
    columns, rows = start[:, :, None] + np.arange(width)  # (m, w) each
    right = (columns + 0.5 - middle[0][:, None])[:, None, :] / scale[:, None, None]
    below = (rows + 0.5 - middle[1][:, None])[:, :, None] / scale[:, None, None]
    sin, cos = sin[:, None, None], cos[:, None, None]
    depth = _distances(kinds, right * cos + below * sin, below * cos - right * sin)
    pixels = (pictures[:, None, None], rows[:, :, None], columns[:, None, :])
    return _Shapes(pictures, kinds, pixels, depth * scale[:, None, None])


def _distances(kinds: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Signed distances to the outlines, between the points of the tables linearly. (m, w, w)"""
    _, tables = _outlines()
    step = (GRID - 1) / (2 * REACH)
    across = ((across + REACH) * step).clip(0, GRID - 1.001)
    down = ((down + REACH) * step).clip(0, GRID - 1.001)
    column = across.astype(np.intp)
    row = down.astype(np.intp)
    right = (across - column).astype(np.float32)
    below = (down - row).astype(np.float32)
    place = (kinds[:, None, None] * GRID + row) * GRID + column
    flat = tables.reshape(-1)
    upper = flat[place] * (1 - right) + flat[place + 1] * right
    lower = flat[place + GRID] * (1 - right) + flat[place + GRID + 1] * right
    return upper * (1 - below) + lower * below


def _covered(mask: np.ndarray, below: np.ndarray, most: int) -> np.ndarray:
    """How many pixels of each object below lie under the mask. (m, w, w) each -> (m, most)"""
    counts = [(mask & (below == number)).sum(axis=(1, 2)) for number in range(most)]
    return np.stack(counts, axis=1)


def _paint(shape: _Shapes, recipe: Recipe, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the objects into x; the numbers of their colours (m,)."""
    m = len(shape.pictures)
    numbers = rng.integers(len(COLOURS), size=m)
    table = np.array(list(COLOURS.values()), dtype=np.float32)
    colour = table[numbers] + rng.uniform(-15, 15, size=(m, 3)).astype(np.float32)
    colour = colour[:, None, None]
    if recipe.texture:
        _, rows, columns = (part / recipe.side for part in shape.pixels)
        wave = _wave(m, rows, columns, 12, rng).astype(np.float32)
        colour = colour + recipe.texture * wave[..., None]

    # a pixel on the outline is part object, part what lies below
    cover = (shape.depth + 0.5).clip(0, 1)[..., None].astype(np.float32)
    x[shape.pixels] += cover * (colour - x[shape.pixels])
    return numbers


def _boxes(owner: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(n, K, 4), around the pixels in which each object shows; zeros for those that are not."""
    boxes = np.zeros((*labels.shape, 4), dtype=np.int64)
    side = owner.shape[1]
    for number in range(labels.shape[1]):
        mask = owner == number
        there = labels[:, number] >= 0
        for axis, (low, high) in ((1, (0, 2)), (2, (1, 3))):
            seen = mask.any(axis=axis)  # (n, side)
            boxes[there, number, low] = seen.argmax(axis=1)[there]
            boxes[there, number, high] = side - seen[:, ::-1].argmax(axis=1)[there]
    return boxes


# The kinds, as polygons


@functools.cache
def _outlines() -> tuple[np.ndarray, np.ndarray]:
    """For each kind: corners (kinds, 64, 2), and a table of distances (kinds, GRID, GRID).

    Upright, right and down from the middle; no corner is farther than 1 from it.
    """
    points = np.linspace(-REACH, REACH, GRID)
    down, across = np.meshgrid(points, points, indexing="ij")
    corners = []
    tables = []
    polygons = _polygons()
    for name in KINDS:
        loops = polygons[name]
        outer = loops[0]
        # with fewer than 64, some stand there several times
        corners.append(outer[np.arange(64) * len(outer) // 64])
        tables.append(_signed_distance(loops, across, down))
    return np.stack(corners), np.stack(tables).astype(np.float32)


def _polygons() -> dict[str, list[np.ndarray]]:
    """The loops that bound each kind, the outer one first; what lies in two of them is a hole."""
    circle = _regular(64)
    star = np.stack([_regular(5), 0.45 * _regular(5, turn=0.1)], axis=1)
    arm = np.array([[0.3, -0.95], [0.3, -0.3], [0.95, -0.3]])
    cross = [arm, _quarter_turn(arm, 1), _quarter_turn(arm, 2), _quarter_turn(arm, 3)]
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waist = 5 * np.cos(2 * turn) + 2 * np.cos(3 * turn) + np.cos(4 * turn) - 13 * np.cos(turn)
    heart = np.stack([16 * np.sin(turn) ** 3, waist], axis=1) / 17.5
    # two arcs between the same ends, both bent to the left, the second less so
    moon = [_arc(0.0, 0.95, 0.2), _arc(0.5, 0.623, 0.353)[::-1]]
    half_arrow = np.array([[0, -0.95], [0.8, -0.1], [0.3, -0.1], [0.3, 0.95]])
    arrow = [half_arrow, half_arrow[:0:-1] * [-1, 1]]
    half_glass = np.array([[-0.7, -0.7], [0.7, -0.7], [0.12, 0]])
    return {
        "circle": [circle],
        "square": [_regular(4, turn=0.125)],
        "triangle": [_regular(3)],
        "star": [star.reshape(-1, 2)],
        "ring": [circle, 0.55 * circle],
        "cross": [np.concatenate(cross)],
        "heart": [heart],
        "moon": [np.concatenate(moon)],
        "arrow": [np.concatenate(arrow)],
        "hourglass": [np.concatenate([half_glass, -half_glass])],
    }


def _regular(corners: int, turn: float = 0.0) -> np.ndarray:
    """The corners of a regular polygon around 0, the first one above, or `turn` turns on."""
    angles = 2 * np.pi * (np.arange(corners) / corners + turn)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _quarter_turn(points: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        points = np.stack([-points[:, 1], points[:, 0]], axis=1)
    return points


def _arc(middle: float, radius: float, gap: float) -> np.ndarray:
    """A circle around (middle, 0), open on the right by `gap` half turns to both sides. (30, 2)"""
    angles = np.pi * np.linspace(gap, 2 - gap, 30)
    return np.stack([middle + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _signed_distance(loops: list[np.ndarray], across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Of each point to the nearest edge: above 0 inside, below 0 outside."""
    nearest = np.full(across.shape, np.inf)
    inside = np.zeros(across.shape, dtype=bool)
    for loop in loops:
        for (x0, y0), (x1, y1) in zip(loop, np.roll(loop, -1, axis=0)):
            along = (across - x0) * (x1 - x0) + (down - y0) * (y1 - y0)
            share = (along / ((x1 - x0) ** 2 + (y1 - y0) ** 2)).clip(0, 1)
            distance = np.hypot(across - x0 - share * (x1 - x0), down - y0 - share * (y1 - y0))
            nearest = np.minimum(nearest, distance)
            # a ray to the right leaves what it is in by crossing an edge
            if y0 != y1:
                crossing = x0 + (down - y0) / (y1 - y0) * (x1 - x0)
                inside ^= ((y0 > down) != (y1 > down)) & (across < crossing)
    return np.where(inside, nearest, -nearest)

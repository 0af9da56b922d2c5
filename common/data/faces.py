"""Faces: drawn ones of which everything is known, and real ones, at 32 x 32 pixels.

One generator draws them. A person and a shot are drawn apart, so the same person can be drawn in
several shots (`people`); in `draw` each face is a person of its own. All numbers are drawn evenly
between the two that are named, each apart from all others; lengths are shares of half the side,
divided by ZOOM.

    person   skin       a mixture of four tones, each channel up to 8 off
             hair       long or short; black, brown, blond or red; each channel up to 12 off
             head       0.44 to 0.52 wide, 0.54 to 0.62 high, a jaw that narrows by 0.1 to 0.35
             hairline   0.24 to 0.4 above the eyes, parted in the middle or on a side
             eyes       one of five colours; 0.19 to 0.24 from the middle, 0.085 to 0.115 wide
             brows      0.13 to 0.18 above the eyes, 0.03 to 0.055 thick, tilted by -0.2 to 0.1
             nose       0.18 to 0.25 long, mouth 0.15 to 0.21 wide, lips more or less red
    shot     glasses    in half of the shots; round or square, dark or red
             smile      in half of the shots: bent by 0.09 to 0.14, teeth show; else -0.03 to 0.02
             pose       tilted by -10 to 10 degrees, turned by -0.09 to 0.09, moved by 0.04 at most
             light      from left or right, up to 0.28 brighter on one cheek than on the other
             ground     two soft colours, one above the other; a shirt of any colour
             eyelids    0.75 to 1 of the eye is open; it looks up to 0.03 to a side
             noise      normal, with the standard deviation 3, on each channel of each pixel

The four labels (glasses, smile, hair, colour) take 2 · 2 · 2 · 4 = 32 combinations. Each comes up
equally often, but for chance, and says nothing about what else is drawn.

How difficult they are (tests/test_data_faces.py; share of new faces of which all four labels are
read rightly, from 2,000 to learn from): the most frequent combination 0.04, the nearest neighbour
0.35, a linear model 0.78. The small convolutional network of phase 8's project reads 0.99 of them,
from 4,000.

Real faces: `olivetti` (40 people, grey), `celeba` (20,000 of its photographs), or any folder of
pictures. They have no labels here.
"""

import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.config import LessonConfig
from common.data.images import open_picture
from common.data.sources import Part, Source, damaged, data_folders, find, local_path
from common.errors import LessonError
from common.record import current

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SIDE = 32
LABELS = {
    "glasses": ("no", "yes"),
    "smile": ("no", "yes"),
    "hair": ("short", "long"),
    "colour": ("black", "brown", "blond", "red"),
}
MODES = 32  # combinations of labels
ZOOM = 0.84  # of the picture's half side, seen as 1 in the recipe
BLOCK = 100  # faces that are drawn together, each block with random numbers of its own
TINY = (160, 40)  # training faces and held-out ones of a tiny run, at most

SKIN = np.array([(255, 222, 200), (236, 188, 150), (190, 130, 92), (112, 72, 52)], np.float32)
HAIR = np.array([(34, 30, 36), (104, 64, 36), (228, 190, 104), (184, 76, 32)], np.float32)
IRIS = np.array(
    [(64, 40, 26), (40, 100, 190), (48, 132, 84), (104, 112, 124), (124, 84, 34)], np.float32
)
Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class Faces:
    """x (n, SIDE, SIDE, 3) uint8; labels (n, 4) int64, columns as in LABELS, or None."""

    x: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def pictures(self) -> "Tensor":
        """As networks take them: (n, 3, SIDE, SIDE) float32 from -1 to 1."""
        import torch

        return torch.from_numpy(self.x).movedim(3, 1).float() / 127.5 - 1


def draw(n: int, seed: int | tuple[int, ...]) -> Faces:
    """n faces of n people. The first of them are the same for any larger n."""
    entropy = np.atleast_1d(seed).tolist()
    parts = []
    for number in range(-(-n // BLOCK)):
        rng = np.random.default_rng([*entropy, number])
        parts.append(_picture(_person(BLOCK, rng), _shot(BLOCK, rng), rng))
    return _joined(parts, n)


def people(count: int, shots: int, seed: int | tuple[int, ...]) -> tuple[Faces, np.ndarray]:
    """`count` people, `shots` faces of each in a row; and the number of each face's person."""
    rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), count, shots])
    who = np.repeat(np.arange(count), shots)
    persons = {name: values[who] for name, values in _person(count, rng).items()}
    poses = _shot(len(who), rng)
    parts = []
    for start in range(0, len(who), BLOCK):
        rows = slice(start, start + BLOCK)
        person = {name: values[rows] for name, values in persons.items()}
        shot = {name: values[rows] for name, values in poses.items()}
        parts.append(_picture(person, shot, rng))
    return _joined(parts, len(who)), who


@dataclass(frozen=True)
class FaceSet:
    """Three parts, no face in two of them; `labels` of real faces are None."""

    name: str
    train: Faces
    val: Faces
    _test: Faces = field(repr=False)

    def test(self) -> Faces:
        """Read it once, at the end: it measures nothing more once something was chosen by it."""
        current().read_test(self._test.x)
        return self._test

    def fingerprints(self) -> list[np.ndarray]:
        """Each part as rows of bytes, so that `no_leak` can compare them."""
        return [part.x.reshape(len(part), -1) for part in (self.train, self.val, self._test)]


def tiled(x: "Tensor", columns: int) -> np.ndarray:
    """Pictures (n, 3, H, W) in full rows, as one of bytes: (height, width, 3)"""
    import torch

    full = x[: len(x) // columns * columns].cpu()
    rows = [torch.cat(list(part), dim=2) for part in full.split(columns)]
    numbers = (torch.cat(rows, dim=1) + 1) * 127.5
    return numbers.round().clamp(0, 255).byte().movedim(0, 2).numpy()


def load_faces(cfg: LessonConfig, name: str, n: int, held_out: int, seed: int = 0) -> FaceSet:
    """n training faces at most; `held_out` for validation and as many for testing.

    name: generated, olivetti, celeba, or a folder of pictures. A tiny run takes TINY of them.
    Real faces are split by pictures, not by people: one person may stand in two parts.
    Raises LessonError for a name that is none of these, and for a folder with too few pictures.
    """
    if cfg.tiny:
        n, held_out = min(n, TINY[0]), min(held_out, TINY[1])
    if name == "generated":
        sizes = (n, held_out, held_out)
        current().use_data(name, f"{sum(sizes):,} faces drawn with seed {seed}")
        return FaceSet(name, *(draw(size, (seed, part)) for part, size in enumerate(sizes)))

    if name == "olivetti":
        x = _read_olivetti(cfg)
    elif name == "celeba":
        x = _read_celeba(cfg)
    elif Path(name).expanduser().is_dir():
        x = read_folder(Path(name).expanduser(), limit=n + 2 * held_out)
    else:
        raise LessonError(
            f"--data {name} is no data set and no folder. "
            "Give generated, olivetti, celeba, or a folder of pictures."
        )

    # each picture once, or a copy in another part would look like a forgery
    _, first = np.unique(x.reshape(len(x), -1), axis=0, return_index=True)
    if len(first) < len(x):
        print(f"  left out: {len(x) - len(first)} pictures that are there twice")
    least = 4 * held_out
    if len(first) < least:
        raise LessonError(
            f"--data {name} has {len(first)} different faces; with {held_out} held out twice it "
            f"takes {least} or more. Add pictures, or give a smaller --held-out."
        )
    chosen = np.random.default_rng(seed).permutation(np.sort(first))
    test, val, train = np.split(chosen, [held_out, 2 * held_out])
    return FaceSet(name, *(Faces(x[rows]) for rows in (train[:n], val, test)))


def _joined(parts: list[Faces], n: int) -> Faces:
    pictures = np.concatenate([part.x for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return Faces(pictures[:n], labels[:n])


def mode_of(labels: np.ndarray) -> np.ndarray:
    """Which of the MODES combinations: (n, 4) -> (n,)"""
    glasses, smile, hair, colour = labels.T
    return ((glasses * 2 + smile) * 2 + hair) * 4 + colour


# A person, a shot


def _person(n: int, rng: np.random.Generator) -> Parameters:
    tone = rng.uniform(0, len(SKIN) - 1.001, n)
    lower = tone.astype(int)
    share = (tone - lower)[:, None]
    colour = rng.integers(len(HAIR), size=n)
    return {
        "skin": (1 - share) * SKIN[lower] + share * SKIN[lower + 1] + rng.uniform(-8, 8, (n, 3)),
        "hair": rng.integers(2, size=n),
        "colour": colour,
        "hair_colour": HAIR[colour] + rng.uniform(-12, 12, (n, 3)),
        "width": rng.uniform(0.44, 0.52, n),
        "height": rng.uniform(0.54, 0.62, n),
        "jaw": rng.uniform(0.1, 0.35, n),
        "hairline": rng.uniform(0.24, 0.4, n),
        "parting": rng.uniform(-0.3, 0.3, n),
        "iris": IRIS[rng.integers(len(IRIS), size=n)],
        "apart": rng.uniform(0.19, 0.24, n),
        "eye": rng.uniform(0.085, 0.115, n),
        "brow": rng.uniform(0.13, 0.18, n),
        "thick": rng.uniform(0.03, 0.055, n),
        "tilt": rng.uniform(-0.2, 0.1, n),
        "nose": rng.uniform(0.18, 0.25, n),
        "mouth": rng.uniform(0.15, 0.21, n),
        "red": rng.uniform(0.25, 0.75, n),
    }


def _shot(n: int, rng: np.random.Generator) -> Parameters:
    smile = rng.integers(2, size=n)
    bend = np.where(smile, rng.uniform(0.09, 0.14, n), rng.uniform(-0.03, 0.02, n))
    above = rng.uniform(130, 235, (n, 1)) + rng.uniform(-35, 20, (n, 3))
    return {
        "glasses": rng.integers(2, size=n),
        "square": rng.integers(2, size=n),
        "frame": np.where(
            rng.integers(2, size=(n, 1)), [(30.0, 30.0, 38.0)], [(140.0, 30.0, 44.0)]
        ),
        "smile": smile,
        "bend": bend,
        "roll": np.radians(rng.uniform(-10, 10, n)),
        "yaw": rng.uniform(-0.09, 0.09, n),
        "move": rng.uniform(-0.04, 0.04, (2, n)),
        "light": rng.uniform(-0.14, 0.14, n),
        "above": above,
        "below": above + rng.uniform(-40, 10, (n, 3)),
        "shirt": rng.uniform(30, 225, (n, 3)),
        "open": rng.uniform(0.75, 1, n),
        "gaze": rng.uniform(-0.03, 0.03, n),
    }


# Drawing: each part is painted over the parts before it


class _Portraits:
    """n pictures (n, SIDE, SIDE, 3) that are painted over, part by part, one part for all faces.

    u, v are coordinates in the picture, x, y along the head, which is moved and tilted. `front` is
    x for what lies on the front of the head and turns with it. Arrays of numbers that a face has
    are (n, 1, 1), colours (n, 3).
    """

    def __init__(self, person: Parameters, shot: Parameters):
        each = person | shot
        self.n = len(person["width"])
        self.p = {name: _column(values) for name, values in each.items() if values.ndim == 1}
        self.colours = {
            name: values.astype(np.float32)
            for name, values in each.items()
            if values.shape == (self.n, 3)
        }
        self.skin = self.colours["skin"]
        self.hair = self.colours["hair_colour"]

        middle = (ZOOM * ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1)).astype(np.float32)
        self.v, u = np.meshgrid(middle, middle, indexing="ij")
        self.across = u - _column(shot["move"][0])
        down = self.v - _column(shot["move"][1]) + 0.02
        roll = self.p["roll"]
        self.x = self.across * np.cos(roll) + down * np.sin(roll)
        self.y = down * np.cos(roll) - self.across * np.sin(roll)
        self.front = self.x - self.p["yaw"]

        height = (self.v[None, :, :, None] / ZOOM + 1) / 2
        above = self.colours["above"][:, None, None]
        below = self.colours["below"][:, None, None]
        self.pictures = above * (1 - height) + below * height

    def paint(self, depth: np.ndarray, colour: np.ndarray, strength: float = 1.0) -> None:
        """depth: of each pixel's centre inside the part's outline, below 0 outside.

        A pixel on the outline is part of both: its share is its depth in pixels, plus 1/2.
        """
        cover = (depth * (SIDE / 2) / ZOOM + 0.5).clip(0, 1)
        hit = np.nonzero(cover)
        cover = strength * cover[hit][:, None]
        colour = colour[hit[0]] if colour.ndim == 2 else colour[hit]
        self.pictures[hit] += cover * (colour - self.pictures[hit])

    def paint_behind(self) -> None:
        """What the head hides in part: long hair to the shoulders, neck, shirt, ears."""
        x, y = self.x, self.y
        width, tall = self.p["width"], self.p["height"]
        long = self.p["hair"] > 0.5
        behind = _ellipse(x, y + 0.12, width + 0.1, tall + 0.08)
        self.paint(np.where(long, np.maximum(behind, self._beside()), -1), self.hair * 0.8)
        self.paint(np.minimum(0.2 - np.abs(x), y), self.skin * 0.82)
        self.paint(_ellipse(self.across, self.v - 1.12, 0.85, 0.42), self.colours["shirt"])
        self.paint(_ellipse(x, y - 0.66, 0.2, 0.14), self.skin * 0.82)
        ears = _ellipse(np.abs(x) - width, y - 0.04, np.float32(0.09), np.float32(0.13))
        self.paint(np.where(long, -1, ears), self.skin * 0.9)

    def _beside(self) -> np.ndarray:
        """Long hair at both sides of the head."""
        wide = self.p["width"] + 0.14
        return np.minimum(_ellipse(self.x, self.y - 0.18, wide, np.float32(0.72)), 0.64 - self.y)

    def paint_head(self) -> None:
        """Narrower towards the chin, lit from one side, with red cheeks."""
        x, y = self.x, self.y
        width, tall = self.p["width"], self.p["height"]
        narrow = width * (1 - self.p["jaw"] * (y / tall).clip(0, 1) ** 2)
        face = _ellipse(x, y - 0.03, narrow, tall)
        lit = 1 + self.p["light"] * (x / width).clip(-1, 1) - 0.1 * (np.hypot(x, y) / tall) ** 2
        self.paint(face, self.skin[:, None, None] * lit[..., None])

        far = (np.abs(self.front) - 0.26) ** 2 + (y - 0.2) ** 2
        cheeks = np.exp(-far / 0.012)[..., None]
        blush = np.array([24.0, -12.0, -6.0], np.float32)
        self.pictures += 0.6 * cheeks * blush * (face > 0)[..., None]

    def paint_hair(self) -> None:
        """In front: above a line that rises from the parting to both sides."""
        x, y = self.x, self.y
        width, parting = self.p["width"], self.p["parting"]
        line = -self.p["hairline"] + 0.5 * (self.front - parting) ** 2 - 0.03
        cap = _ellipse(x, y + 0.06, width + 0.05, self.p["height"] + 0.03)
        fringe = np.minimum(cap, line - y)
        sideburns = np.minimum(cap, np.minimum(np.abs(x) - (width - 0.07), 0.02 - y))
        strands = 1 + 0.12 * np.sin(14 * (x - parting) + 6 * y) + self.p["light"] * x
        colour = self.hair[:, None, None] * strands[..., None]
        self.paint(np.maximum(fringe, sideburns), colour)
        locks = np.minimum(self._beside(), np.minimum(np.abs(x) - (width - 0.08), y + 0.3))
        self.paint(np.where(self.p["hair"] > 0.5, locks, -1), colour)

    def paint_eyes(self) -> None:
        p, y = self.p, self.y
        for side in (-1, 1):
            x = self.front - side * p["apart"]
            lid = _ellipse(x, y, p["eye"], 0.75 * p["eye"] * p["open"])
            self.paint(lid, np.full((self.n, 3), 246.0, np.float32))
            pupil = _ellipse(x - p["gaze"], y, np.float32(0.062), np.float32(0.066))
            self.paint(np.minimum(pupil, lid + 0.02), self.colours["iris"])
            self.paint(np.minimum(pupil - 0.03, lid + 0.02), self.colours["iris"] * 0.3)
            lash = np.minimum(0.02 - np.abs(lid), -y - 0.02)
            self.paint(lash, self.skin * 0.35)
            arch = y + p["brow"] + side * p["tilt"] * x + 0.8 * x**2
            brow = np.minimum(p["thick"] / 2 - np.abs(arch), 0.11 - np.abs(x))
            self.paint(brow, np.minimum(self.hair * 0.75, self.skin * 0.75))

    def paint_nose(self) -> None:
        """A shadow on the side that is away from the light, and the tip."""
        y, nose = self.y, self.p["nose"]
        away = self.front + 0.35 * self.p["light"] * (y / nose)
        bridge = np.minimum(0.035 - np.abs(away), np.minimum(y, nose - y))
        self.paint(bridge, self.skin * 0.88, 0.6)
        tip = _ellipse(self.front, y - nose, np.float32(0.075), np.float32(0.035))
        self.paint(tip, self.skin * 0.72, 0.8)

    def paint_mouth(self) -> None:
        """A bent band; a smile shows teeth below its upper edge."""
        p = self.p
        y = self.y - p["nose"] - 0.15
        curve = y - p["bend"] * (1 - (self.front / p["mouth"]) ** 2) + 0.3 * p["bend"]
        ends = p["mouth"] - np.abs(self.front)
        lips = self.skin * (1 - p["red"][:, 0] * 0.5)
        lips[:, 0] = self.skin[:, 0] * 0.85
        upper = y + 0.3 * p["bend"]
        smiles = p["smile"] > 0.5
        teeth = np.minimum(np.minimum(upper + 0.01, -curve), ends)
        self.paint(np.where(smiles, teeth, -1), np.full((self.n, 3), 250.0, np.float32))
        self.paint(np.minimum(0.035 - np.abs(curve), ends), lips * 0.8)
        top = np.minimum(0.02 - np.abs(upper), ends)
        self.paint(np.where(smiles, top, -1), lips * 0.7)

    def paint_glasses(self) -> None:
        """Two rings or boxes, a bridge between them, and arms to the ears."""
        x, y, apart = self.front, self.y, self.p["apart"]
        worn = self.p["glasses"] > 0.5
        for side in (-1, 1):
            off = np.abs(x - side * (apart + 0.01))
            ring = np.hypot(off, y) - 0.165
            box = np.maximum(off - 0.165, np.abs(y - 0.01) - 0.13)
            edge = 0.026 - np.abs(np.where(self.p["square"] > 0.5, box, ring))
            self.paint(np.where(worn, edge, -1), self.colours["frame"])
        between = np.minimum(0.022 - np.abs(y + 0.02), apart - 0.15 - np.abs(x))
        arms = np.minimum(0.02 - np.abs(y + 0.03), np.abs(x) - apart - 0.165)
        arms = np.minimum(arms, self.p["width"] + 0.02 - np.abs(self.x))
        self.paint(np.where(worn, np.maximum(between, arms), -1), self.colours["frame"])


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)[:, None, None]


def _ellipse(u: np.ndarray, v: np.ndarray, width, height) -> np.ndarray:
    """Nearly the depth in an ellipse around 0, with these half axes."""
    return (1 - np.hypot(u / width, v / height)) * np.minimum(width, height)


def _picture(person: Parameters, shot: Parameters, rng: np.random.Generator) -> Faces:
    """The faces, one for each row of the parameters."""
    portraits = _Portraits(person, shot)
    portraits.paint_behind()
    portraits.paint_head()
    portraits.paint_hair()
    portraits.paint_eyes()
    portraits.paint_nose()
    portraits.paint_mouth()
    portraits.paint_glasses()

    noise = rng.normal(scale=3, size=portraits.pictures.shape)
    pictures = (portraits.pictures + noise).round().clip(0, 255).astype(np.uint8)
    labels = np.stack([shot["glasses"], shot["smile"], person["hair"], person["colour"]], axis=1)
    return Faces(pictures, labels.astype(np.int64))


# Real faces


def squared(picture: "Image.Image", box: tuple[float, float, float, float] | None = None):
    """The square in the middle (or `box`), SIDE pixels wide: (SIDE, SIDE, 3) uint8."""
    from PIL import Image

    if box is None:
        side = min(picture.size)
        left = (picture.width - side) / 2
        top = (picture.height - side) / 2
        box = (left, top, left + side, top + side)
    if "A" in picture.getbands() or "transparency" in picture.info:
        # what is transparent gets a white ground, not whatever colour hides there
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, box))


def read_folder(folder: Path, limit: int = 20_000) -> np.ndarray:
    """The pictures in a folder and the folders in it, in the order of their names, at most `limit`.

    What cannot be read as a picture is left out, counted, and the first of it named.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    pictures = []
    broken = []
    for path in paths:
        if len(pictures) == limit:
            break
        try:
            opened = open_picture(path, str(path), formats=FORMATS, max_pixels=50_000_000)
            pictures.append(squared(opened))
        except LessonError as error:
            broken.append(str(error))
    if broken:
        print(f"  left out: {len(broken)} of {len(paths)} files, first: {broken[0]}")
    if not pictures:
        raise LessonError(
            f"{folder} holds no picture that can be read. "
            f"It takes files whose names end with {', '.join(ENDINGS)}."
        )
    current().use_data(folder.name, f"{len(pictures):,} pictures of {folder}")
    return np.stack(pictures)


def _read_olivetti(cfg: LessonConfig) -> np.ndarray:
    """400 grey pictures of 40 people: 112 x 92 as they were taken, or scikit-learn's 64 x 64."""
    from PIL import Image

    path = find(OLIVETTI_SOURCE, cfg.data_dir)
    try:
        with np.load(path, allow_pickle=False) as file:
            x = file["x"]
    except Exception as error:  # a damaged archive fails in a dozen ways
        raise damaged(OLIVETTI_SOURCE, path, f"{type(error).__name__}: {error}") from None
    if x.dtype != np.uint8 or x.shape not in ((400, 112, 92), (400, 64, 64)):
        raise damaged(OLIVETTI_SOURCE, path, f"x holds {x.dtype} of shape {x.shape}")
    current().use_data("olivetti", path)
    return np.stack([squared(Image.fromarray(picture)) for picture in x])


def _convert_olivetti(parts: Sequence[Path], target: Path) -> None:
    """By scikit-learn, which downloads the file from its mirror and compares its SHA-256."""
    from sklearn.datasets import fetch_olivetti_faces

    with tempfile.TemporaryDirectory() as folder:
        try:
            faces = fetch_olivetti_faces(data_home=folder)
        except (OSError, ValueError) as error:
            raise LessonError(
                f"olivetti could not be downloaded ({' '.join(str(error).split())[:200]}). The "
                "project runs without it when you leave --data out. If you have "
                f"{OLIVETTI_SOURCE.file}, give its folder with --data-dir."
            ) from None
    with open(target, "wb") as file:
        x = (faces.images * 255).round().astype(np.uint8)
        np.savez(file, x=x, person=faces.target, shot=np.tile(np.arange(1, 11), 40))


def _read_celeba(cfg: LessonConfig) -> np.ndarray:
    """The archive itself may lie in --data-dir or COURSE_DATA; it is read where it is."""
    archive = CELEBA_SOURCE.parts[0].file
    for folder in data_folders(cfg.data_dir):
        if local_path(CELEBA_SOURCE, cfg.data_dir) is None and (folder / archive).exists():
            try:
                x = _celeba_pictures(folder / archive, 400 if cfg.tiny else CELEBA)
            except Exception as error:  # as above
                why = f"{type(error).__name__}: {error}"
                raise damaged(CELEBA_SOURCE, folder / archive, why) from None
            current().use_data("celeba", folder / archive)
            return x

    path = find(CELEBA_SOURCE, cfg.data_dir)
    try:
        with np.load(path, allow_pickle=False) as file:
            x = file["x"]
    except Exception as error:  # as above
        raise damaged(CELEBA_SOURCE, path, f"{type(error).__name__}: {error}") from None
    if x.dtype != np.uint8 or x.shape != (CELEBA, SIDE, SIDE, 3):
        raise damaged(CELEBA_SOURCE, path, f"x holds {x.dtype} of shape {x.shape}")
    current().use_data("celeba", path)
    return x


def _celeba_pictures(path: Path, limit: int) -> np.ndarray:
    """The first pictures of img_align_celeba.zip, 178 x 218 each, cut around the face."""
    pictures = []
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        if len(names) < limit:
            raise ValueError(f"{len(names)} pictures, and {limit} are taken")
        for name in names[:limit]:
            with archive.open(name) as member:
                picture = open_picture(member, name, formats=("JPEG",))
                pictures.append(squared(picture, box=(25, 55, 153, 183)))
    return np.stack(pictures)


def _convert_celeba(parts: Sequence[Path], target: Path) -> None:
    pictures = _celeba_pictures(parts[0], CELEBA)
    with open(target, "wb") as file:
        np.savez(file, x=pictures)


ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
CELEBA = 20_000  # of its 202,599 photographs, the first ones
OLIVETTI_SOURCE = Source(
    "olivetti",
    "orl_faces.npz",
    (),  # scikit-learn brings it
    _convert_olivetti,
    "400 faces of 40 people, grey (AT&T Laboratories Cambridge)",
)
CELEBA_SOURCE = Source(
    "celeba",
    "celeba.npz",
    (
        # for research that is not commercial; address and hash as in torchvision
        Part(
            "img_align_celeba.zip",
            "md5:00d2c5bc6d35e252742224ab0c1e8fcb",
            1443490838,
            (
                "https://drive.usercontent.google.com/download"
                "?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM&export=download&confirm=t",
            ),
        ),
    ),
    _convert_celeba,
    "photographs of famous people, 20,000 of them at 32 x 32",
)

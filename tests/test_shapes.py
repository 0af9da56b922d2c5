"""Drawn shapes: the recipe is kept, nothing gives the class away, and the sets are difficult."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from common import record
from common.config import LessonConfig
from common.data.batches import Batches
from common.data.images import load_images
from common.data.shapes import COLOURS, KINDS, RECIPES, SIZES, TINY, Recipe, Scenes, draw
from common.data.shapes import _polygons as polygons
from common.data.shapes import load_shapes as load

N = 600
DRAWN = {name: draw(N, recipe, 7) for name, recipe in RECIPES.items()}
SINGLE = ("shapes", "shapes-hard")
each_set = pytest.mark.parametrize("name", RECIPES)
each_single = pytest.mark.parametrize("name", SINGLE)


def objects(data: Scenes) -> list[tuple[int, int]]:
    """(picture, number) of every object."""
    return [(int(i), int(k)) for i, k in zip(*np.nonzero(data.labels >= 0))]


def sides(data: Scenes) -> np.ndarray:
    """(objects, 2): width and height of every box, in pixels."""
    boxes = data.boxes[data.labels >= 0]
    return boxes[:, 2:] - boxes[:, :2]


def ground_colour(data: Scenes) -> np.ndarray:
    """(n, 3)"""
    return np.array([x[owner < 0].mean(axis=0) for x, owner in zip(data.x, data.owner)])


# ---- the recipe


@each_set
def test_shapes_types_and_values(name):
    data, recipe = DRAWN[name], RECIPES[name]
    most = recipe.most
    assert data.x.shape == (N, recipe.side, recipe.side, 3) and data.x.dtype == np.uint8
    assert data.labels.shape == data.colours.shape == (N, most) and len(data) == N
    assert data.boxes.shape == (N, most, 4) and data.owner.shape == data.x.shape[:3]
    assert data.labels.dtype == data.colours.dtype == data.boxes.dtype == np.int64
    there = data.labels >= 0
    assert np.array_equal(there, data.colours >= 0)
    # the present ones come first
    assert np.array_equal(there, np.arange(most) < there.sum(axis=1)[:, None])
    assert (data.boxes[~there] == 0).all()


@each_set
def test_objects_kinds_and_colours_are_equally_frequent(name):
    data, recipe = DRAWN[name], RECIPES[name]
    there = data.labels >= 0
    kinds = np.bincount(data.labels[there], minlength=10)
    if recipe.most == 1:
        assert (kinds == N / 10).all()
    else:
        assert (kinds[recipe.kinds :] == 0).all()
        assert kinds[: recipe.kinds].min() > 0.85 * kinds[: recipe.kinds].max()
        counts = np.bincount(there.sum(axis=1), minlength=recipe.most + 1)
        assert counts[0] == 0 and counts[1:].min() > 0.8 * counts.max()
    colours = np.bincount(data.colours[there])
    assert len(colours) == len(COLOURS) and colours.min() > 0.7 * colours.max()


@each_set
def test_sizes_and_places(name):
    data, recipe = DRAWN[name], RECIPES[name]
    boxes = data.boxes[data.labels >= 0]
    assert boxes.min() == 1 and boxes.max() == recipe.side - 1
    longer = sides(data).max(axis=1) / recipe.side
    smallest, largest = recipe.size
    pixel = 1.01 / recipe.side
    assert longer.max() <= largest + pixel and longer.max() > 0.97 * largest
    if not recipe.hidden:
        # the last pixel of a thin tip is mostly ground, at both ends
        assert longer.min() >= smallest - 2 * pixel
        assert np.mean(longer) == pytest.approx((smallest + largest) / 2, abs=pixel)


@each_single
def test_a_box_covers_about_14_percent(name):
    share = sides(DRAWN[name]).prod(axis=1) / 32**2
    assert 0.13 < share.mean() < 0.15
    assert share.min() > 0.04 and share.max() < 0.26


def test_hard_scenes_have_sizes_of_one_to_three():
    smallest, largest = RECIPES["scenes-hard"].size
    assert largest / smallest == pytest.approx(3)


@each_single
def test_colours_are_well_apart_and_noise_is_as_told(name):
    data, ground = DRAWN[name], ground_colour(DRAWN[name])
    table = np.array(list(COLOURS.values()))
    noise = []
    for i, (x, owner) in enumerate(zip(data.x, data.owner)):
        deep = ndimage.binary_erosion(owner == 0, iterations=2)
        if deep.sum() > 20:
            seen = x[deep].mean(axis=0)
            wanted = table[data.colours[i, 0]]
            assert (
                np.abs(seen - wanted).max() < 15 + 3 * RECIPES[name].noise / deep.sum() ** 0.5 + 4
            )
            assert np.linalg.norm(seen - ground[i]) > 60
        far = x[ndimage.binary_dilation(owner == 0, iterations=2) == 0].astype(float)
        if ground[i].min() > 60 and ground[i].max() < 195:
            noise.append(far.std(axis=0).mean())
    assert np.mean(noise) == pytest.approx(RECIPES[name].noise, rel=0.02)
    assert ground.min() > 15 and ground.max() < 240
    assert np.ptp(ground, axis=1).max() < 45


def test_tilts_are_within_15_degrees_or_any():
    for name in SINGLE:
        data = DRAWN[name]
        angles = []
        for i in np.flatnonzero(data.labels[:, 0] == KINDS.index("arrow")):
            rows, columns = np.nonzero(data.owner[i] == 0)
            # the long axis of an arrow, as an angle to the vertical
            _, vectors = np.linalg.eigh(np.cov(columns, rows))
            across, down = vectors[:, 1]
            angles.append(np.degrees(np.arctan2(abs(across), abs(down))))
        largest = max(angles)
        assert largest > 80 if name == "shapes-hard" else 10 < largest < 24


# ---- what is known about a picture is so


@each_set
def test_boxes_are_tight_around_masks(name):
    data = DRAWN[name]
    for i, k in objects(data):
        rows, columns = np.nonzero(data.owner[i] == k)
        wanted = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert tuple(data.boxes[i, k]) == wanted
    assert data.owner.max() == RECIPES[name].most - 1 and data.owner.min() == -1
    assert not (data.owner >= (data.labels >= 0).sum(axis=1)[:, None, None]).any()


def test_the_mask_of_a_kind_has_the_area_of_its_outline():
    upright = draw(100, Recipe(96, size=(0.9, 0.9), tilt=0.0), 2)
    for number, name in enumerate(KINDS):
        outline = sum(
            abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 * (-1) ** hole
            for hole, (x, y) in enumerate(loop.T for loop in polygons()[name])
        )
        scale = 0.9 * 96 / np.ptp(polygons()[name][0], axis=0).max()
        for i in np.flatnonzero(upright.labels[:, 0] == number):
            assert (upright.owner[i] == 0).sum() / scale**2 == pytest.approx(outline, rel=0.02)


def test_masks_show_what_is_painted():
    """Without noise a pixel within a mask has the object's colour, one outside the ground's."""
    data = draw(200, replace(RECIPES["scenes"], noise=0.0), 3)
    for i, k in objects(data):
        mask = data.owner[i] == k
        inner = ndimage.binary_erosion(mask, iterations=2)
        if inner.any():
            assert np.ptp(data.x[i][inner].astype(int), axis=0).max() <= 1
    for x, owner in zip(data.x, data.owner):
        # the end of a thin tip covers no pixel by half
        far = ~ndimage.binary_dilation(owner >= 0, iterations=5)
        assert np.ptp(x[far].astype(int), axis=0).max() <= 1


def test_plain_scenes_keep_objects_apart():
    data = DRAWN["scenes"]
    for owner in data.owner:
        for k in range(owner.max() + 1):
            around = ndimage.binary_dilation(owner == k, iterations=2)
            assert not (owner[around] > k).any()


def test_hard_scenes_overlap_and_leave_half_of_each_object():
    """Circles of one size, so that the whole area is known."""
    recipe = replace(RECIPES["scenes-hard"], kinds=1, size=(0.4, 0.4))
    data = draw(300, recipe, 4)
    whole = np.pi / 4 * (0.4 * 96) ** 2
    shown = np.array([(data.owner[i] == k).sum() / whole for i, k in objects(data)])
    assert 0.49 < shown.min() < 0.55 and shown.max() < 1.02
    assert 0.2 < np.mean(shown < 0.97) < 0.8


def test_captions_name_the_objects_from_left_to_right():
    data = DRAWN["scenes"]
    captions = data.captions()
    names = list(COLOURS)
    for i, caption in enumerate(captions):
        words = caption.replace(" and ", ", ").split(", ")
        order = np.argsort(data.boxes[i, : len(words), 0], kind="stable")
        wanted = [f"a {names[data.colours[i, k]]} {KINDS[data.labels[i, k]]}" for k in order]
        assert words == wanted and caption.count(" and ") == (len(words) > 1)
    assert {caption.count(" a ") for caption in captions} == {0, 1, 2}
    single = DRAWN["shapes"].captions()
    assert len(set(single)) == len(KINDS) * len(COLOURS) and not any(" and " in c for c in single)


@each_set
def test_class_map(name):
    data = DRAWN[name]
    found = data.class_map()
    wanted = np.zeros_like(found)
    for i, k in objects(data):
        wanted[i][data.owner[i] == k] = 1 + data.labels[i, k]
    assert found.dtype == np.int64 and np.array_equal(found, wanted)


# ---- seeds and parts


@each_set
def test_a_seed_gives_the_same_pictures_and_more_of_them_begin_with_the_same(name):
    recipe = RECIPES[name]
    first, again, fewer = (draw(n, recipe, 7) for n in (130, 130, 110))
    other = draw(130, recipe, 8)
    for part in ("x", "labels", "colours", "boxes", "owner"):
        assert np.array_equal(getattr(first, part), getattr(again, part))
        assert np.array_equal(getattr(first, part)[:110], getattr(fewer, part))
        assert not np.array_equal(getattr(first, part), getattr(other, part))
    assert len(np.unique(first.x.reshape(130, -1), axis=0)) == 130


def test_loaded_sets_have_three_parts_of_their_own(capsys):
    sizes = (110, 40, 50)
    data, again, other = (load(LessonConfig(), "scenes", seed, sizes) for seed in (0, 0, 1))
    assert data.classes == KINDS[:5] and data.name == "scenes"
    parts = [data.train, data.val, data._test]
    assert [len(part) for part in parts] == list(sizes)
    pictures = np.concatenate([part.x for part in parts]).reshape(sum(sizes), -1)
    assert len(np.unique(pictures, axis=0)) == sum(sizes)
    assert np.array_equal(data.val.x, again.val.x) and not np.array_equal(data.val.x, other.val.x)
    assert "data: scenes (200 pictures drawn with seed 0)" in capsys.readouterr().out
    tiny = load(LessonConfig(tiny=True))
    assert [len(part) for part in (tiny.train, tiny.val, tiny._test)] == list(TINY)
    assert tiny.classes == KINDS


def test_reads_of_the_test_part_are_counted():
    record.start(tiny=True)
    data = load(LessonConfig(tiny=True))
    assert record.current().test_reads == 0
    assert len(data.test()) == 100 and record.current().test_reads == 1
    load(LessonConfig(tiny=True)).test()
    assert record.current().test_reads == 2
    # the same pictures by the other door
    load_images(LessonConfig(tiny=True), "shapes").test()
    assert record.current().test_reads == 3


@each_single
def test_load_images_gives_the_same_pictures(name):
    images = load_images(LessonConfig(tiny=True), name, split_seed=3)
    shapes = load(LessonConfig(tiny=True), name, split_seed=3)
    assert np.array_equal(images.x_train, shapes.train.x)
    assert np.array_equal(images.y_val, shapes.val.labels[:, 0])
    assert np.array_equal(images.test()[0], shapes._test.x) and images.brightest == 255
    assert images.classes == KINDS and images.y_train.shape == (300,)


def test_load_images_draws_ten_thousand_within_seconds():
    start = time.process_time()
    images = load_images(LessonConfig(), "shapes")
    assert time.process_time() - start < 6
    assert (len(images.x_train), len(images.x_val), len(images.test()[0])) == SIZES


# ---- how difficult


@pytest.mark.full
@each_single
def test_place_colour_and_size_do_not_give_the_class_away(name):
    """Nor does the ground's colour. A forest knows no more from all of them than chance."""

    def told(data: Scenes) -> np.ndarray:
        boxes = data.boxes[:, 0]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        return np.column_stack([middle, sides(data).max(axis=1), data.colours, ground_colour(data)])

    train, test = draw(4000, RECIPES[name], 11), draw(1000, RECIPES[name], 12)
    forest = RandomForestClassifier(50, min_samples_leaf=20, random_state=0)
    forest.fit(told(train), train.labels[:, 0])
    assert forest.score(told(test), test.labels[:, 0]) < 0.15


@pytest.mark.full
@each_single
def test_majority_linear_model_and_nearest_neighbour_stay_far_below_a_network(name):
    train, test = draw(3000, RECIPES[name], 21), draw(1000, RECIPES[name], 22)
    pixels, new_pixels = (
        part.x.reshape(len(part), -1).astype(np.float32) / 255 for part in (train, test)
    )
    y, new_y = train.labels[:, 0], test.labels[:, 0]
    assert np.bincount(new_y).max() / 1000 == 0.1
    linear = RidgeClassifier(alpha=1000.0).fit(pixels, y).score(new_pixels, new_y)
    nearest = KNeighborsClassifier(1).fit(pixels, y).score(new_pixels, new_y)
    print(f"{name}: linear {linear:.3f}, nearest neighbour {nearest:.3f}")
    assert linear < 0.2 and nearest < 0.3


def network(width: int) -> nn.Sequential:
    """Four convolutions."""
    layers = []
    channels = 3
    for wider in (width, 2 * width, 2 * width, 2 * width):
        layers += [nn.Conv2d(channels, wider, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(wider), nn.ReLU(), nn.MaxPool2d(2)]
        channels = wider
    layers[-1] = nn.AdaptiveMaxPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, len(KINDS)))


@pytest.mark.full
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_four_convolutions_reach_95_percent_within_20_seconds(seed):
    train, test = draw(6000, RECIPES["shapes"], (seed, 0)), draw(1000, RECIPES["shapes"], (seed, 2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    torch.manual_seed(seed)
    model = network(16).to(memory_format=torch.channels_last)
    x, new_x = (torch.tensor(part.x).permute(0, 3, 1, 2) / 64 - 2 for part in (train, test))
    batches = Batches(x, torch.tensor(train.labels[:, 0]), batch_size=100, shuffle=True, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=4 * len(batches))
    for _ in range(4):
        for pictures, labels in batches:
            loss = F.cross_entropy(model(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        predicted = model(new_x).argmax(dim=1).numpy()
    seconds = time.process_time() - start
    torch.set_num_threads(threads)
    accuracy = (predicted == test.labels[:, 0]).mean()
    print(f"seed {seed}: accuracy {accuracy} in {seconds:.1f} CPU-seconds")
    assert accuracy >= 0.95 and seconds < 20


def found_by_threshold(x: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Box and mask of every connected patch of strong colour in a picture."""
    smooth = ndimage.uniform_filter(x.astype(float), size=(3, 3, 1))
    patches, _ = ndimage.label(np.ptp(smooth, axis=2) > 80)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(patches), 1):
        mask = patches[rows, columns] == number
        if mask.sum() >= 60:
            box = np.array([columns.start, rows.start, columns.stop, rows.stop])
            found.append((box, mask))
    return found


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def mean_ap50(found: list[tuple], data: Scenes, kinds: int) -> float:
    """found: (picture, box, kind, score). Mean over kinds of the area under precision-recall."""
    areas = []
    for kind in range(kinds):
        wanted = [(i, k) for i, k in objects(data) if data.labels[i, k] == kind]
        mine = sorted((each for each in found if each[2] == kind), key=lambda each: -each[3])
        taken, hits = set(), []
        for i, box, _, _ in mine:
            near = [(overlap(box, data.boxes[i, k]), k) for j, k in wanted if j == i]
            best, k = max((pair for pair in near if (i, pair[1]) not in taken), default=(0, -1))
            hits.append(best >= 0.5)
            if best >= 0.5:
                taken.add((i, k))
        recall = np.cumsum(hits) / len(wanted)
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        areas.append(np.sum(np.diff(recall, prepend=0) * highest))
    return float(np.mean(areas))


@pytest.mark.full
@pytest.mark.parametrize("name, most", [("scenes", 0.7), ("scenes-hard", 0.4)])
def test_threshold_and_connected_components_on_scenes(name, most):
    """Every patch is named by how much of its box it fills, as the kinds do on average."""
    recipe = RECIPES[name]
    train, test = draw(200, recipe, 31), draw(200, recipe, 32)
    fills = {kind: [] for kind in range(recipe.kinds)}
    for i, k in objects(train):
        area = np.prod(train.boxes[i, k, 2:] - train.boxes[i, k, :2])
        fills[train.labels[i, k]].append((train.owner[i] == k).sum() / area)
    means = np.array([np.mean(fills[kind]) for kind in fills])
    found = []
    for i, x in enumerate(test.x):
        for box, mask in found_by_threshold(x):
            kind = int(np.argmin(np.abs(means - mask.mean())))
            found.append((i, box, kind, mask.sum()))
    score = mean_ap50(found, test, recipe.kinds)
    print(f"{name}: threshold and components, mAP50 {score:.3f}")
    assert score < most
    # On plain scenes the boxes are no difficulty, the names are; on hard ones both are.
    boxes = [(i, box, 0, size) for i, box, _, size in found]
    nameless = replace(test, labels=np.minimum(test.labels, 0))
    anywhere = mean_ap50(boxes, nameless, 1)
    assert anywhere > 0.95 if name == "scenes" else anywhere < 0.6

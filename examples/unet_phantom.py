"""Find lesions in images that look like CT slices: a small U-Net, trained on phantoms.

A phantom is a body of ellipses (fat, muscle, spine, two kidneys, gas, a liver) with one to three lesions in the liver
that are 50 to 90 Hounsfield units brighter than it, and vessels as bright as they, in it and around it. Then come the
scanner's faults: blur, a bias field, noise. Needs NumPy only, and matplotlib for ``--plot FILE``, a picture of images,
truth and predictions.
"""

import argparse
import time

import numpy as np

import fastnn
from fastnn.applications import UNet
from fastnn.losses import BinaryCrossentropy, Dice
from fastnn.metrics import DiceScore
from fastnn.optimizers import Adam
from fastnn.schedules import CosineDecay

SIZE = 64
TRAINING, UNSEEN, EPOCHS, BATCH = 400, 100, 8, 8

parser = argparse.ArgumentParser(description="Train a U-Net to find lesions in phantoms.")
parser.add_argument("--seed", type=int, default=0, help="of the phantoms, the weights and the order (default 0)")
parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"how long to train (default {EPOCHS})")
parser.add_argument("--plot", metavar="FILE", help="write a PNG with images, truth and predictions")
options = parser.parse_args()

places = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1  # -1 to 1
ROWS, COLUMNS = np.meshgrid(places, places, indexing="ij")


def ellipse(y, x, height, width, angle=0.0):
    """The pixels in an ellipse: centre and half axes as parts of half the image, angle in radians."""
    down, right = ROWS - y, COLUMNS - x
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    return (along / width) ** 2 + (across / height) ** 2 <= 1


def blurred(image, sigma):
    """The image after a Gaussian of ``sigma`` pixels, along columns, then along rows."""
    reach = int(np.ceil(3 * sigma))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    window /= window.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        image = np.lib.stride_tricks.sliding_window_view(padded, len(window), axis) @ window
    return image


def phantom(rng):
    """An image (SIZE, SIZE) and the mask of its lesions, in Hounsfield units before the window."""
    near = rng.normal
    shift = near(0, 0.03, 2)
    image = np.full((SIZE, SIZE), -1000.0)
    body = ellipse(*shift, near(0.78, 0.04), near(0.9, 0.03))
    image[body] = -90  # fat
    inside = ellipse(*shift, near(0.66, 0.03), near(0.78, 0.03))
    image[inside] = near(45, 5)
    image[ellipse(shift[0] + 0.48, shift[1], 0.16, 0.14)] = near(320, 40)  # the spine
    for side in (-1, 1):
        kidney = ellipse(shift[0] + 0.22, shift[1] + side * near(0.48, 0.03), 0.2, 0.11, near(0, 0.3))
        image[kidney] = near(120, 10)
    for _ in range(rng.integers(2, 5)):  # gas
        y, x = shift[0] - rng.uniform(0.1, 0.35), shift[1] + rng.uniform(0.2, 0.55)
        image[ellipse(y, x, 0.07, rng.uniform(0.05, 0.14))] = -600
    tissue = near(70, 6)
    y, x, angle = shift[0] - 0.12 + near(0, 0.03), shift[1] - 0.32 + near(0, 0.03), near(0, 0.25)
    height, width = near(0.38, 0.03), near(0.36, 0.03)
    liver = ellipse(y, x, height, width, angle)
    image[liver] = tissue
    contrast = rng.uniform(50, 90)
    for _ in range(rng.integers(3, 7)):  # vessels, in the liver and beside it: as bright as lesions, but thin
        vessel = ellipse(
            y + near(0, 0.25), x + near(0.1, 0.3), rng.uniform(0.02, 0.035), rng.uniform(0.1, 0.25), rng.uniform(0, 3.2)
        )
        image[vessel & inside] = tissue + contrast
    mask = np.zeros((SIZE, SIZE), bool)
    for _ in range(rng.integers(1, 4)):
        distance, turn = 0.6 * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        mask |= ellipse(
            y + height * distance * np.sin(turn),
            x + width * distance * np.cos(turn),
            rng.uniform(0.09, 0.17),
            rng.uniform(0.09, 0.17),
            rng.uniform(0, 3.2),
        )
    mask &= liver
    image[mask] = tissue + contrast
    image = blurred(image, rng.uniform(0.6, 1.0))
    slope = rng.normal(0, 12, 3)
    image += slope[0] * ROWS + slope[1] * COLUMNS + slope[2] * ROWS * COLUMNS  # the bias field
    return image + rng.normal(0, 15, image.shape), mask


def phantoms(number, seed):
    """Images (N, SIZE, SIZE, 1), a window of -150 to 250 HU scaled to 0 .. 1, and masks of the same shape."""
    rng = np.random.default_rng(seed)
    images, masks = zip(*(phantom(rng) for _ in range(number)), strict=True)
    x = np.clip((np.stack(images) + 150) / 400, 0, 1)
    return x[..., None].astype(np.float32), np.stack(masks)[..., None].astype(np.float32)


def plot(images, truth, predictions, path):
    """Draw images, their masks and what was predicted side by side, a phantom a row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.45 * len(images)))
    panels = figure.subplots(len(images), 3)
    for row, (image, mask, found) in enumerate(zip(images, truth, predictions, strict=True)):
        for axes, title, shown in zip(panels[row], ("image", "truth", "prediction"), (None, mask, found), strict=True):
            axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
            if shown is not None:
                axes.imshow(np.ma.masked_less(shown[..., 0], 0.5), cmap="autumn", vmin=0, vmax=1, alpha=0.6)
            axes.axis("off")
            if row == 0:
                axes.set_title(title)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.96, 0.02, 0.02)
    figure.savefig(path, dpi=120)


fastnn.set_seed(options.seed)

x_train, y_train = phantoms(TRAINING, [options.seed, 1])
x_test, y_test = phantoms(UNSEEN, [options.seed, 2])

model = UNet((SIZE, SIZE, 1), classes=1, base_filters=16, depth=3, batch_norm=True)
steps = options.epochs * -(-TRAINING // BATCH)
model.compile(Adam(CosineDecay(0.003, steps)), loss=BinaryCrossentropy() + Dice(smooth=1.0), metrics=[DiceScore()])
start = time.perf_counter()
model.fit(x_train, y_train, epochs=options.epochs, batch_size=BATCH, verbose=2)
seconds = time.perf_counter() - start

predictions = model.predict(x_test, verbose=0)
print(f"{options.epochs} epochs on {TRAINING} phantoms in {seconds:.1f} s, {model.count_params():,} weights")
print(f"on {UNSEEN} unseen phantoms, {int(y_test.sum())} pixels of lesions:")
print(f"Dice: {DiceScore()(y_test, predictions):.4f}")
if options.plot:
    chosen = np.argsort(y_test.sum(axis=(1, 2, 3)))[[-1, -UNSEEN // 4, -UNSEEN // 2, UNSEEN // 8]]  # large and small
    plot(x_test[chosen], y_test[chosen], predictions[chosen], options.plot)
    print(f"images, truth and predictions: {options.plot}")

"""Read handwritten digits of 8 x 8 pixels with a small convolutional network: a Keras script whose imports say fastnn.

Data: the digits that scikit-learn carries. Needs scikit-learn, and matplotlib for ``--plot FILE``, a picture of the
first layer's filters and of what they make of a few digits.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastnn
from fastnn.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    RandomTranslation,
)
from fastnn.models import Sequential
from fastnn.optimizers import Adam
from fastnn.schedules import CosineDecay

EPOCHS, BATCH = 30, 32

parser = argparse.ArgumentParser(description="Train a small convolutional network on handwritten digits.")
parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (default 0)")
parser.add_argument("--plot", metavar="FILE", help="write a PNG with filters and feature maps")
options = parser.parse_args()


def plot(model, digits, path):
    """Draw filters of the first convolution, and under each what it makes of a few digits, (N, 8, 8, 1)."""
    from matplotlib.figure import Figure

    filters = model.layers[1].get_weights()[0][:, :, 0, :]  # (3, 3, F)
    maps = digits
    for layer in model.layers[:4]:  # up to the first activation: layers take arrays as well
        maps = layer(maps)
    shown = np.argsort(-maps.std(axis=(0, 1, 2)))[:16]  # those that tell most apart
    figure = Figure(figsize=(0.55 * (len(shown) + 1), 0.55 * (len(digits) + 1)))
    panels = figure.subplots(len(digits) + 1, len(shown) + 1)
    reach = np.abs(filters).max()
    for axes in panels.flat:
        axes.axis("off")
    panels[0, 0].text(0.5, 0.5, "filters", ha="center", va="center", fontsize=7, transform=panels[0, 0].transAxes)
    for column, k in enumerate(shown, start=1):
        panels[0, column].imshow(filters[:, :, k], cmap="RdBu_r", vmin=-reach, vmax=reach)
        for row, image in enumerate(maps[..., k], start=1):
            panels[row, column].imshow(image, cmap="gray", vmin=0, vmax=maps[..., k].max())
    for row, image in enumerate(digits[..., 0], start=1):
        panels[row, 0].imshow(image, cmap="gray_r")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99, 0.06, 0.06)
    figure.savefig(path, dpi=150)


fastnn.set_seed(options.seed)

data = load_digits()
x = (data.images[..., np.newaxis] / 16).astype(np.float32)  # (1797, 8, 8, 1), from 0 to 1
x_train, x_test, y_train, y_test = train_test_split(
    x, data.target, test_size=0.2, stratify=data.target, random_state=options.seed
)

model = Sequential(
    [
        RandomTranslation(0.1, 0.1, fill_mode="constant", input_shape=(8, 8, 1)),  # in training only
        Conv2D(32, 3, padding="same", use_bias=False),
        BatchNormalization(momentum=0.9),
        Activation("relu"),
        Conv2D(32, 3, padding="same", use_bias=False),
        BatchNormalization(momentum=0.9),
        Activation("relu"),
        MaxPooling2D(),
        Conv2D(64, 3, padding="same", use_bias=False),
        BatchNormalization(momentum=0.9),
        Activation("relu"),
        MaxPooling2D(),
        Flatten(),
        Dropout(0.3),
        Dense(10, activation="softmax"),
    ]
)
steps = EPOCHS * -(-len(x_train) // BATCH)
model.compile(Adam(CosineDecay(0.003, steps)), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
start = time.perf_counter()
model.fit(x_train, y_train, epochs=EPOCHS, batch_size=BATCH, verbose=2)
seconds = time.perf_counter() - start

digits = model.predict(x_test).argmax(axis=1)
accuracy = np.mean(digits == y_test)
print(f"{EPOCHS} epochs on {len(x_train)} digits in {seconds:.1f} s")
print(f"on {len(y_test)} held-out digits: {np.sum(digits != y_test)} wrong")
print(f"accuracy: {accuracy:.4f}")
if options.plot:
    plot(model, x_test[[np.flatnonzero(y_test == digit)[0] for digit in range(10)]], options.plot)
    print(f"filters and feature maps: {options.plot}")

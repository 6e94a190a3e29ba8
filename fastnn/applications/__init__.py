"""Networks of the literature, ready to be trained or given trained weights.

    model = fastnn.applications.UNet((128, 128, 1), classes=1)

All take ``input_shape`` (without the batch; channels last), ``classes``, ``classifier_activation`` (None for logits)
and ``name``, and return a Model with fresh weights. ``load_torch`` and ``load_keras`` fill them, or those of any model,
from a PyTorch or Keras model of the same architecture.
"""

from fastnn.applications.alexnet import AlexNet
from fastnn.applications.googlenet import GoogLeNet
from fastnn.applications.keras_weights import load_keras
from fastnn.applications.lenet import LeNet5
from fastnn.applications.resnet import ResNet18, ResNet34
from fastnn.applications.unet import UNet
from fastnn.applications.vgg import VGG11, VGG13, VGG16, VGG19
from fastnn.applications.weights import load_torch

__all__ = [
    "VGG11",
    "VGG13",
    "VGG16",
    "VGG19",
    "AlexNet",
    "GoogLeNet",
    "LeNet5",
    "ResNet18",
    "ResNet34",
    "UNet",
    "load_keras",
    "load_torch",
]

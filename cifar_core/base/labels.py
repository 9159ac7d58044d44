"""Classes and image shape of CIFAR-10.

Source of names and order: https://www.cs.toronto.edu/~kriz/cifar.html (`batches.meta`).
"""

CLASS_NAMES: tuple[str, ...] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Names of the classes, in the order of the labels 0..9."""
NUM_CLASSES = len(CLASS_NAMES)
IMAGE_SHAPE = (32, 32, 3)
"""Rows, columns and channels (red, green, blue) of an image."""

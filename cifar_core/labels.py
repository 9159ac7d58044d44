"""The ten classes of CIFAR-10, and the colours and dashes by which people know things.

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
NUM_CLASSES = len(CLASS_NAMES)
IMAGE_SHAPE = (32, 32, 3)

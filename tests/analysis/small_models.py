"""Every model of the registry, as small as its hyperparameters allow."""

SMALL = {
    "base_cnn": {},
    "alexnet": {"units_dense1": 16, "units_dense2": 16},
    "resnet18": {"width": 4},
    "mobilenet": {"width": 0.1},
    "resnet9": {"width": 4},
    "airbench": {"width": 0.1},
    "wrn28_10": {"depth": 10, "width": 1},
    "pyramidnet": {"depth": 8, "widening": 3},
    "efficientnet_b0": {"width": 0.1},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
    "transfer": {"image_side": 64},
}

"""Every setting written once: training and search settings, presets, and how to compute."""

"""A trained network at work: predictions, images from anywhere, export to other formats."""

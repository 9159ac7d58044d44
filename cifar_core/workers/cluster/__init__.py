"""Runs and searches on several machines, by Ray: `cifar-lab cluster` (docs/cluster.md).

Ray is imported inside functions only, and never in the app's process; `status` is what pages read.
"""

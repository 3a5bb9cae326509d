"""Layers that several models share, under the parameter names of the published checkpoints."""

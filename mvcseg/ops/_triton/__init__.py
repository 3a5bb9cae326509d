"""Triton functions, imported at their first use only: Triton is not there everywhere."""

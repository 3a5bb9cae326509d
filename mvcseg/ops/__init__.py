"""Stateless tensor operations: no parameters, the device and dtype of their input."""

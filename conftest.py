"""What pytest leaves out of the package's doctests: kernels where Triton is missing, which they import."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["mvcseg/ops/_triton/*"]

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, socket, sys, time
def refuse(*args, **kwargs): raise AssertionError("import mvcseg opened a connection")
start = time.perf_counter(); import torch; base = time.perf_counter() - start
socket.socket.connect = refuse; socket.getaddrinfo = refuse
before = set(sys.modules)
start = time.perf_counter(); import mvcseg; ours = time.perf_counter() - start
print(json.dumps({"seconds": ours, "modules": sorted({name.split(".")[0] for name in set(sys.modules) - before}),
                  "cuda": torch.cuda.is_initialized()}))
"""


def import_freshly() -> dict[str, object]:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded: dict[str, object] = json.loads(result.stdout)
    return loaded


def test_importing_loads_no_heavy_package_no_gpu_and_no_network() -> None:
    loaded = import_freshly()
    heavy = {"cv2", "skimage", "scipy", "timm", "torchvision", "av", "PIL", "transformers", "openai", "accelerate"}
    assert not heavy & set(loaded["modules"])  # type: ignore[call-overload]
    assert loaded["cuda"] is False


@pytest.mark.slow
def test_importing_adds_at_most_half_a_second_to_torch() -> None:
    assert min(float(import_freshly()["seconds"]) for _ in range(3)) < 0.5  # type: ignore[arg-type]

"""What a figure was measured with: versions, processor, threads, how busy the machine was."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import torch

PACKAGES = ("torch", "numpy", "opencv-python", "scikit-image", "scipy")


def environment(packages: Iterable[str] = (), *, device: str = "cpu") -> dict[str, Any]:
    """The record that goes beside every figure.

    Args:
        packages: distributions whose versions matter beyond ``PACKAGES``; one that is missing is recorded as None.
        device: where the work runs; a GPU is named with its driver's CUDA.

    Returns:
        Date (UTC), commit, versions, processor, threads of PyTorch and of OpenCV, and the load averages now; call
        `load_average` again at the end of the run.
    """
    record: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "torch_threads": torch.get_num_threads(),
        "opencv_threads": cv2.getNumThreads(),
        "versions": {name: version_of(name) for name in (*PACKAGES, *packages)},
        "load_average_before": load_average(),
    }
    if torch.device(device).type == "cuda":
        record["gpu"] = torch.cuda.get_device_name(device)
        record["cuda"] = torch.version.cuda
    return record


def load_average() -> list[float] | None:
    """Of the last 1, 5 and 15 minutes; None where the system keeps none."""
    return [round(one, 1) for one in os.getloadavg()] if hasattr(os, "getloadavg") else None


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """As the system gives it: model name, and family and model where the name tells them not."""
    found: dict[str, str] = {}
    file = Path("/proc/cpuinfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Short name of the commit the files come from, with ``+`` where tracked files of the package differ from it."""
    here = Path(__file__).resolve().parent.parent
    try:
        name = git(here, "rev-parse", "--short=10", "HEAD")
        return name + ("+" if git(here, "status", "--porcelain", "-uno", "--", "mvcseg", "benchmarks") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()

"""Models and processors of transformers, read so that a broken folder is an error and no code of its own is run."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any

import torch

from mvcseg.errors import CheckpointError, MissingExtraError

_LONGEST_REASON = 300
_SAMPLED = 64


def read_pretrained(
    auto_class: str, name: str, *, kind: str, dtype: torch.dtype | None, device: str | torch.device = "cpu"
) -> tuple[Any, Any]:
    """The processor and the model that a folder or a name on the hub holds, in eval mode.

    Args:
        auto_class: the transformers class that reads the model.
        name: the folder, or the name.
        kind: what is expected there, for the error's text.
        dtype: of the weights; None keeps the file's.
        device: where the model goes.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: nothing that can be read is there, weights are missing from it, or the device cannot hold
            them; names it and says why.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError.for_package("transformers", extra="hf")
    import transformers

    # Renamed in transformers 5, which also reads the old name but warns.
    argument = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
    try:
        # Left out, trust_remote_code asks on the terminal whether to run the model's own code.
        processor: Any = transformers.AutoProcessor.from_pretrained(name, trust_remote_code=False)
        model, report = getattr(transformers, auto_class).from_pretrained(
            name, trust_remote_code=False, output_loading_info=True, **{argument: "auto" if dtype is None else dtype}
        )
    # Files that are missing, cut off or of the wrong kind surface as any of the builtin errors, and as errors of
    # pickle, safetensors and the hub that share no base with them.
    except Exception as error:
        raise CheckpointError(f"{name}: no {kind} can be read: {_reason(error)}") from error
    if missing := sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"]):
        raise CheckpointError(
            f"{name}: no {kind} can be read: {len(missing)} weights are missing or of another size, e.g. {missing[0]}"
        )
    try:
        return processor, model.eval().to(device)
    # Out of memory, no such device, a driver that fails: each has its own error, and some only RuntimeError.
    except Exception as error:
        raise CheckpointError(f"{name}: the {kind} cannot be moved to {device}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]


def weights_digest(model: torch.nn.Module) -> str:
    """Twelve hexadecimal digits for the weights: 64 values of every tensor, as they are stored.

    Answers are kept by who gave them, and a folder may hold another model tomorrow.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        flat = value.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLED)][:_SAMPLED].cpu().double()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()[:12]

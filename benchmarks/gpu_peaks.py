"""Peak arithmetic of GPUs, from their makers' data sheets: dense, without sparsity."""

import re

import torch

# TFLOP/s by part of the device's name; the first that fits counts. bf16: tensor cores with
# float32 accumulation. fp32: TF32 tensor cores where the GPU has them, since convolutions use
# them by PyTorch's default; else the plain float32 units. None: the GPU has no such unit.
PEAKS = {
    # NVIDIA H200 data sheet (bf16 1,979 and TF32 989 with sparsity)
    "H200": {"bf16": 989.5, "fp32": 494.7},
    # NVIDIA H100 data sheet, PCIe (1,513 and 756 with sparsity) and SXM (1,979 and 989)
    "H100 PCIe": {"bf16": 756.5, "fp32": 378.0},
    "H100": {"bf16": 989.5, "fp32": 494.7},
    # NVIDIA A100 data sheet
    "A100": {"bf16": 312.0, "fp32": 156.0},
    # NVIDIA L4 data sheet (242 and 120 with sparsity)
    "L4": {"bf16": 121.0, "fp32": 60.0},
    # NVIDIA Ada GPU architecture white paper, GeForce RTX 4090 (330.4 and 165.2 with sparsity)
    "RTX 4090": {"bf16": 165.2, "fp32": 82.6},
    # NVIDIA T4 data sheet; Turing has neither bf16 nor TF32
    "T4": {"bf16": None, "fp32": 8.1},
}


def peak_tflops(device: torch.device, precision: str) -> float | None:
    """The peak of a device in "fp32" or "bf16"; None on the CPU and on a GPU not listed."""
    if device.type != "cuda":
        return None
    words = re.split(r"[\s-]+", torch.cuda.get_device_name(device))
    for name, peaks in PEAKS.items():
        if all(part in words for part in name.split()):
            return peaks[precision]
    return None

"""Peak arithmetic of GPUs, from their maker's data sheets: dense, without sparsity."""

import re

import torch

# TFLOP/s by words of the device's name; the first whose words are all there counts. bf16: tensor
# cores with float32 accumulation. fp32: TF32 tensor cores where the GPU has them, since
# convolutions use them by PyTorch's default; else the plain float32 units. None: the GPU has no
# such unit. Data sheets print the H100, H200 and L4 with sparsity; half of that is the dense peak.
PEAKS = {
    # NVIDIA H100 and H200 data sheets, columns NVL: 1,671 and 835 with sparsity
    "H200 NVL": {"bf16": 835.5, "fp32": 417.5},
    "H100 NVL": {"bf16": 835.5, "fp32": 417.5},
    # NVIDIA H100 data sheet, column PCIe: 1,513 and 756 with sparsity
    "H100 PCIe": {"bf16": 756.5, "fp32": 378.0},
    # NVIDIA H100 and H200 data sheets, columns SXM: 1,979 and 989 with sparsity
    "H200": {"bf16": 989.5, "fp32": 494.5},
    "H100": {"bf16": 989.5, "fp32": 494.5},
    # NVIDIA A100 data sheet: 312 and 156, dense
    "A100": {"bf16": 312.0, "fp32": 156.0},
    # NVIDIA L4 data sheet: 242 and 120 with sparsity
    "L4": {"bf16": 121.0, "fp32": 60.0},
    # NVIDIA Ada GPU architecture white paper, appendix A, table 2: 165.2 and 82.6, dense
    "RTX 4090": {"bf16": 165.2, "fp32": 82.6},
    # NVIDIA T4 data sheet: 8.1; Turing has neither bf16 nor TF32
    "T4": {"bf16": None, "fp32": 8.1},
}
OTHERS = {"Laptop", "D", "MIG"}  # words of a lesser GPU of the same name, and of a slice of one


def peak_tflops(device: torch.device, precision: str) -> float | None:
    """The peak of a device in "fp32" or "bf16"; None on the CPU and on a GPU not listed."""
    if device.type != "cuda":
        return None
    words = set(re.split(r"[\s-]+", torch.cuda.get_device_name(device)))
    if words & OTHERS:
        return None
    for name, peaks in PEAKS.items():
        if words >= set(name.split()):
            return peaks[precision]
    return None

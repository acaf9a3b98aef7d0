"""The precision of training: bfloat16 if wanted and supported by the device, else float32. Knows no loop."""

import torch
from torch import nn

from training.loops.distributed import Processes

BFLOAT16, FLOAT32 = "bfloat16", "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether a tiny LSTM runs forwards and backwards in bfloat16.

    PyTorch's LSTM alone does not on a CPU without AVX-512, and no public function of PyTorch tells.
    """
    with torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(16, 16, batch_first=True).to(device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            said, _ = lstm(torch.zeros(4, 3, 16, device=device))
        said.float().sum().backward()
    except RuntimeError:
        return False
    return True


def agreed(processes: Processes, *, bf16: bool) -> str:
    """Returns "bfloat16" if it is wanted and every process's device supports it, else "float32".

    If it is wanted but missing, the first process prints that.
    """
    if not bf16:
        return FLOAT32
    able = torch.tensor(float(has_bfloat16(processes.device)), device=processes.device)
    if processes.sum(able) == processes.size:
        return BFLOAT16
    if processes.first:
        print(
            "this processor has no bfloat16: training computes in float32, which takes about 1.5 times as long and "
            "changes the last digits",
            flush=True,
        )
    return FLOAT32

"""One thread per test process: the tensors are small, and the tests run in parallel."""

import torch

torch.set_num_threads(1)

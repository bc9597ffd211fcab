"""Training scripts: prepare, finetune, calibrate, evaluate, compare with baselines, publish."""

import logging

# Importing it says that a kernel for 4-bit weights on a CPU is not installed; on a CPU nothing here has such weights.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

"""One thin script per stage of dvc.yaml: load the settings, call mht, write the outputs."""

import ctypes
import gc
import os
import sys

from mht.core.processes.lifetime import guard_start

guard_start()

# A stage imports for seconds. Objects of modules are no garbage: looking for it less often saves a
# fifth of that.
gc.set_threshold(50_000, 20, 50)

# A thread that waits for the next product spins for some microseconds, which is what small
# products need, and then sleeps: on cores shared with other work, one that spins on keeps the
# thread it waits for from running. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

# glibc gives big blocks back to the kernel at once, and every new tensor of logits then costs a
# page fault for each of its 4 KB. Freed memory is kept for the next step instead.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(M_MMAP_MAX, 0)
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

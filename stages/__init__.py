"""One thin script per stage of dvc.yaml: load the settings, call mht, write the outputs."""

import os

# Threads that wait for each other sleep instead of spinning: on cores shared with other work, a
# spinning thread keeps the one it waits for from running. Has to be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

"""A stage whose second process finds a mistake while the first one waits for it."""

import time

from mht.core.processes.launched import is_main_process
from mht.pipeline import stage

if __name__ == "__main__":
    if is_main_process():
        time.sleep(600)
    stage._leave("ppo: the disk is full", 2)

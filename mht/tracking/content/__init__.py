"""What stages read and write, by content: from dvc.yaml, dvc.lock and the cache of DVC."""

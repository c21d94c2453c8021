"""Scores by this project for a peer in another environment: a JSON object in, a list out."""

import json
import sys

from mht.config import load_config
from mht.data.text.sample import Sample


def main() -> None:
    """``{"what": "reward" or "judge", "samples": [{prompt, response, target}]}`` to scores."""
    config = load_config()
    assert config.ppo.reward is not None
    rewards = {"reward": config.ppo.reward, "judge": config.evaluate.judge}
    for line in sys.stdin:
        asked = json.loads(line)
        samples = [Sample(**sample) for sample in asked["samples"]]
        print(json.dumps(rewards[asked["what"]].evaluate(samples).score), flush=True)


if __name__ == "__main__":
    main()

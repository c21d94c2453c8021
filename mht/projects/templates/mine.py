"""A reward of yours; params.yaml names it by {type: python, file: rewards/mine.py}."""


def score(samples):
    """A number for each sample, which has prompt, response, target and item."""
    return [-abs(len(sample.response.split()) - 8) for sample in samples]

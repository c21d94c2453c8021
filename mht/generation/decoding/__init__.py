"""Decoding with a reward or a value in view; `generate` runs any of these strategies on prompts."""

from mht.generation.decoding.base import Generated as Generated
from mht.generation.decoding.base import Sampling as Sampling
from mht.generation.decoding.base import Strategy as Strategy
from mht.generation.decoding.base import generate as generate
from mht.generation.decoding.base import prompt_examples as prompt_examples
from mht.generation.decoding.best_of import BestOfN as BestOfN
from mht.generation.decoding.mcmc import MCMC as MCMC
from mht.generation.decoding.ngram import NGramSampling as NGramSampling
from mht.generation.decoding.value_guided import ValueGuided as ValueGuided
from mht.generation.decoding.value_guided import read_value_head as read_value_head

"""Decoding with a reward or a value in view; `generate` runs any of these strategies on prompts."""

from mht.decoding.base import Generated as Generated
from mht.decoding.base import Sampling as Sampling
from mht.decoding.base import Strategy as Strategy
from mht.decoding.base import generate as generate
from mht.decoding.base import prompt_examples as prompt_examples
from mht.decoding.best_of import BestOfN as BestOfN
from mht.decoding.mcmc import MCMC as MCMC
from mht.decoding.ngram import NGramSampling as NGramSampling
from mht.decoding.value_guided import ValueGuided as ValueGuided
from mht.decoding.value_guided import read_value_head as read_value_head

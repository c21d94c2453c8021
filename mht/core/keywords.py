"""Calls with a wrong keyword: the error names the argument that was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar

from mht.core.component import did_you_mean
from mht.core.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")


class WrongKeyword(UserError, TypeError):
    """A call has a keyword that the function does not take."""


def explain_keywords(
    name: str, elsewhere: Callable[[str], str] = lambda keyword: "", /, **synonyms: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function: a keyword that it does not take is an error that names the right one.

    Args:
        name: of the function, for the message.
        elsewhere: from a keyword to the sentence that says where it belongs, or "".
        **synonyms: an argument to its names in other libraries, in lower case with spaces between.

    Raises:
        WrongKeyword: by the function, before it runs.
    """
    meant = {word: right for right, words in synonyms.items() for word in words.split()}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = list(signature(function).parameters.values())
        takes = [p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY]
        takes = [p for p in takes if p != "self"]

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            wrong = [key for key in kwargs if key not in takes]
            if wrong:
                problems = [_problem(key, takes, meant, elsewhere) for key in wrong]
                raise WrongKeyword(f"{name}: {'; '.join(problems)}")
            return function(*args, **kwargs)

        return call

    return decorate


def _problem(
    key: str, takes: Iterable[str], meant: Mapping[str, str], elsewhere: Callable[[str], str]
) -> str:
    says = f"no argument {key!r}"
    known = meant.get(key.lower())
    if known:
        return f"{says} (did you mean {known!r}?)"
    names = ", ".join(takes)
    return f"{says}{elsewhere(key) or did_you_mean(key, takes) or f'. It takes {names}'}"

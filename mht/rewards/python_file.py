"""The type `python`: a reward that is a function in a file of the user."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from mht.core.component import did_you_mean
from mht.core.errors import RewardError, UserError
from mht.data.text.sample import Sample
from mht.rewards.base import Example, Reward, reward
from mht.rewards.raised import first_to_raise, raised


@reward("python")
class PythonFile(Reward):
    """The scores that your own function returns, one per sample.

    It is called as ``function(samples, **options)`` with the batch as a list of `mht.Sample`. Where
    it has a parameter ``completions`` it is called as TRL calls its reward functions:
    ``function(prompts=[...], completions=[...], target=[...], **columns, **options)``, with those
    of the data's columns that it takes.

    Attributes:
        file: the Python file, looked up when the configuration is checked, run on first use.
        function: its name there.
        options: keyword arguments for it.
        chat: of a function of TRL's kind: it takes prompts and completions as lists of messages.
    """

    family: ClassVar[str] = "yours"
    needs: ClassVar[str] = "your file"
    better: ClassVar[Literal["either"]] = "either"
    example: ClassVar[Example] = None

    file: str
    function: str = "score"
    options: dict[str, Any] = Field(default_factory=dict)
    chat: bool = False

    @field_validator("file")
    @classmethod
    def _is_python(cls, file: str) -> str:
        _functions(file)
        return file

    @model_validator(mode="after")
    def _has_function(self) -> PythonFile:
        names = _functions(self.file)
        if self.function not in names:
            hint = did_you_mean(self.function, names)
            raise ValueError(f"{self.file} defines no function {self.function!r}{hint}")
        return self

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """What the function returns.

        Raises:
            RewardError: it raised, with the line and the first sample that makes it raise.
        """
        path = Path(self.file)
        if not path.is_file():
            raise RewardError(f"the file {self.file!r} is gone")
        try:
            function = _function(str(path.resolve()), path.stat().st_mtime_ns, self.function)
        except UserError:
            raise
        except Exception as error:
            raise RewardError(raised(error, path)) from error
        try:
            return self._call(function, samples)
        except UserError:
            raise
        except Exception as error:
            culprit = first_to_raise(partial(self._call, function), samples, type(error))
            raise RewardError(f"{raised(error, path)}\n{culprit}") from error

    def _call(self, function: Callable[..., list[float]], samples: Sequence[Sample]) -> list[float]:
        parameters = inspect.signature(function).parameters
        if "completions" not in parameters:
            return function(list(samples), **self.options)
        given = self._columns(samples)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            given = {k: v for k, v in given.items() if k in parameters or k in self.options}
        lacking = [n for n, p in parameters.items() if _required(p) and n not in given]
        if lacking:
            raise RewardError(
                f"{self.function} in {self.file} takes {', '.join(lacking)}, which neither the "
                f"options nor the data have: there are {', '.join(given)}"
            )
        return function(**given)

    def _columns(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """What a function of TRL's kind may take."""
        columns = {key: [s.item.get(key) for s in samples] for s in samples for key in s.item}
        return columns | {
            "prompts": [self._text(s.prompt, "user") for s in samples],
            "completions": [self._text(s.response, "assistant") for s in samples],
            "target": [s.target for s in samples],
            **self.options,
        }

    def _text(self, text: str, role: str) -> Any:
        return [{"role": role, "content": text}] if self.chat else text


def _required(parameter: inspect.Parameter) -> bool:
    named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return named and parameter.default is parameter.empty


def _functions(file: str) -> list[str]:
    """The names of the functions a Python file defines, without running it."""
    if not Path(file).is_file():
        raise ValueError("no such file")
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"is no Python file ({error})") from None
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@lru_cache
def _function(path: str, mtime: int, name: str) -> Callable[..., list[float]]:
    spec = spec_from_file_location(f"mht_reward_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None  # a .py file always has both
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)

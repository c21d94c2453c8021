"""Random reward specs, valid and broken, from whatever types are registered.

A type takes part by itself. Where it has required options it says an `example`; where its example
needs a model, or it has none (None: it takes a file), it stays out.
"""

import math
import warnings
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mht.cli.reward_types import built_in
from mht.core.errors import ConfigError, UserError
from mht.data.text.sample import Sample
from mht.rewards import Reward, make_reward
from mht.rewards.base import REWARDS
from mht.rewards.composed.composition import Composite

ITEM = {"target": "a very good film", "language": "en"}
BATCH = [
    Sample("the film: ", response, target, ITEM)
    for response, target in [
        ("a good film", "a very good film"),
        ("a good film", "a very good film"),
        ("", "a good plot"),
        ("It is so slow, and so dull! What a bad movie.\n- no\n- plot", "it is slow"),
        ("é 漢字 42", ""),
    ]
]
STEPS: list[dict[str, Any]] = [
    {"type": "clip", "min": 0.1},
    {"type": "clip", "min": -1, "max": 0.5},
    {"type": "scale", "mul": -2, "add": 1},
    {"type": "whiten"},
    {"type": "ema_normalize", "decay": 0.5},
]


def everything(reward):
    """The reward and all below it."""
    yield reward
    for child in reward.children().values():
        yield from everything(child)


def example_of(cls) -> Reward:
    """The type's example, built.

    Raises:
        ConfigError: it is none.
    """
    return make_reward({"type": cls.type_name, **(cls.example or {})})


def spec_of(cls) -> dict | None:
    """The type's smallest spec, or None where there is none that needs no model and no file."""
    if cls.example is None:
        return None
    try:
        needs = needs_a_model(example_of(cls))
    except ConfigError:
        return None
    return None if needs else {"type": cls.type_name, **cls.example}


def needs_a_model(reward) -> bool:
    """Whether it, or anything below it, scores with a model."""
    return any(part.models() for part in everything(reward))


def plain_types() -> list[type[Reward]]:
    """The registered types that need neither a model nor a file, by name."""
    found = {cls.type_name: cls for cls in built_in() if spec_of(cls) is not None}
    return [found[name] for name in sorted(found)]


def quietly(reward, batch, **options):
    """Scored without the warnings that such batches deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reward.evaluate(batch, **options)


def scores_here(cls) -> bool:
    """Whether its example scores BATCH: its packages and data are here, no column is missing."""
    try:
        quietly(make_reward(spec_of(cls)), BATCH)
    except UserError:
        return False
    return True


def leaves() -> list[type[Reward]]:
    """The types at the ends of a tree that score BATCH."""
    return [c for c in plain_types() if not issubclass(c, Composite) and scores_here(c)]


def values(hint: Any, limits: tuple = ()) -> list[Any]:
    """Some values that an annotation allows; none where they can't be told from it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is bool:
        return [False, True]
    if hint is type(None):
        return [None]
    if hint in (int, float):
        pool = [0, 1, 2, 3, 7] if hint is int else [0.0, 0.25, 0.5, 1.0, 2.0]
        return [n for n in pool if all(_within(n, limit) for limit in limits)]
    if origin is Literal:
        return list(arguments)
    if origin is Annotated:
        metas = [a.metadata if isinstance(a, FieldInfo) else [a] for a in arguments[1:]]
        return values(arguments[0], (*limits, *(m for inner in metas for m in inner)))
    if origin in (Union, UnionType):
        return [value for argument in arguments for value in values(argument, limits)]
    return []


def _within(number, limit) -> bool:
    signs = {"gt": "__gt__", "ge": "__ge__", "lt": "__lt__", "le": "__le__"}
    bounds = [(sign, getattr(limit, name)) for name, sign in signs.items() if hasattr(limit, name)]
    return all(getattr(float(number), sign)(float(bound)) for sign, bound in bounds)


def leaf(rng, types) -> dict:
    """One of the types by any of its names, some options changed."""
    cls = rng.choice(types)
    names = [name for name, c in REWARDS.registered().items() if c is cls]
    spec = {**spec_of(cls), "type": rng.choice(names)}
    for name in cls.own_options():
        field = cls.model_fields[name]
        known = values(field.annotation, tuple(field.metadata))
        if known and rng.random() < 0.4:
            spec[name] = rng.choice(known)
    try:
        return spec_of(cls) if needs_a_model(make_reward(spec)) else spec
    except ConfigError:  # options that don't go together: some stay, to be refused
        return spec if rng.random() < 0.25 else spec_of(cls)


def tree(rng, types, depth=3) -> dict:
    """A spec whose options each are valid by themselves."""
    kind = rng.choice(["leaf", "weighted_sum", "product", "min", "gate"]) if depth else "leaf"
    if kind == "leaf":
        spec = leaf(rng, types)
    elif kind == "gate":
        inner = [tree(rng, types, depth - 1) for _ in range(2)]
        spec = {"type": kind, "reward": inner[0], "when": inner[1], "threshold": rng.random()}
    else:
        parts = [tree(rng, types, depth - 1) for _ in range(rng.randint(1, 3))]
        if kind == "weighted_sum":
            parts = [{**part, "weight": rng.uniform(0.1, 2)} for part in parts]
        named = {f"part_{i}": part for i, part in enumerate(parts)}
        spec = {"type": kind, "components": rng.choice([parts, named])}
    for name, some in {"scale": [True], "invert": [True], "on_error": [0, -1.5, "stop"]}.items():
        if rng.random() < 0.25:
            spec[name] = rng.choice(some)
    steps = [dict(rng.choice(STEPS)) for _ in range(rng.choice([0, 0, 0, 1, 2]))]
    return {**spec, "postprocess": steps} if steps else spec


def nodes(spec, path="reward"):
    """Every component of a spec with its path."""
    yield path, spec
    parts = spec.get("components", {})
    if isinstance(parts, dict):
        inner = [(f"{path}.components.{key}", part) for key, part in parts.items()]
    else:
        inner = [(f"{path}.components[{i}]", part) for i, part in enumerate(parts)]
    inner += [(f"{path}.{key}", spec[key]) for key in ("reward", "when") if key in spec]
    for place, part in inner:
        yield from nodes(part, place)


def broken(rng, path, node) -> str:
    """Break a component in place; what the line about it has to start with."""
    cls = REWARDS.get(node["type"])
    required = [n for n in node if n in cls.model_fields and cls.model_fields[n].is_required()]
    words = [
        name
        for name in cls.own_options()
        if get_origin(cls.model_fields[name].annotation) is Literal
    ]
    ways = ["key", "unknown type", "no type", "weight", "on_error", "invert", "step", "cache"]
    ways += ["required"] * bool(required and "components" not in node and "when" not in node)
    ways += ["word"] * bool(words)
    way = rng.choice(ways)
    if way == "unknown type":
        node["type"] = rng.choice(["nosuchtype", "", "rogue_l"])
        return f"{path}.type: unknown reward"
    if way == "no type":
        node["type"] = rng.choice([None, 3, ["bleu"]])
        return f"{path}.type: a reward needs a type, "
    if way == "step":
        node["postprocess"] = [{"type": "whiten"}, {"type": "nosuchstep"}]
        return f"{path}.postprocess[1].type: unknown postprocess 'nosuchstep'"
    if way == "required":
        name = rng.choice(required)
        del node[name]
        return f"{path}.{name}: is required and missing"
    if way == "word":
        name = rng.choice(words)
        node[name] = "no such word"
        return f"{path}.{name}: should be "
    name = {"key": "no_such_key"}.get(way, way)
    wrong = {"key": 1, "weight": ["1", None, True, math.nan], "invert": [0, "no", None]}
    wrong |= {"on_error": ["go", None, math.inf], "cache": ["yes", 1]}
    node[name] = rng.choice(wrong[way]) if way != "key" else 1
    return f"{path}.{name}: "

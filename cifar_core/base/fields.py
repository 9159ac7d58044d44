"""Declaration of settings: pydantic fields with range, step, scale and help text, and their error messages.

`setting(...)` declares a field. `describe(cls)` returns the declarations as `Setting` records, from which
pages make widgets, the command line its options, and KerasTuner its search dimensions.
"""

import functools
import math
import reprlib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cifar_core.errors import ConfigError

Scale = Literal["linear", "log"]
Value = TypeVar("Value")
Kind = Literal["int", "float", "bool", "choice", "text"]


def setting(
    default: Any,
    *,
    help: str,  # noqa: A002 - the word that people know from argparse and Streamlit
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    step: float | None = None,
    scale: Scale = "linear",
    group: str = "Model",
    label: str | None = None,
    unit: str | None = None,
    max_length: int | None = None,
    search: tuple[float, float] | tuple[Any, ...] | None = None,
) -> Any:
    """Declare one field.

    Args:
        help: one or two sentences: what it does and when to change it.
        ge: smallest value allowed.
        gt: every value is above it.
        le: largest value allowed.
        lt: every value is below it.
        step: increment of a widget or a grid.
        scale: "log" where a factor matters more than a difference.
        group: heading under which pages and `--help` show it.
        label: display name; default: the field's name with spaces.
        unit: "px", "degrees", "epochs" ...
        max_length: greatest length of a text.
        search: default range of a search: (low, high) for numbers, the values for choices. None excludes the
            field from searches.
    """
    values = None if search is None else list(search)
    extra: Any = {
        "step": step, "scale": scale, "group": group, "label": label, "unit": unit, "search": values,
    }  # fmt: skip
    bounds: dict[str, Any] = {"ge": ge, "gt": gt, "le": le, "lt": lt, "max_length": max_length}
    return Field(default=default, description=help, json_schema_extra={"setting": extra}, **bounds)


@dataclass(frozen=True)
class Setting:
    """Declaration of one field.

    `low` and `high` are the ends of the allowed range; an end is itself allowed unless `low_open` /
    `high_open`. `optional` fields also accept None. `search` is the default range of a search.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: str
    label: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    step: float | None = None
    scale: Scale = "linear"
    unit: str | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False
    max_length: int | None = None
    search: tuple[Any, ...] | None = None

    def allowed(self) -> str:
        """The allowed values in words, for errors and `--help`."""
        words = {
            "choice": "one of " + ", ".join(map(str, self.choices)),
            "bool": "true or false",
            "text": f"text of at most {self.max_length} characters" if self.max_length else "text",
            "int": "a whole number" + self._range(),
            "float": "a number" + self._range(),
        }[self.kind]
        return words + (", or nothing" if self.optional else "")

    def _range(self) -> str:
        low = None if self.low is None else f"{'above' if self.low_open else 'from'} {self.low:g}"
        high = None if self.high is None else f"{'below' if self.high_open else 'to'} {self.high:g}"
        if low and high and not self.low_open and not self.high_open:
            return f" {low} {high}"
        return "".join(f" {part}" for part in (low, high and f"and {high}" if low else high) if part)


class Settings(BaseModel):
    """Base class of frozen settings with readable error messages.

    Raises:
        ConfigError: names every wrong or unknown field, the value given and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(type(self), error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        declared = describe(cls).get(info.field_name or "")
        if isinstance(value, bool) and declared is not None and declared.kind in ("int", "float"):
            raise ValueError("a truth value is not a number")
        return value

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        return type(self)(**{**self.model_dump(), **changes})


@functools.cache
def describe(cls: type[BaseModel]) -> dict[str, Setting]:
    """The settings of a class by name, in order of declaration."""
    return {
        name: _setting(name, field)
        for name, field in cls.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and "setting" in field.json_schema_extra
    }


def _setting(name: str, field: FieldInfo) -> Setting:
    kind, choices, optional = _kind(field.annotation)
    assert isinstance(field.json_schema_extra, dict)
    extra: Any = field.json_schema_extra["setting"]
    bounds = {
        key: getattr(rule, key)
        for rule in field.metadata
        for key in ("ge", "gt", "le", "lt", "max_length")
        if getattr(rule, key, None) is not None
    }
    return Setting(
        name=name,
        kind=kind,
        default=None if field.default is PydanticUndefined else field.default,
        help=field.description or "",
        low=bounds.get("ge", bounds.get("gt")),
        high=bounds.get("le", bounds.get("lt")),
        low_open="gt" in bounds,
        high_open="lt" in bounds,
        choices=choices,
        optional=optional,
        max_length=bounds.get("max_length"),
        **{
            **extra,
            "label": extra["label"] or name.replace("_", " "),
            "search": None if extra["search"] is None else tuple(extra["search"]),
        },
    )


def _kind(annotation: Any) -> tuple[Kind, tuple[Any, ...], bool]:
    """(kind, choices, optional) of a type annotation."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        kind, choices, _ = _kind(inner[0])
        return kind, choices, len(inner) < len(args)
    if origin is Literal:
        return "choice", args, False
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
    return kinds[annotation], (), False


def explain(cls: type[BaseModel], error: ValidationError) -> str:
    """A pydantic error as one sentence per wrong field."""
    known = describe(cls)
    return " ".join(_sentence(cls, known, item) for item in error.errors(include_url=False))


def _sentence(cls: type[BaseModel], known: dict[str, Setting], item: Any) -> str:
    name = ".".join(str(part)[:_MAX_SHOWN] for part in item["loc"])
    given = shown(item["input"])
    if item["type"] == "extra_forbidden":
        return f"Unknown setting {shown(name)}; known are: {', '.join(sorted(cls.model_fields))}."
    if item["type"] == "missing":
        return f"{name} is missing: give {name}=..."
    if name in known:
        return f"{name} must be {known[name].allowed()}; got {given}."
    message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = f"{name}: {message}; got {given}" if name else message
    return message if message.endswith(".") else f"{message}."


_MAX_SHOWN = 80


class _Shown(reprlib.Repr):
    """`repr` of limited depth and length, for values of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 6
        self.maxstring = self.maxother = _MAX_SHOWN
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20

    def repr_int(self, value: int, _level: int) -> str:
        return repr(value) if value.bit_length() < 400 else f"a number of {value.bit_length():,} bits"


def shown(value: Any) -> str:
    """`repr` of a value for error messages, at most 80 characters."""
    text = repr(value) if type(value) is str and len(value) < _MAX_SHOWN else _Shown().repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def known(kind: str, name: Any, values: Mapping[Any, Value]) -> Value:
    """The value of that name.

    Raises:
        ConfigError: unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in values:
        raise ConfigError(f"Unknown {kind} {shown(name)}; known are: {', '.join(values)}.")
    return values[name]


def value_text(value: Any) -> str:
    """A setting's value as text for people: "on", "off", "none", or a number with four significant digits."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == "":
        return "none"
    return number(value) if isinstance(value, int | float) else str(value)


def number(value: float) -> str:
    """A number in short form: 0.001, 1e-06, 50."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e6):
        return str(int(value))
    return f"{value:.4g}"

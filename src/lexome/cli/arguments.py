"""From a Python signature to a command line: flags, types, defaults, help and YAML files.

Nothing is declared twice. Types that a shell cannot express (a loaded model, a generator, an
iterable of records) are dropped from a parameter's union; what is left becomes the flag. Mappings,
and lists of them, are one JSON text on the command line.
"""

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial, reduce
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from lexome.core import InputError
from lexome.core.arguments import read_arguments

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError, Token
    from cyclopts.argument import ArgumentCollection

CONFIG = "config"  # the one option every command has beside its function's parameters
_STDIN = "\0-"  # what cyclopts reads instead of a lone dash, which it takes for an option

_QUOTES = r"[\[\]'\"]|,(?= )"  # what Python writes around and between words
_SCALARS = {str, int, float, bool, Path, NoneType}
_LISTS = {list, Sequence, Iterable, Collection}
_COLLECTIONS = {list, tuple, dict, Mapping}


def bind(
    function: Callable[..., object], tokens: Sequence[str], program: str
) -> dict[str, Any] | None:
    """Turn command-line tokens into the arguments of a Python function.

    Parameters
    ----------
    function
        The function behind a command. Its parameters before ``*`` are positional on the command
        line too; all of them are also flags.
    tokens
        What follows the command's name.
    program
        How usage lines and hints call the command, e.g. ``"lexome embed"``.

    Returns
    -------
    The arguments that were given, by name, or None if help was asked for and printed.

    Raises
    ------
    InputError
        If the tokens, or the values of the ``--config`` file, do not fit the signature.
    UnknownName
        If the ``--config`` file holds a key that is no parameter.
    """
    from cyclopts import App, CycloptsError, Parameter

    from lexome.cli.columns import Columns, prose

    parameters = _parameters(function)
    shell = _shell_function(function, parameters)
    app = App(
        name=program,
        usage=_usage(program, parameters.values()),
        help_format="plaintext",
        help_formatter=Columns(prose(inspect.getdoc(function) or "")),
        version_flags=(),
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
        config=[partial(_read_config, names=parameters)],
    )
    app.default(shell)
    app["--help"].show = False
    try:
        words = [_STDIN if token == "-" else token for token in tokens]
        chosen, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        complaint = _complaint(error).replace(repr(_STDIN), "'-'").replace(_STDIN, "-")
        raise InputError(f"{complaint} See: {program} --help") from None
    if chosen is not shell:  # cyclopts answers --help with a function that prints it
        chosen(*bound.args, **bound.kwargs)
        return None
    return {name: _dash(value) for name, value in bound.arguments.items() if name != CONFIG}


def _dash(value: object) -> object:
    """Turn what stood in for a lone dash into one again."""
    if isinstance(value, list):
        return [_dash(each) for each in value]
    return type(value)("-") if isinstance(value, str | Path) and str(value) == _STDIN else value


def in_flags(message: str, function: Callable[..., object]) -> str:
    """Say in a shell's words what a message says of a function's arguments.

    Examples
    --------
    >>> def embed(source, *, upper=False, max_unknown=0.5): ...
    >>> in_flags("Pass upper=True, or raise max_unknown.", embed)
    'Pass --upper, or raise --max-unknown.'
    """

    def flag(found: re.Match[str]) -> str:
        if found["name"] is None:
            return _as_command(found[0], function.__name__)
        name, value = found["name"].replace("_", "-"), found["value"]
        match value:
            case "True":
                return f"--{name}"
            case "False":
                return f"--no-{name}"
            case None if "_" not in found["name"]:
                return found[0]  # perhaps no name but a word of the sentence
            case _:
                return f"--{name} {value}" if value else f"--{name}"

    names = "|".join(sorted(inspect.signature(function).parameters, key=len, reverse=True))
    value = r"""'[^']*'|"[^"]*"|[\w+]*(?:[.-]\w+)*"""
    argument = rf"""(?<![\w./'"=-])(?P<name>{names})(?:=(?P<value>{value})|(?![\w/'"(=]|\.\w))"""
    return re.sub(rf"\w+\([^()]*\)|{argument}", flag, message) if names else message


def _as_command(call: str, name: str) -> str:
    """Turn a call of a command's own function into a line for the shell; others stay.

    Examples
    --------
    >>> _as_command("pretrain(..., fasta=['a.fa'], out='run')", "pretrain")
    'lexome pretrain ... --fasta a.fa --out run'
    """
    called, _, inside = call.removesuffix(")").partition("(")
    if called != name:
        return call
    arguments = re.findall(r"(?:(\w+)=)?(\[[^\]]*\]|[^,\s]+)", inside)
    words = (
        f"--{key.replace('_', '-')} {re.sub(_QUOTES, '', value)}"
        if key
        else re.sub(_QUOTES, "", value)
        for key, value in arguments
    )
    return " ".join([f"lexome {name.replace('_', '-')}", *words])


def shell_type(annotation: Any) -> Any:
    """Reduce a type to what can be typed in a shell, or to None if nothing is left.

    Examples
    --------
    >>> shell_type(str | Path | bytes)
    str | pathlib.Path
    >>> shell_type(Sequence[int])
    list[int]
    >>> shell_type(bytes) is None
    True
    """
    origin = get_origin(annotation)
    if annotation in _SCALARS or origin is Literal or _is_enum(annotation):
        return annotation
    if origin is Annotated:
        inner = shell_type(get_args(annotation)[0])
        return None if inner is None else Annotated[inner, *annotation.__metadata__]
    if origin in (Union, UnionType):
        parts = [part for each in get_args(annotation) if (part := shell_type(each)) is not None]
        if str in parts or Path in parts:  # one word; a list of them would swallow the next ones
            parts = [part for part in parts if get_origin(part) not in _COLLECTIONS]
        return None if set(parts) <= {NoneType} else reduce(or_, parts)
    inside = [shell_type(each) for each in get_args(annotation) if each is not Ellipsis]
    if not inside or None in inside:
        return None
    if origin in _LISTS:
        return list[inside[0]]
    if origin is tuple:
        return annotation
    return annotation if origin in (dict, Mapping) else None


def _is_nested(annotation: Any) -> bool:
    """Tell whether a type holds a mapping, which takes more than words to write down."""
    inside = get_args(annotation)
    return get_origin(annotation) in (dict, Mapping) or any(map(_is_nested, inside))


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    parameters = {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        nameless = parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY)
        assert not nameless, f"{function.__name__}({name}) cannot be given by name"
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        reduced = shell_type(parameter.annotation)
        if reduced is not None:
            # A list takes all words that follow, so what stands behind it needs its flag.
            behind_list = any(map(_takes_all, parameters.values()))
            kind = parameter.KEYWORD_ONLY if behind_list else parameter.kind
            parameters[name] = parameter.replace(annotation=reduced, kind=kind)
        else:
            optional = parameter.default is not parameter.empty
            assert optional, f"{function.__name__}({name}) cannot be given on a command line"
    assert CONFIG not in parameters, f"{function.__name__} has a parameter named {CONFIG!r}"
    return parameters


def _takes_all(parameter: inspect.Parameter) -> bool:
    types = (parameter.annotation, *get_args(parameter.annotation))
    origins = [get_origin(each) for each in types]
    return parameter.kind is not parameter.KEYWORD_ONLY and list in origins


def _usage(program: str, parameters: Iterable[inspect.Parameter]) -> str:
    words = [program]
    for parameter in parameters:
        positional = parameter.kind is not parameter.KEYWORD_ONLY
        if positional:
            name = parameter.name.upper() + ("..." if _takes_all(parameter) else "")
            words.append(name if parameter.default is parameter.empty else f"[{name}]")
        elif parameter.default is parameter.empty:
            flag = f"--{parameter.name.replace('_', '-')}"
            words.append(f"{flag} {parameter.name.upper()}")
    return " ".join([*words, "[OPTIONS]"])


def _shell_function(
    function: Callable[..., object], own: Mapping[str, inspect.Parameter]
) -> Callable[..., None]:
    from cyclopts import Parameter

    def shell(*_args: object, **_options: object) -> None:
        """Stand in for `function`; cyclopts reads the signature and the docstring."""

    config = inspect.Parameter(
        CONFIG,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            Path | None,
            Parameter(help="YAML file with any of these arguments; flags win over it."),
        ],
    )
    as_json = Parameter(converter=_from_json, metavar="JSON")
    parameters = [
        each.replace(annotation=Annotated[str, as_json]) if _is_nested(each.annotation) else each
        for each in own.values()
    ]
    parameters.append(config)
    shell.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    shell.__annotations__ = {p.name: p.annotation for p in parameters}
    shell.__name__ = function.__name__
    shell.__doc__ = _each_by_itself(inspect.getdoc(function) or "")
    return shell


def _each_by_itself(docstring: str) -> str:
    """Give parameters that share an entry of a numpydoc docstring (``ref, alt``) one each."""

    def repeat(shared: re.Match[str]) -> str:
        return "".join(f"{name}\n{shared['text']}" for name in shared["names"].split(", "))

    entry = r"^(?P<names>\w+(?:, \w+)+)\n(?P<text>(?:[ ]+\S.*(?:\n|\Z))+)"
    return re.sub(entry, repeat, docstring, flags=re.MULTILINE)


def _from_json(_type: type, tokens: "Sequence[Token]") -> Any:
    try:
        return json.loads(tokens[0].value)
    except json.JSONDecodeError:
        example = """'{"width": 128}'"""
        raise InputError(
            f"{tokens[0].keyword} is not JSON: {tokens[0].value!r}. Expected e.g. {example}."
        ) from None


def _read_config(
    app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection", *, names: Iterable[str]
) -> None:
    """Fill `arguments` that were not given as flags from the file that ``--config`` names."""
    from cyclopts.config import Dict

    for argument in arguments:
        if argument.name == f"--{CONFIG}" and argument.tokens:
            path = argument.tokens[0].value
            values = {
                name: json.dumps(value) if _holds_mapping(value) else value
                for name, value in read_arguments(path, names).items()
            }
            Dict(values, source=path, use_commands_as_keys=False)(app, commands, arguments)


def _holds_mapping(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_mapping, value)))


def _complaint(error: "CycloptsError") -> str:
    """Say what is wrong with the command line, in the words of a message that begins 'error:'."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected {' '.join(map(repr, error.unused_tokens))}: no argument is left for it."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if error.keyword is not None:
            return f"{error.keyword} needs a value."
        if error.argument.index is not None:
            name = name.removeprefix("--").replace("-", "_").upper()
        return f"{name} is missing."
    text = str(error).strip()
    return text[:1].lower() + text[1:]

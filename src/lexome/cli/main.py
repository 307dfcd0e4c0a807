"""`lexome COMMAND ...`: each command is one Python function, with that function's arguments."""

import errno
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TextIO

from lexome import __version__
from lexome.core import LexomeError, pick

COMMANDS = {  # name: ("module:function", line for --help); imported only when called
    "embed": ("lexome.inference.embedding:embed", "turn sequences or cells into vectors"),
    "score": ("lexome.inference.variants:score_variants", "score the variants of a VCF"),
    "likelihood": (
        "lexome.inference.likelihood:score_sequences",
        "log-likelihood of whole sequences",
    ),
    "generate": ("lexome.inference.generation:generate", "write new sequences"),
    "essentiality": (
        "lexome.tasks.essentiality:essentiality",
        "rank genes by how much a model misses them",
    ),
    "coding-effects": (
        "lexome.tasks.coding_mutations:coding_effects",
        "score every change of coding sequences",
    ),
    "quality": ("lexome.reports.generated_page:quality", "report on generated DNA"),
    "pretrain": ("lexome.training.pretraining:pretrain", "train a model from sequences"),
    "finetune": ("lexome.training.finetuning:finetune", "teach a model classes or values"),
    "evaluate": ("lexome.reports.evaluation:evaluate", "judge models on a benchmark"),
    "probe": ("lexome.reports.probe_page:probe", "find out what each layer of a model knows"),
    "predict": ("lexome.inference.prediction:predict", "predict with a fine-tuned model"),
    "attention": ("lexome.reports.attention_page:attention", "show what a model attends to"),
    "motifs": ("lexome.reports.motif_page:motifs", "find motifs in what a model attends to"),
    "mutagenesis": (
        "lexome.reports.mutagenesis_page:mutagenesis",
        "show what every mutation changes for a fine-tuned model",
    ),
    "merge": ("lexome.inference.merging:merge", "fold an adapter into its model"),
    "tokenizer": ("lexome.training.vocabulary:train_tokenizer", "learn a BPE vocabulary"),
    "vocabulary-study": (
        "lexome.reports.vocabulary_page:vocabulary_study",
        "compare BPE vocabularies and models over them",
    ),
    "scaling": (
        "lexome.reports.scaling_page:scaling",
        "compare architectures of equal sizes on your own FASTA",
    ),
    "models": ("lexome.catalog:models", "list the published releases"),
    "info": ("lexome.inference.estimate:info", "show the card of a release or a folder"),
    "demo": ("lexome.reports.demo:demo", "train, compare and report on a bacterial genome"),
}

USERS_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(
    arguments: Sequence[str] | None = None, commands: Mapping[str, tuple[str, str]] = COMMANDS
) -> int:
    """Run one command and return the exit status.

    Parameters
    ----------
    arguments
        What follows ``lexome`` on the command line; the process's own arguments if None.
    commands
        The table of commands: name to ``("module:function", one line of help)``.

    Returns
    -------
    0 if all went well, 2 after a mistake that the user can mend (said on standard error in one
    line), 130 after Ctrl-C, 141 if the reader of the output went away.
    """
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = bool(os.environ.get("LEXOME_DEBUG"))
    if "--debug" in tokens:
        tokens.remove("--debug")
        debug = True
    try:
        _run(tokens, commands)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        if debug:
            raise
        print("; ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr)
        return INTERRUPTED
    except (LexomeError, OSError) as error:
        if debug:
            raise
        print(_styled("error:", "1;31", sys.stderr), _message(error), file=sys.stderr)
        return USERS_ERROR
    return 0


def _run(tokens: list[str], commands: Mapping[str, tuple[str, str]]) -> None:
    if not tokens or tokens[0] in ("--help", "-h"):
        print(overview(commands, sys.stdout))
        return
    if tokens[0] in ("--version", "-V"):
        print(f"lexome {__version__}")
        return
    name = pick("command", tokens[0], commands, listing="`lexome --help` lists all of them.")
    module, _, attribute = commands[name][0].partition(":")
    function = getattr(import_module(module), attribute)

    from lexome.cli.arguments import bind, in_flags

    given = bind(function, tokens[1:], f"lexome {name}")
    if given is None:
        return
    try:
        result = function(**given)
    except LexomeError as error:
        error.args = tuple(in_flags(str(each), function) for each in error.args)
        raise
    except KeyboardInterrupt:
        goes_on = "resume" in inspect.signature(function).parameters and given.get("resume", True)
        if goes_on and given.get("out"):
            raise KeyboardInterrupt("the same command goes on from here") from None
        raise
    if result is not None:
        print(result)


def overview(commands: Mapping[str, tuple[str, str]], stream: TextIO) -> str:
    """Return the text of `lexome --help`, bold where `stream` is a terminal."""
    width = max(len(name) for name in commands)
    options = {
        "--help, -h": "show this text; after a command, show its arguments",
        "--version, -V": "show the version",
        "--debug": "show where an error comes from",
    }
    return "\n".join(
        [
            f"lexome {__version__}: every genomic language model behind one interface",
            "",
            "Usage: lexome COMMAND [ARGUMENTS] [OPTIONS]",
            "",
            _styled("Commands", "1;4", stream),
            *(f"  {name:<{width}}  {line}" for name, (_, line) in commands.items()),
            "",
            _styled("Options", "1;4", stream),
            *(f"  {flag:<14} {line}" for flag, line in options.items()),
            "",
            "Every command takes --config FILE.yaml with the same arguments as its flags.",
            "`lexome COMMAND --help` explains them.",
        ]
    )


def _message(error: LexomeError | OSError) -> str:
    match error:
        case FileNotFoundError(filename=str(path)):
            text = f"there is no file {path!r}. Check the path."
        case PermissionError(filename=str(path)):
            text = f"no permission for {path!r}. Check who owns it."
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            text = "the disk is full. Make room, or give an output elsewhere; then run it again."
        case OSError(filename=str(path), strerror=str(reason)):
            text = f"{path}: {reason}"
        case _:
            text = str(error)
    return "\n  ".join([text, *getattr(error, "__notes__", ())])


def _styled(text: str, code: str, stream: TextIO) -> str:
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    return f"\033[{code}m{text}\033[0m" if colours else text

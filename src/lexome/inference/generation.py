"""New sequences from causal models, token by token.

Axes: B rows, S steps, V vocabulary, A tokens that may be drawn.
"""

import hashlib
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lexome.catalog import families
from lexome.core import InputError, UnknownLetters, free_path
from lexome.core.messages import counted
from lexome.formats import RowStore, SequenceRecord, read_sequences, writer_for
from lexome.formats.streams import bare_suffix
from lexome.inference.batching import plan_batches, progress_bar
from lexome.inference.decoding import Decoder, prepared
from lexome.inference.reading import advise, tokenizer_of
from lexome.inference.runs import fingerprint, loaded, provenance
from lexome.inference.sampling import Restraint, Sampling, draw
from lexome.inference.stretches import LengthNote
from lexome.model import Model
from lexome.tokenizers import Tokenizer

Prompts = str | Path | Iterable[str | tuple[str, str] | SequenceRecord]

_TOKENS_PER_BATCH = 1 << 17
_ROWS_PER_BATCH = 64  # more rows make no step cheaper
_BATCHES_PER_WINDOW = 8
_HOLDS_TOKENS = {".parquet", ".pq", ".npz"}
_FILE_NAME = re.compile(r"[\w./~\\ -]+\.\w{1,8}(\.b?gz)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """One generated sequence.

    Attributes
    ----------
    id
        Name of the prompt, an underscore, number of the sample from 1.
    prompt
        What it continues; not part of `sequence`.
    sequence
        The new letters.
    logprobs
        Natural log-probability of each new token given all before it, among the whole
        vocabulary at temperature 1, whatever was drawn from; float32.
    ended
        ``"length"`` if it has as many tokens as were asked for, ``"end"`` if the model drew its
        end token, ``"stop"`` if one of the `stop` strings came.
    """

    id: str
    prompt: str
    sequence: str
    logprobs: np.ndarray = field(repr=False)
    ended: str

    @property
    def mean_logprob(self) -> float:
        """Mean of `logprobs`; NaN if there is no token."""
        return float(self.logprobs.mean()) if len(self.logprobs) else math.nan


class Generations(list[Generated]):
    """Generated sequences in the order of the prompts."""

    def __str__(self) -> str:
        """Return them as FASTA."""
        return "\n".join(
            f">{one.id} mean_logprob={one.mean_logprob:.4f}\n{one.sequence}" for one in self
        )


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One sequence to make: `drawn` of its tokens are the sequence's, the others the prompt's."""

    id: str
    prompt: str
    tokens: np.ndarray
    drawn: int
    chances: np.ndarray


def generate(
    model: Model | str | Path,
    prompts: Prompts | None = None,
    *,
    length: int = 1000,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat: int | None = None,
    letters: str | None = None,
    stop: str | Sequence[str] | None = None,
    min_length: int = 0,
    prefix: str = "",
    upper: bool = False,
    seed: int = 0,
    out: str | Path | None = None,
    token_scores: bool = False,
    max_tokens_per_batch: int = _TOKENS_PER_BATCH,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Generations | Path:
    """Write new sequences with a causal model.

    A sequence depends on its prompt, the prompt's name, the number of the sample and the seed,
    not on the others. A step costs a step: each layer remembers what came before.

    Parameters
    ----------
    model
        A causal model, or what `lexome.load` takes: a release name, a hub id, a folder.
    prompts
        What the sequences continue: letters themselves, a file of sequences as `lexome.embed`
        reads them, or from Python a list of strings or (name, sequence) pairs. Text that is no
        name of a file is taken literally, special tokens of the model among it. An empty prompt,
        or none, begins with the model's start token; a model without one draws the first token
        evenly from those allowed.
    length
        Tokens to write for each sequence, at most; letters, where a token is one letter.
    samples
        Sequences for each prompt.
    temperature
        Scores are divided by it: below 1 the likely becomes likelier. 0 always takes the
        likeliest token.
    top_k
        Draw from the so many likeliest tokens only.
    top_p
        Draw from the likeliest tokens only that together have this probability.
    repetition_penalty
        Above 1, tokens that stand in the prompt or came since are less likely: a positive score
        is divided by it, a negative one multiplied (Keskar et al. 2019, arXiv:1909.05858, with
        the usual care for signs). With an alphabet of four letters nearly all have come before:
        `no_repeat` is what keeps a model of single letters out of a loop.
    no_repeat
        No so many tokens in a row come twice, the prompt counted. Where every token that may be
        drawn would repeat some, all may be.
    letters
        Draw only tokens that are made of these letters, such as ``ACGT``, and never end early. By
        default all tokens that stand for letters are drawn, and the model's end token ends a
        sequence.
    stop
        End a sequence with the token that completes one of these strings.
    min_length
        Tokens that a sequence has at least: before, the model's end token is not drawn, and a
        string of `stop` does not end it.
    prefix
        Text before every prompt, such as the tokens that a model was trained to be steered by. It
        is read by the model's tokenizer, `upper` does not touch it, and no output repeats it.
    upper
        Turn prompts into upper case.
    seed
        Of the random numbers.
    out
        ``.fa``, ``.fasta`` (with ``.json`` beside), ``.tsv``, ``.csv``, ``.parquet`` or ``.npz``;
        the last two have the log-probability of every token. Without it, the sequences are
        returned.
    token_scores
        Write the log-probabilities into ``.tsv`` and ``.csv`` too, as a column of numbers with
        blanks between.
    max_tokens_per_batch
        Rows times tokens that are remembered together.
    resume
        Continue what an earlier run with the same settings left beside `out`.
    overwrite
        Replace `out` and what a run with other settings left.
    progress
        Whether to show a progress bar; by default on a terminal.
    device, precision
        For a model that is still to be loaded, see `lexome.load`.

    Returns
    -------
    The sequences, or the path of the output.

    Raises
    ------
    InputError
        If the model cannot generate, a setting makes no sense, or prompt and `length` together
        are longer than the model's context.
    UnknownLetters
        If a prompt has letters that the model does not know.

    Examples
    --------
    >>> from lexome.catalog import new
    >>> model = new("hyenadna", width=16, mlp_width=32, depth=1, length=64)
    >>> one, two = generate(model, ["GATTACA"], length=8, samples=2, letters="ACGT")
    >>> one.id, len(one.sequence), set(one.sequence) <= set("ACGT")
    ('1_1', 8, True)
    """
    model = loaded(model, device, precision)
    _check(model)
    numbers: dict[str, tuple[float | None, float, float]] = {  # value, least, most
        "length": (length, 1, math.inf),
        "samples": (samples, 1, math.inf),
        "temperature": (temperature, 0, sys.float_info.max),
        "top_k": (top_k, 1, math.inf),
        "top_p": (top_p, sys.float_info.min, 1),
        "repetition_penalty": (repetition_penalty, 1, sys.float_info.max),
        "no_repeat": (no_repeat, 2, math.inf),
        "min_length": (min_length, 0, length),
        "max_tokens_per_batch": (max_tokens_per_batch, 1, math.inf),
    }
    for name, limits in numbers.items():
        _check_number(name, *limits)
    if token_scores and (out is None or bare_suffix(out) not in {".tsv", ".csv"}):
        raise InputError(
            f"token_scores is for .tsv and .csv, and the output is {out or 'returned'}. Leave it "
            "out: Parquet, .npz and what is returned have the scores anyway, FASTA cannot."
        )
    tokenizer = tokenizer_of(model)
    ends = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in ends:
        raise InputError("stop is empty text, which is everywhere. Expected letters; leave it out.")
    sampling = Sampling(
        length=length,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        allowed=_allowed(tokenizer, letters),
        end=tokenizer.suffix[-1] if letters is None and tokenizer.suffix else None,
        stop=ends,
        least=min_length,
        penalty=repetition_penalty,
        distinct=no_repeat,
    )
    settings = {
        "length": length,
        "samples": samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "no_repeat": no_repeat,
        "letters": letters,
        "stop": list(sampling.stop),
        "min_length": min_length or None,
        "prefix": prefix or None,
        "upper": upper,
        "seed": seed,
    }
    source = _source(prompts)
    requests = _requests(model, source, sampling, samples, seed, prefix=prefix, upper=upper)
    left = None if isinstance(source, Path) else len(source) * samples
    made = Generations()
    rows = tokens = 0
    began = time.perf_counter()
    with ExitStack() as stack:
        store = None
        if out is not None:
            writer = writer_for(out)
            store = stack.enter_context(
                _store(
                    out,
                    model,
                    source,
                    settings | {"token_scores": token_scores},
                    resume=resume,
                    overwrite=overwrite,
                )
            )
            requests = islice(requests, store.rows_done, None)
            left = left and left - store.rows_done
        bar = stack.enter_context(
            progress_bar("tokens", total=left and left * length, show=progress)
        )
        stack.enter_context(prepared(model, length))
        for window in _windows(requests, length, max_tokens_per_batch):
            some = _generate(model, window, sampling, max_tokens_per_batch, bar)
            rows += len(some)
            tokens += sum(len(one.logprobs) for one in some)
            if store is None:
                made += some
            else:
                store.append(*_table(some, settings, store.out, token_scores=token_scores))
        if store is not None:
            store.finish(writer, provenance=provenance(model, "generate", settings))
    if progress or (progress is None and (out is not None or sys.stderr.isatty())):
        seconds = time.perf_counter() - began
        print(
            f"{counted(rows, 'sequence')}, {counted(tokens, 'token')} in {seconds:.1f} s "
            f"({tokens / seconds:,.0f} a second)",
            file=sys.stderr,
        )
    return made if out is None else Path(out)


def _check(model: Model) -> None:
    if model.objective != "causal":
        able = [f.title for f in families().values() if f.objective == "causal"]
        raise InputError(
            f"{model.name} is a {model.objective} model ({model.family.title}), which "
            f"cannot write from left to right. Expected a causal one: {', '.join(able)}."
        )
    if model.head_name != model.objective:
        raise InputError(
            f"{model.name} has {'no head' if model.head is None else f'a {model.head_name} head'}, "
            "which gives no scores for next tokens. Load the pretrained model, or pass "
            f"head={model.objective!r} to lexome.load."
        )


def _check_number(name: str, value: float | None, least: float, most: float) -> None:
    if value is None or least <= value <= most:
        return
    if name == "top_p":
        expected = "more than 0 and at most 1"
    elif most in (math.inf, sys.float_info.max):
        expected = f"at least {least}"
    else:
        expected = f"{least} to {most:,}"
    raise InputError(f"{name} is {value}. Expected {expected}.")


def _allowed(tokenizer: Tokenizer, letters: str | None) -> list[int]:
    """Return the ids that may be drawn, in order, the end token not among them."""
    words = [w if w.isascii() and w.isalpha() else "" for w in tokenizer.vocabulary]
    wanted = set("".join(words) if letters is None else letters)
    allowed = [i for i, word in enumerate(words) if word and set(word) <= wanted]
    missing = sorted(wanted - set("".join(words[i] for i in allowed)))
    if missing or not allowed:
        raise InputError(
            f"letters is {letters!r}, and the model has no token made of these with "
            f"{', '.join(missing) or 'any letter'}. Its tokens are made of "
            f"{''.join(sorted(set(''.join(words))))}."
        )
    return allowed


def _source(prompts: Prompts | None) -> Path | list[Any]:
    """Return a file, or a list; prompts as one string are themselves unless they name a file."""
    if prompts is None:
        return [("generated", "")]
    if not isinstance(prompts, str | Path):
        return list(prompts)
    text = str(prompts)
    is_file = bool(text) and (text == "-" or Path(text).is_file())
    if isinstance(prompts, Path) or is_file or _FILE_NAME.fullmatch(text):
        return Path(prompts)
    return [("generated", text)]


def _requests(
    model: Model,
    source: Path | list[Any],
    sampling: Sampling,
    samples: int,
    seed: int,
    *,
    prefix: str,
    upper: bool,
) -> Iterator[_Request]:
    """Yield one request for each sample of each prompt."""
    tokenizer = tokenizer_of(model)
    note = LengthNote(model)
    for record in read_sequences(source, upper=upper):
        text = prefix + record.sequence
        (encoded,) = tokenizer.encode([text])
        if tokenizer.measure_unknown(text, encoded)[0]:
            raise UnknownLetters(
                f"the prompt {record.id!r} has letters that {model.name} does not know "
                f"({text[:40]!r}). {advise(tokenizer, text, some_allowed=False)}"
            )
        if text and not len(encoded["input_ids"]):
            raise InputError(
                f"the prompt {record.id!r} is {text[:40]!r}, too short for a token of "
                f"{model.name}. Give more letters."
            )
        given = np.concatenate([tokenizer.prefix, encoded["input_ids"]]).astype(np.int64)
        if model.context is not None and len(given) + sampling.length > model.context:
            raise InputError(
                f"the prompt {record.id!r} has {len(given):,} tokens, special ones counted, and "
                f"{sampling.length:,} are to follow, together more than the {model.context:,} "
                f"that {model.name} takes. Give a shorter prompt or a smaller length."
            )
        tokens = len(given) + sampling.length
        note.tell(tokens, "what is to be written", "beyond that it extrapolates")
        for number_1based in range(1, samples + 1):
            # The name is part of it, so that a prompt that is given twice is continued twice.
            key = f"{seed}/{number_1based}/{record.id}/{text}"
            entropy = list(hashlib.sha256(key.encode()).digest())
            chances = np.random.default_rng(entropy).random(sampling.length)
            first = sampling.allowed[int(chances[0] * len(sampling.allowed))]
            yield _Request(
                id=f"{record.id}_{number_1based}",
                prompt=record.sequence,
                tokens=given if len(given) else np.array([first]),
                drawn=int(not len(given)),
                chances=chances,
            )


def _windows(
    requests: Iterator[_Request], length: int, max_tokens: int
) -> Iterator[list[_Request]]:
    """Yield requests in lists that are worth sorting by length."""
    while window := list(islice(requests, 1)):
        tokens = 0
        while tokens < _BATCHES_PER_WINDOW * max_tokens and (more := next(requests, None)):
            tokens += len(more.tokens) + length
            window.append(more)
        yield window


def _generate(
    model: Model, requests: list[_Request], sampling: Sampling, max_tokens: int, bar: tqdm
) -> list[Generated]:
    made: dict[int, Generated] = {}
    lengths = [len(r.tokens) + sampling.length for r in requests]
    for plan in plan_batches(lengths, max_tokens):
        for first in range(0, len(plan), _ROWS_PER_BATCH):
            indices = plan[first : first + _ROWS_PER_BATCH]
            some = _generate_batch(model, [requests[i] for i in indices], sampling, bar)
            made.update(zip(indices, some, strict=True))
    return [made[i] for i in range(len(requests))]


def _generate_batch(
    model: Model, requests: list[_Request], sampling: Sampling, bar: tqdm
) -> list[Generated]:
    """Continue all prompts of a batch in step; shorter ones are padded on the left."""
    tokenizer, device = tokenizer_of(model), model.device
    prompts = [{"input_ids": r.tokens} for r in requests]
    ragged = len({len(r.tokens) for r in requests}) > 1
    inputs = tokenizer.collate(prompts, padding_side="left", mask=ragged)
    inputs = {name: value.to(device) for name, value in inputs.items()}
    rows = [_Row(tokenizer, request, sampling) for request in requests]
    steps = max(row.room for row in rows)
    # A row that began with a token of its own has no chance left for the last step, nor needs it.
    chances = [np.append(r.chances[r.drawn :], [0.0] * r.drawn) for r in requests]
    chances_BS = torch.from_numpy(np.stack(chances)).to(device)
    allowed_A = torch.tensor(sampling.allowed, device=device)
    if sampling.end is not None:
        allowed_A = torch.cat([allowed_A, allowed_A.new_tensor([sampling.end])])
    rows_B = torch.arange(len(rows), device=device)
    decoder = Decoder(model, inputs, steps, allowed_A.tolist())
    histories = [request.tokens.tolist() for request in requests]
    restraint = Restraint(sampling, histories, [request.drawn for request in requests])
    drawn: list[Tensor] = []
    logprobs: list[Tensor] = []
    with torch.no_grad():
        while len(drawn) < steps and not all(row.ended for row in rows):
            scores_BV = decoder.follow(drawn[-1]) if drawn else decoder.start()
            restrained_BV = restraint(scores_BV)
            ids_B = draw(restrained_BV, allowed_A, chances_BS[:, len(drawn)], sampling)
            restraint.take(ids_B)
            logprobs.append(scores_BV.log_softmax(-1)[rows_B, ids_B])
            drawn.append(ids_B)
            bar.update(sum(not row.ended for row in rows))
            if sampling.end is not None or sampling.stop:
                for row, id in zip(rows, ids_B.tolist(), strict=True):
                    row.take(id)
    ids_BS = torch.stack(drawn, 1).cpu().numpy() if drawn else np.zeros((len(rows), 0), np.int64)
    logprobs_BS = torch.stack(logprobs, 1).cpu().numpy() if drawn else np.zeros(ids_BS.shape)
    return [row.finish(*of) for row, *of in zip(rows, ids_BS, logprobs_BS, strict=True)]


class _Row:
    """One sequence while it is made."""

    def __init__(self, tokenizer: Tokenizer, request: _Request, sampling: Sampling):
        self.request, self.ended = request, ""
        self.room = sampling.length - request.drawn
        self._tokenizer, self._sampling = tokenizer, sampling
        self._text, self._count = "", 0
        if not self.room:
            self.ended = "length"

    def take(self, id: int) -> None:
        """Look at the next token."""
        if self.ended:
            return
        if id == self._sampling.end:
            self.ended = "end"
            return
        self._count += 1
        word = self._tokenizer.vocabulary[id]
        self._text += word
        enough = self._count + self.request.drawn >= self._sampling.least
        if enough and any(s in self._text[-len(s) - len(word) + 1 :] for s in self._sampling.stop):
            self.ended = "stop"
        elif self._count == self.room:
            self.ended = "length"

    def finish(self, ids: np.ndarray, logprobs: np.ndarray) -> Generated:
        """Make the record of what was drawn."""
        count = self._count if self.ended else self.room
        own = self.request.tokens[len(self.request.tokens) - self.request.drawn :]
        evenly = np.full(len(own), -math.log(len(self._sampling.allowed)))
        return Generated(
            id=self.request.id,
            prompt=self.request.prompt,
            sequence=self._tokenizer.decode(np.concatenate([own, ids[:count]])),
            logprobs=np.concatenate([evenly, logprobs[:count]]).astype(np.float32),
            ended=self.ended or "length",
        )


def _store(
    out: str | Path,
    model: Model,
    source: Path | list[Any],
    settings: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
) -> RowStore:
    free_path(out, overwrite=overwrite)
    decides = fingerprint(model, source, None, settings)
    if not isinstance(source, Path):
        decides["prompts"] = hashlib.sha256(repr(source).encode()).hexdigest()
    return RowStore(out, decides, resume=resume, overwrite=overwrite)


def _table(
    some: list[Generated], settings: dict[str, Any], out: Path, *, token_scores: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return rows and arrays for the output."""
    told = {k: v for k, v in settings.items() if not (v is None or v is False or v == [])}
    rows = [
        {
            "id": one.id,
            "sequence": one.sequence,
            "prompt": one.prompt,
            "ended": one.ended,
            "tokens": len(one.logprobs),
            "mean_logprob": None if math.isnan(one.mean_logprob) else one.mean_logprob,
        }
        for one in some
    ]
    if token_scores:
        for row, one in zip(rows, some, strict=True):
            row["logprobs"] = " ".join(f"{value:.6g}" for value in one.logprobs)
    if bare_suffix(out) in {".fa", ".fasta"}:
        for row in rows:
            said = {k: row[k] for k in ("ended", "mean_logprob")} | told
            prompt_bp = len(row.pop("prompt"))
            row["description"] = " ".join(
                f"{k}={v}" for k, v in {"prompt_bp": prompt_bp, **said}.items()
            )
    arrays = {"logprobs": [one.logprobs for one in some]}
    return rows, arrays if bare_suffix(out) in _HOLDS_TOKENS else {}

"""Pretraining of any sequence model from FASTA files."""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from lexome import __version__
from lexome.catalog import families, load, new
from lexome.checkpoints import Family
from lexome.core import InputError, need, pick
from lexome.core.messages import counted
from lexome.core.precision import Precision, choose_device, choose_precision
from lexome.model import Model
from lexome.sequence import Interval
from lexome.tokenizers import CodonTokenizer, read_tokenizer
from lexome.training.datasets import Examples, MicroBatches, Objective, Validation
from lexome.training.letters import encode_letters
from lexome.training.recipe import takes_recipe
from lexome.training.runs import Measurement, Run, Watcher
from lexome.training.schedules import SCHEDULES, Schedule, plan_mask_rates, plan_stages
from lexome.training.validation import Gain, gain
from lexome.training.windows import split

_Settings = TypeVar("_Settings")


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What came out of a run.

    Attributes
    ----------
    model
        Folder of the model after the last step, in its official layout.
    best
        Folder of the model with the lowest validation loss; None without validation.
    steps, tokens, seconds
        Updates, tokens trained on, and time; pauses before a resumption are not counted.
    parameters
        Size of the model.
    precision
        Number type of the matrix products.
    loss
        Mean training loss at the end, nats per target.
    validation_nats, validation_bits_per_base
        Surprise of the model of the last step on what was held out, per target and per letter;
        None without validation.
    history
        All measurements, in the order of steps.
    validation_nats_error, validation_bits_per_base_error
        Standard errors of the validation over its windows.
    gain
        Where training went on from a checkpoint: what it gained on what was held out; None for
        new models and without validation.
    """

    model: Path
    best: Path | None
    steps: int
    tokens: int
    seconds: float
    parameters: int
    precision: str
    loss: float
    validation_nats: float | None
    validation_bits_per_base: float | None
    history: tuple[Measurement, ...]
    validation_nats_error: float | None = None
    validation_bits_per_base_error: float | None = None
    gain: Gain | None = None

    def __str__(self) -> str:
        lines = [
            f"{self.parameters:,} parameters, {self.steps:,} steps, {self.tokens:,} tokens in "
            f"{self.seconds:,.0f} s ({self.precision})",
            f"training loss {self.loss:.4f} nats per target",
        ]
        if self.validation_nats is not None and self.validation_bits_per_base is not None:
            nats = _with_error(self.validation_nats, self.validation_nats_error)
            bits = _with_error(self.validation_bits_per_base, self.validation_bits_per_base_error)
            lines.append(f"held out: {nats} nats per target, {bits} bits per base")
        if self.gain is not None:
            nats = _with_error(self.gain.nats, self.gain.nats_error)
            bits = _with_error(self.gain.bits_per_base, self.gain.bits_per_base_error)
            lines += [
                f"before training: {self.gain.before_nats:.4f} nats per target, "
                f"{self.gain.before_bits_per_base:.4f} bits per base",
                f"gained: {nats} nats per target, {bits} bits per base",
            ]
        if self.validation_nats_error is not None:
            lines.append("± is the standard error over the held-out windows")
        return "\n".join([*lines, f"model in {self.model}"])


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


@takes_recipe("pretrain")
def pretrain(
    recipe: str | Path | None = None,
    *,
    fasta: Sequence[str | Path] = (),
    out: str | Path | None = None,
    family: str | None = None,
    sizes: Mapping[str, bool | int | float | str] | None = None,
    model: str | Path | None = None,
    model_changes: Mapping[str, bool | int | float | str] | None = None,
    tokenizer: str | Path | None = None,
    regions: str | Path | None = None,
    validation: Sequence[str | Interval] = (),
    validation_windows: int = 1024,
    length_bp: int | None = None,
    length_tokens: int | None = None,
    length_warmup: Sequence[Mapping[str, int]] = (),
    unknown_share: float = 0.1,
    both_strands: bool = True,
    whole_sequences: bool = False,
    special_tokens: bool = True,
    random_length_share: float = 0.0,
    mask_rate: float = 0.15,
    always_mask: bool = False,
    mask_rate_stages: Sequence[Mapping[str, float]] = (),
    ignore_unknown: bool = False,
    soft_mask_weight: float = 1.0,
    validation_soft_mask_weight: float = 1.0,
    steps: int = 10_000,
    batch_size: int = 32,
    accumulate: int = 1,
    learning_rate: float = 6e-4,
    schedule: Schedule = "cosine",
    warmup_steps: int = 0,
    decay_steps: int | None = None,
    initial_rate: float = 0.0,
    final_rate: float = 0.0,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    clip: float = 1.0,
    precision: Precision = "float32",
    recompute_layers: bool = False,
    seed: int = 0,
    workers: int = 0,
    log_every: int = 10,
    evaluate_every: int | None = None,
    save_every: int | None = None,
    keep_checkpoints: int = 2,
    resume: bool = True,
    progress: bool | Watcher = True,
) -> Pretraining:
    """Train a model from genomes, from random weights or onward from a checkpoint.

    A run that was stopped or killed goes on where its last checkpoint is when the same call is
    made again, to the same loss curve. Several processes (torchrun) share the windows of a step.
    Going on from a checkpoint (`model`), what is held out is measured before the first step too,
    and the result says what was gained.

    Parameters
    ----------
    recipe
        A YAML file with any of the arguments below, or the name of a recipe that comes with
        lexome, such as ``gpn-small``. Arguments given beside it win.
    fasta
        Genomes: FASTA files, plain, gzip or bgzip.
    out
        Folder of the run. Gets ``model/`` (last step) and ``best/`` (lowest validation loss) in
        the official layout, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/``, ``windows/``
        (nats, targets and letters of each held-out window), and ``cache/`` with a byte per base,
        which may be deleted.
    family
        Family of a new model, or of `model` where its files do not tell.
    sizes
        Sizes of a new model: fields of the family's configuration, e.g. ``{width: 64, depth: 4}``.
    model
        Release or folder to go on from, instead of a new model; what a recipe says of `sizes`
        and `tokenizer` then does not matter.
    model_changes
        Fields of the configuration of `model` to be changed that no weight depends on, such as
        ``{stretch: 16}`` (Evo: what rotary positions are divided by) or ``{positions: 8192}``.
    tokenizer
        Folder with a tokenizer.json, for new models whose words come from a file; `lexome
        tokenizer` makes one.
    regions
        BED of the regions to train on; everything by default. Each base is as likely as any
        other; a region shorter than a window is widened to one.
    validation
        What to hold out: contigs (``chr4``), regions (``chr5:1000-2000``, 0-based half-open), or
        BED files. No training window touches it.
    validation_windows
        Most windows to validate on, taken at even distances.
    length_bp
        Letters in a window. Give this or `length_tokens`.
    length_tokens
        Tokens in a window, special tokens included; the window ends where they are full.
    length_warmup
        Stages of shorter windows to begin with: ``steps``, ``length``, and ``batch`` if it
        differs. What is left of `steps` has full length.
    unknown_share
        Windows with a larger share of letters other than A, C, G, T and U are left out.
    both_strands
        Whether half of the windows are reverse complements.
    whole_sequences
        Whether each sequence of the FASTA is an example as it is, from its first letter and on one
        strand, cut where it is longer than a window: for coding sequences, whose codons begin
        there. Every sequence is then as likely, `unknown_share` does not matter, and `validation`
        names whole sequences.
    special_tokens
        Whether windows stand between the special tokens that the authors put around a sequence.
        Windows cut out of a genome end anywhere; a causal model that has to expect that gets
        somewhat worse at letters.
    random_length_share
        Share of training windows, by chance, that are cut to a random length of 5 letters (and at
        least a token) up to all. DNABERT cut half of them.
    mask_rate
        Share of tokens that masked models predict: 80 % of them hidden, 10 % replaced, 10 % kept.
        Overlapping k-mers are hidden in spans of k, whose centres are drawn at a rate of
        mask_rate / k, as DNABERT does.
    always_mask
        Whether all tokens to predict are hidden, as HELM does, and none replaced or kept.
    mask_rate_stages
        Stages of other mask rates to begin with: ``steps`` and ``mask_rate``. What is left of
        `steps` has `mask_rate`, and so has validation throughout.
    ignore_unknown
        Whether tokens with letters other than A, C, G, T and U carry no loss.
    soft_mask_weight
        Weight of lower-case letters in the training loss of masked models; upper case has 1.
    validation_soft_mask_weight
        The same in validation.
    steps
        Updates of the weights.
    batch_size
        Windows in a step, over all processes and micro-batches.
    accumulate
        Micro-batches into which each process cuts its share of a step, to save memory.
    learning_rate
        The highest.
    schedule
        How the learning rate falls: ``constant``, ``linear``, ``cosine`` or ``inverse-sqrt``, with
        the square root of the step.
    warmup_steps
        Steps over which it rises.
    decay_steps
        Steps at the end over which it falls; all after the warm-up by default.
    initial_rate
        Share of the learning rate from which the warm-up rises.
    final_rate
        Share of the learning rate that is left after the last step.
    weight_decay
        Of weights; biases, norms and what the family's authors spare get none.
    betas, eps
        Of AdamW.
    clip
        Largest norm of the gradient; 0 for no limit.
    precision
        ``float32``, ``bfloat16``, ``float16`` (GPU) or ``auto`` (bfloat16 where the hardware
        multiplies it natively): number type of the matrix products. Weights stay float32.
    recompute_layers
        Whether to keep only what goes into each layer and compute the rest again when gradients
        are taken: much less memory, about a third more time, the same numbers.
    seed
        Of weights, windows, strands, masks and dropout.
    workers
        Processes that prepare batches beside the one that trains.
    log_every
        Steps between two measurements of the training loss.
    evaluate_every
        Steps between two validations; a tenth of the run by default.
    save_every
        Steps between two checkpoints; a tenth of the run by default.
    keep_checkpoints
        Newest checkpoints to keep.
    resume
        Whether to go on with a run in `out`; otherwise it is deleted first.
    progress
        Whether to draw a bar on standard error; or a function that takes every measurement.

    Returns
    -------
    Folders, loss curve, validation and gain. A run that is already done is returned as it was.

    Raises
    ------
    InputError
        If arguments do not go together, no window can be trained on, the folder holds another
        run, or the loss becomes infinite.
    MissingExtra
        If the train extra is not installed.
    """
    given = dict(locals())
    for package in ("transformers", "accelerate", "tensorboard"):
        need(package, "train", "to train")
    fasta = [fasta] if isinstance(fasta, str | Path) else list(fasta)
    validation = [validation] if isinstance(validation, str | Interval) else list(validation)
    if not fasta or out is None:
        raise InputError(
            f"{'fasta' if not fasta else 'out'} is missing. Expected FASTA files to train on and "
            "a folder for the run: pretrain(..., fasta=['genome.fa'], out='run')."
        )
    _check_numbers(given)
    length, in_tokens = _window(length_bp, length_tokens)
    if model is not None and recipe is None and (sizes or tokenizer is not None):
        raise InputError(
            f"{'sizes' if sizes else 'tokenizer'} was given beside model={str(model)!r}, which "
            "has its own. Leave it out, or leave out model to train a new one."
        )
    if whole_sequences and both_strands:
        raise InputError(
            "whole_sequences and both_strands were given, but a sequence that begins with its "
            "frame has one strand. Give both_strands=False."
        )
    if model is None:
        if model_changes:
            raise InputError(
                "model_changes was given without a model to change. Give model, or sizes of a new "
                "one."
            )
        network, beginning = _made(family, sizes or {}, tokenizer, seed=seed), None
    else:
        network = _loaded(model, family)
        beginning = network.checkpoint_sha256()
        network = _changed(network, model_changes or {})
    objective = _take(Objective, given | {"kind": network.objective})
    if objective.kind == "causal" and {soft_mask_weight, validation_soft_mask_weight} != {1}:
        raise InputError(
            f"soft_mask_weight is {soft_mask_weight}, but {network.family.title} predicts the "
            "next token, whose loss has no weights. Leave it at 1, or train a masked model."
        )
    if objective.kind == "causal" and mask_rate_stages:
        raise InputError(
            f"mask_rate_stages was given, but {network.family.title} predicts the next token and "
            "hides none. Leave it out, or train a masked model."
        )
    mask_rates = plan_mask_rates(mask_rate_stages, steps=steps, rate=mask_rate)
    examples = _examples(network, objective, length, in_tokens=in_tokens)
    network.backbone.recompute = recompute_layers
    choice = choose_precision(precision, choose_device("auto"))
    if choice.dtype == torch.float16 and not torch.cuda.is_available():
        raise InputError("precision='float16' trains on a GPU only. Use 'auto' or 'float32'.")
    pick("schedule", schedule, SCHEDULES)

    from lexome.training.trainer import Optimization, Pretrainer, Rhythm, trainer_arguments

    run = Run(Path(out))
    optimization = _take(Optimization, given | {"betas": tuple(betas)})
    tenth = max(1, steps // 10)
    rhythm = Rhythm(
        log_every=log_every,
        evaluate_every=evaluate_every or tenth,
        save_every=save_every or tenth,
        keep_checkpoints=keep_checkpoints,
    )
    arguments = trainer_arguments(run, optimization, seed=seed, autocast=choice.dtype)
    is_first = arguments.process_index == 0
    stages = plan_stages(
        length_warmup,
        steps=steps,
        length=length,
        batch=batch_size,
        parts=accumulate * arguments.world_size,
    )
    asked = {  # what decides the loss curve; a resumption must ask for the same
        "family": network.family.name,
        "model": beginning,
        "sizes": asdict(network.config),
        "tokenizer": _hash(*examples.tokenizer.files().values()),
        "length_in_tokens": in_tokens,
        "stages": [asdict(stage) for stage in stages],
        **asdict(replace(optimization, accumulate=0)),
        **asdict(objective),
        "mask_rates": [asdict(each) for each in mask_rates],
        "random_length_share": random_length_share,
        "validation_soft_mask_weight": validation_soft_mask_weight,
        "validation_windows": validation_windows,
        "unknown_share": unknown_share,
        "both_strands": both_strands,
        "whole_sequences": whole_sequences,
        "precision": choice.name,
        "seed": seed,
    }
    with arguments.main_process_first(local=False):
        run.claim(asked, resume=resume or not is_first)
        letters = encode_letters(fasta, run.cache)
        parts = split(letters, regions=regions, validation=validation)
        run.confirm("fasta", letters.sha256)
        run.confirm("regions and validation", _hash(parts.training, parts.held_out))
    if (done := run.result()) is not None:
        return _read_result(run, done)
    batches = MicroBatches(
        letters,
        parts,
        examples,
        stages=stages,
        in_tokens=in_tokens,
        seed=seed,
        both_strands=both_strands,
        unknown_share=unknown_share,
        mask_rates=mask_rates,
        random_length_share=random_length_share,
        whole_sequences=whole_sequences,
        accumulate=accumulate,
        rank=arguments.process_index,
        processes=arguments.world_size,
    )
    held_out = None
    if len(parts.held_out):
        held_out = batches.validation(
            soft_mask_weight=validation_soft_mask_weight, most=validation_windows
        )
    if progress is True and is_first:
        print(_announcement(network, batches, held_out, choice.name), file=sys.stderr)
    trainer = Pretrainer(
        network,
        arguments,
        batches=batches,
        validation=held_out,
        optimization=optimization,
        rhythm=rhythm,
        run=run,
        autocast=choice.dtype,
        workers=workers,
        watch=None if isinstance(progress, bool) else progress,
        progress=progress is True,
    )
    trainer.fit(measure_before=model is not None)
    if is_first:
        trainer.network.save(run.model)
        before, last = run.windows("before"), run.windows("last")
        gained = None if before is None or last is None else asdict(gain(before, last))
        run.finish(
            {
                "lexome": __version__,
                "parameters": network.count_parameters(),
                "precision": choice.name,
                "seconds": round(trainer.seconds, 3),
                "gain": gained,
            }
        )
    trainer.accelerator.wait_for_everyone()
    return _read_result(run, cast(dict[str, Any], run.result()))


def _take(kind: type[_Settings], given: Mapping[str, Any]) -> _Settings:
    """Make a settings object from the arguments that have its fields' names."""
    return kind(**{field.name: given[field.name] for field in fields(cast(Any, kind))})


_WHOLE = {  # least value: arguments
    1: (
        *("steps", "batch_size", "accumulate", "decay_steps", "length_bp", "length_tokens"),
        *("validation_windows", "log_every", "evaluate_every", "save_every", "keep_checkpoints"),
    ),
    0: ("warmup_steps", "seed", "workers"),
}
_SHARES = ("mask_rate", "unknown_share", "random_length_share", "initial_rate", "final_rate")
_WEIGHTS = ("soft_mask_weight", "validation_soft_mask_weight")


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    for least, names in _WHOLE.items():
        for name in names:
            value = arguments[name]
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (is_whole and value >= least):
                raise InputError(
                    f"{name} is {value!r}. Expected a whole number of at least {least}."
                )
    for names, high, expected in (
        ((*_SHARES, *_WEIGHTS), 1.0, "between 0 and 1"),
        (("learning_rate", "weight_decay", "clip", "eps"), float("inf"), "of at least 0"),
    ):
        for name in names:
            value = arguments[name]
            if not isinstance(value, int | float) or not 0 <= value <= high:
                raise InputError(f"{name} is {value!r}. Expected a number {expected}.")
    if len(arguments["betas"]) != 2 or not all(0 <= beta < 1 for beta in arguments["betas"]):
        raise InputError(
            f"betas are {arguments['betas']!r}. Expected two numbers below 1, e.g. [0.9, 0.98]."
        )


def _window(length_bp: int | None, length_tokens: int | None) -> tuple[int, bool]:
    if (length_bp is None) == (length_tokens is None):
        given = "neither is" if length_bp is None else "both are"
        raise InputError(
            f"a window has either length_bp letters or length_tokens tokens; {given} given. "
            "Give one, e.g. length_bp=512."
        )
    return (length_bp, False) if length_bp is not None else (cast(int, length_tokens), True)


def _loaded(model: str | Path, family: str | None) -> Model:
    """Load the model to go on from."""
    network = load(model, family=family, device="cpu")
    _check_reads_sequences(network.family)
    wanted = network.family.pretraining_head(network.config)
    if network.head_name != wanted:
        raise InputError(
            f"{model} has {'no head' if network.head_name is None else network.head_name}, but "
            f"pretraining needs the {wanted!r} head. Give the pretrained checkpoint."
        )
    return network


def _changed(network: Model, changes: Mapping[str, Any]) -> Model:
    """Return a model with the same weights and some fields of its configuration changed."""
    if not changes:
        return network
    family = network.family
    known = [each.name for each in fields(network.config)]
    for name in changes:
        pick(f"setting of {family.title}", name, known)
    with torch.random.fork_rng(devices=[]):
        other = Model(family, replace(network.config, **changes), head=network.head_name)
    own, wanted = network.state_dict(), other.state_dict()
    differ = [name for name in {**own, **wanted} if _shape(own, name) != _shape(wanted, name)]
    if differ:
        raise InputError(
            f"model_changes is {dict(changes)}, but weights of this {family.title} depend on it: "
            f"{len(differ)} of them, such as {differ[0]}. Change only what no weight depends on, "
            "or train a new model with other sizes."
        )
    other.load_state_dict(own)
    folder = None if network.origin is None else network.origin.folder
    other.tokenizer = family.tokenizer(folder, other.config)
    return other


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _made(
    family: str | None, sizes: Mapping[str, Any], tokenizer: str | Path | None, *, seed: int
) -> Model:
    """Make a new model, with its tokenizer."""
    if family is None:
        raise InputError(
            "there is no model to train. Give the family of a new one (one of "
            f"{', '.join(families())}), a recipe, or model= to go on from."
        )
    known = families()[pick("family", family, families())]
    _check_reads_sequences(known)
    if tokenizer is None:
        return new(family, seed=seed, **sizes)
    folder = Path(tokenizer)
    folder = folder.parent if folder.name == "tokenizer.json" else folder
    words = read_tokenizer(folder)
    if words is None:
        raise InputError(
            f"{folder} has no tokenizer.json. Expected the folder that `lexome tokenizer` wrote, "
            "or that of a release."
        )
    network = new(family, seed=seed, **{"vocab_size": len(words.vocabulary), **sizes})
    network.tokenizer = known.tokenizer(folder, network.config)
    return network


def _check_reads_sequences(family: Family) -> None:
    if family.inputs != "sequence":
        raise InputError(
            f"{family.title} reads a {family.inputs} at a time and no sequences, so it cannot be "
            "pretrained on FASTA. Choose a family that reads sequences."
        )


def _examples(network: Model, objective: Objective, length: int, *, in_tokens: bool) -> Examples:
    """Check that the model can read windows of this length."""
    title, words = network.family.title, network.tokenizer
    if words is None:
        raise InputError(
            f"{title} reads words that are learnt from sequence first. Make them with `lexome "
            "tokenizer --fasta genome.fa --out words` and give tokenizer='words'."
        )
    if objective.kind == "masked" and words.mask is None:
        raise InputError(f"the tokenizer of {title} has no mask token. Give one that has.")
    examples = Examples(words, objective)
    tokens = length if in_tokens else examples.tokens_in(length)
    if tokens <= examples.special_tokens:
        raise InputError(
            f"{'length_tokens' if in_tokens else 'length_bp'} is {length}, which leaves room for "
            f"no token beside the {examples.special_tokens} special ones. Choose longer windows."
        )
    context = network.context
    if context is not None and tokens > context and examples.letters_per_token.max() == 1:
        raise InputError(
            f"a window has {tokens:,} tokens with special tokens, but this {title} reads at most "
            f"{context:,}. Choose shorter windows, or a model made for longer ones (sizes)."
        )
    return examples


def _announcement(
    network: Model, batches: MicroBatches, held_out: Validation | None, precision: str
) -> str:
    letters, length = batches.letters, batches.letters_of(batches.stages[-1])
    short = [c.end - c.start for c in letters.contigs if c.end - c.start < length]
    lines = [f"{network.family.title}, {network.count_parameters():,} parameters, {precision}"]
    if batches.whole_sequences:
        long = sum(c.end - c.start > length for c in letters.contigs)
        lines.append(
            f"{len(letters):,} letters in {len(letters.contigs):,} sequences, "
            f"{batches.windows():,} to train on; {long:,} are longer than {length:,} letters and "
            "are cut"
        )
        step = int(batches.examples.letters_per_token.max())
        broken = sum((c.end - c.start) % step > 0 for c in letters.contigs)
        if broken and batches.examples.tokenizer.spans("A" * step).shape[0] == 1:
            lines.append(
                f"{broken:,} sequences are no multiple of {step} letters long; what is left at "
                "their end has no token"
            )
    else:
        lines.append(
            f"{len(letters):,} letters in {counted(len(letters.contigs), 'contig')}; windows of "
            f"{length:,} may begin at {batches.windows():,} places"
        )
        if isinstance(batches.examples.tokenizer, CodonTokenizer):
            lines.append(
                "windows begin anywhere, so that codons are read in every frame; give "
                "whole_sequences for coding sequences"
            )
    if short and not batches.whole_sequences:
        lines.append(
            f"{len(short):,} contigs ({sum(short):,} letters) are shorter than a window and "
            "are not trained on"
        )
    if held_out is not None:
        spans = batches.split.held_out
        lines.append(
            f"{int((spans[:, 1] - spans[:, 0]).sum()):,} letters held out; validation looks at "
            f"{len(held_out):,} windows"
        )
    return "\n".join(lines)


def _read_result(run: Run, result: Mapping[str, Any]) -> Pretraining:
    history = tuple(run.history())
    validated = [each for each in history if each.validation_nats is not None]
    return Pretraining(
        model=run.model,
        best=run.best if validated else None,
        steps=history[-1].step,
        tokens=history[-1].tokens,
        seconds=result["seconds"],
        parameters=result["parameters"],
        precision=result["precision"],
        loss=[each.loss for each in history if each.loss is not None][-1],
        validation_nats=validated[-1].validation_nats if validated else None,
        validation_bits_per_base=validated[-1].validation_bits_per_base if validated else None,
        history=history,
        validation_nats_error=validated[-1].validation_nats_error if validated else None,
        validation_bits_per_base_error=(
            validated[-1].validation_bits_per_base_error if validated else None
        ),
        gain=Gain(**result["gain"]) if result.get("gain") else None,
    )


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.tobytes())
    return digest.hexdigest()

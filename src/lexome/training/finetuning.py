"""Fine-tuning of sequence models: classes, labels and values from labelled sequences.

This file is the front door: it checks what is asked and reads the data. `crossvalidation` lays out
the runs, `attempt` makes one, `tuning` holds the loop, `outcome` what comes out.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from lexome.core import InputError, need, pick
from lexome.core.messages import teller
from lexome.inference.adapters import ADAPTERS
from lexome.inference.heads import HEADS, OF_TOKENS, HeadKind
from lexome.inference.predictor import SETTINGS, Pooling
from lexome.training.attempt import WARMUP, HeadStart, Method, Plan
from lexome.training.baselines import BASELINES
from lexome.training.crossvalidation import plan_attempts, run_attempts
from lexome.training.labelled import Labelled
from lexome.training.metrics import METRICS, Task
from lexome.training.outcome import FineTuning
from lexome.training.parts import check_shares, read_parts
from lexome.training.recipe import takes_recipe
from lexome.training.run_folder import claim
from lexome.training.schedules import SCHEDULES, Schedule
from lexome.training.search import choose, combinations
from lexome.training.targets import NONE, Target

__all__ = ["FineTuning", "finetune"]


@takes_recipe("finetune")
def finetune(
    recipe: str | Path | None = None,
    *,
    model: str | Path | None = None,
    train: str | Path | Labelled | None = None,
    validation: str | Path | Labelled | None = None,
    test: str | Path | Labelled | None = None,
    out: str | Path | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    folds: int | None = None,
    plain_folds: bool = False,
    seeds: int = 1,
    search: Mapping[str, list[float | int | bool | str]] | None = None,
    sequence_column: str = "sequence",
    label_column: str | Sequence[str] = "label",
    unlabelled: str = NONE,
    upper: bool = False,
    max_unknown: float = 0.5,
    task: Task | None = None,
    method: Method = "full",
    pooling: Pooling | None = None,
    head: HeadKind = "linear",
    head_start: HeadStart | None = None,
    label_letters: str | None = None,
    both_strands: bool = False,
    max_tokens: int | None = None,
    overlap_tokens: int | None = None,
    epochs: int = 5,
    max_steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    schedule: Schedule = "linear",
    warmup_steps: int | None = None,
    warmup_fraction: float = WARMUP,
    weight_decay: float = 0.01,
    dropout: float = 0.1,
    clip: float = 1.0,
    balance_classes: bool = False,
    metric: str | None = None,
    evaluate_every: int | None = None,
    patience: int | None = 3,
    min_improvement: float = 0.0,
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.05,
    lora_rank_stabilised: bool = False,
    prompt_tokens: int = 20,
    baselines: Sequence[str] = ("majority", "kmer"),
    max_tokens_per_batch: int | None = None,
    seed: int = 0,
    resume: bool = True,
    overwrite: bool = False,
    progress: bool = True,
    device: str = "auto",
    precision: str = "float32",
) -> FineTuning:
    """Teach a pretrained model what labels say of sequences, and say what that was worth.

    Beside the model, baselines that need no pretraining get the same sequences. All are judged on
    the test sequences. The same command goes on where a kill stopped it.

    Parameters
    ----------
    recipe
        A YAML file with any of the arguments below, or the name of one that comes with the
        package. Arguments given beside it win.
    model
        Release or folder to begin with.
    train
        Labelled sequences: CSV, TSV, Parquet, or FASTA whose headers hold ``label=...`` or end in
        ``|`` and the label.
    validation
        Sequences that decide when to stop; by default `validation_fraction` of `train`.
    test
        Sequences to judge by; by default `test_fraction` of `train`, and if that is 0, validation.
    out
        Folder of the run. Gets ``model/`` for `lexome predict`, ``metrics.jsonl``,
        ``predictions.tsv``, ``outputs.npz`` and ``scores.json``.
    validation_fraction, test_fraction
        Share of `train` that is held out where there is no file; equal sequences stay together,
        and classes keep their shares.
    folds
        Divide `train` in so many folds and train as many models. With a test, each is validated on
        its fold and all are judged on the test; without, each is judged on its fold, which is then
        no validation. Means and standard deviations are shown, and the model of the best
        validation is kept.
    plain_folds
        Draw folds as scikit-learn's KFold does with the same seed, as published results did:
        classes may be spread unevenly and equal sequences come apart.
    seeds
        Train as many models of each fold, with `seed` and the numbers that follow.
    search
        Lists of values for some of the arguments below, such as ``{"learning_rate": [1e-4, 1e-3],
        "batch_size": [8, 32]}``. One model is trained with each combination, on the first fold
        and seed; the best on validation says what all models are then trained with. The test is
        judged with that alone.
    sequence_column
        Column of a table.
    label_column
        Column of a table, or several with commas between them; for FASTA, the word before ``=``.
    unlabelled
        Characters that mark letters without a class or value, for ``token_classification`` and
        ``token_regression``.
    upper
        Read all letters as upper case.
    max_unknown
        Largest share of letters that the model may not know; sequences with more are refused.
    task
        ``classification``: one class for a sequence. ``multilabel``: any number of labels, in
        columns of 0 and 1, or in one column with ``;`` or ``,`` between them and ``-`` for none.
        ``regression``: one or several columns of numbers. ``token_classification``: a class for
        each letter, as a text as long as the sequence or as words. ``token_regression``: one or
        several columns of numbers for the letters, from the first on; see `Target.encode`. By
        default what the labels look like.
    method
        ``full`` trains all weights; ``head`` only the head on the frozen backbone; ``lora`` and
        ``ia3`` the head and adapters of the linear layers; ``prompt`` the head and soft tokens
        before every sequence.
    pooling
        How the vector is made that the head reads: ``mean`` (by default), ``max``, ``cls``,
        ``last`` or ``concat`` (cls, max and mean).
    head
        ``linear``, or ``mlp``: dense, the activation of the model's authors, dropout, linear. Of
        families that are published with a classifier, mlp on cls is that, and ``model/`` is in
        the authors' layout with it. ``textcnn`` reads the vectors of all tokens: convolutions of
        3, 4 and 5 of them and the maximum over the sequence, as HELM's head; it begins random.
        ``letters`` of a causal model, with ``prompt``, is tuning in context: a class is a letter,
        its score that of the letter after the sequence, and only the soft tokens are learnt. With
        ``head`` nothing is learnt.
    head_start
        Whether the head begins as the best one on the frozen backbone, which is solved for
        (``solved``), or with ``random`` numbers, as most published results. By default solved,
        unless all weights are trained at a rate above 1e-4, which would undo it. A ``linear`` head
        that is solved for on a frozen backbone needs no epochs. Heads of letters begin random.
    label_letters
        The letter of each class, in their order, such as ``AN``; for ``letters``. By default those
        of HyenaDNA's authors, A and N for two classes, A, G and N for three.
    both_strands
        For what does not depend on the strand, such as binding: each training sequence is read
        from a strand drawn anew in each pass, and what is predicted comes from the mean of the
        vectors of both. Not for promoters, splice sites and transcripts, which have a direction.
    max_tokens, overlap_tokens
        Sequences of more tokens than the model takes (or than `max_tokens`) are cut into
        overlapping pieces and pooled over all of them, as by `lexome embed`.
    epochs
        Passes over the training sequences.
    max_steps
        Most steps in all.
    batch_size
        Sequences in a step.
    learning_rate
        The highest. By default what suits method and size; for full 3e-5 from 50 million
        parameters up, 1e-4 from 5 million, 1e-3 below.
    schedule
        How it falls after the warm-up: ``linear`` or ``cosine``, to 0, or ``constant``.
    warmup_steps, warmup_fraction
        Steps over which it rises, or their share of all; the number wins.
    weight_decay
        Of weights; biases and norms get none.
    dropout
        Of what the last matrix reads.
    clip
        Largest norm of the gradient; 0 for none.
    balance_classes
        Whether rare classes weigh as much as frequent ones.
    metric
        What decides on validation. For classes ``mcc`` (by default), ``accuracy``, ``macro_f1``,
        ``auc``, ``auprc``, ``macro_precision``, ``macro_recall``, ``log_loss``; for labels
        ``macro_auc`` (by default), ``macro_f1``, ``micro_f1``, ``exact_match``, ``macro_auprc``,
        ``macro_precision``, ``macro_recall``, ``log_loss``; for values ``r2`` (by default),
        ``pearson``, ``spearman``, ``rmse``.
    evaluate_every
        Judge on validation after so many steps; by default after each pass.
    patience
        Judgements without a better score after which to stop; ``none`` never does. The best
        weights are kept.
    min_improvement
        How much better a score must be to count for `patience`.
    lora_rank, lora_alpha, lora_dropout
        Of the adapters.
    lora_rank_stabilised
        Multiply their updates by alpha / sqrt(rank) instead of alpha / rank
        (arXiv:2312.03732), so that they keep their size for all ranks.
    prompt_tokens
        How many soft tokens.
    baselines
        What runs beside the model, the strongest last: ``majority``, ``kmer``, ``position``,
        ``cnn``; and for sequences that begin with their frame ``codon``.
    max_tokens_per_batch
        Tokens, padding counted, that go through the model at once; a step is cut accordingly. By
        default what suits the machine.
    seed
        Of held-out parts, folds, order and dropout.
    resume
        Go on with a run of the same arguments that was stopped. A run on its own loses at most a
        pass; of several runs, those that are done are kept.
    overwrite
        Replace a run in `out`.
    progress
        Whether to tell on standard error what is going on.
    device
        As for `lexome.load`.
    precision
        ``float32``, ``bfloat16``, or ``auto`` (bfloat16 where the hardware multiplies it
        natively): number type of the matrix products in training. Weights stay float32, and
        scores are those of float32.

    Returns
    -------
    Scores of model and baselines, sizes, duplicates between parts, predictions, and the folder.

    Raises
    ------
    InputError
        If labels are missing, of one class only, not numbers for regression, or in validation or
        test but not in training; or if arguments do not go together.
    FormatError
        If a file is not what its name says, or has no such column.
    MissingExtra
        If an adapter is asked for and PEFT is not installed.
    """
    if model is None or train is None or out is None:
        missing = "model" if model is None else "train" if train is None else "out"
        raise InputError(
            f"{missing} is missing. Expected a model, labelled sequences and a folder for the run: "
            "finetune(model='gpn-brassicales', train='train.csv', test='test.csv', out='run')."
        )
    given = dict(locals())
    _check(given)
    candidates = combinations(search) if search else []
    for values in candidates:
        _check({**given, **values})
    _check_beginning(model)
    if method in ADAPTERS:
        need("peft", "train", "for adapters (LoRA, IA3, soft tokens)")
    folder = Path(out)
    parts, target = read_parts(
        {"train": train, "validation": validation, "test": test},
        shares={
            "validation": 0.0 if folds else validation_fraction,
            "test": test_fraction,
        },
        sequence_column=sequence_column,
        label_column=label_column,
        upper=upper,
        task=task,
        unlabelled=unlabelled,
        seed=seed,
    )
    plan = _plan(given, target)
    attempts = plan_attempts(
        parts,
        target,
        folder,
        folds=folds,
        plain=plain_folds,
        seeds=seeds,
        seed=seed,
        validation_fraction=validation_fraction,
    )
    claim(folder, _asked(given, parts), resume=resume, overwrite=overwrite)
    how = {
        "label_column": ", ".join(target.columns),
        "progress": progress,
        "say": teller(aloud=progress),
    }
    if candidates:
        plan_of = lambda values: _plan({**given, **values}, target)  # noqa: E731
        plan = choose(candidates, plan_of, attempts[0], folder, **how)
    return run_attempts(attempts, plan, folder, parts["train"], **how)


def _plan(given: Mapping[str, Any], target: Target) -> Plan:
    """Gather what all runs share, checked against what is predicted."""
    task, of_letters = target.task, target.of_letters
    if given["balance_classes"] and (task == "multilabel" or not target.classes):
        what = "labels" if target.classes else "values"
        raise InputError(
            f"balance_classes is for classification, and these are {what}. Leave it out."
        )
    if of_letters and given["pooling"] is not None:
        raise InputError(
            f"pooling is {given['pooling']!r}, but each letter is predicted from its own vector. "
            "Leave it out."
        )
    if of_letters and given["both_strands"]:
        raise InputError(
            "both_strands is for whole sequences, and letters are predicted here, each of one "
            "strand. Leave it out."
        )
    if given["head"] in OF_TOKENS:
        _check_tokens(given, of_letters=of_letters)
    _check_label_letters(given, task)
    metric = given["metric"] or METRICS[task][0]
    warmup = given["warmup_steps"]
    own = {
        "target": target,
        "metric": pick(f"metric of {task}", metric, METRICS[task]),
        "pooling": given["pooling"] or ("last" if given["head"] == "letters" else "mean"),
        "warmup_steps": float(given["warmup_fraction"]) if warmup is None else warmup,
        "baselines": tuple(given["baselines"]),
    }
    names = [field.name for field in fields(Plan) if field.name not in {*own, "chosen"}]
    return Plan(**{name: given[name] for name in names}, **own)


def _check_tokens(given: Mapping[str, Any], *, of_letters: bool) -> None:
    """Refuse what does not go with a head that reads all tokens of a sequence."""
    head = given["head"]
    reasons = {
        "letters are predicted here": of_letters,
        "pooling was given": given["pooling"] is not None,
        "both_strands was given": given["both_strands"],
        "head_start='solved' was given": given["head_start"] == "solved",
    }
    for reason, holds in reasons.items():
        if holds:
            raise InputError(
                f"head is {head!r}, which reads all tokens of one strand of a sequence and begins "
                f"at random, but {reason}. Leave that out, or take another head."
            )


def _check_label_letters(given: Mapping[str, Any], task: str) -> None:
    """Refuse what does not go with classes that are letters."""
    if given["head"] != "letters":
        if given["label_letters"] is not None:
            raise InputError(
                f"label_letters is for head letters, and head is {given['head']!r}. Leave it out."
            )
        return
    wrong = [
        f"{name} is {given[name]!r}"
        for name, right in (("pooling", (None, "last")), ("head_start", (None,)))
        if given[name] not in right
    ]
    if task != "classification" or wrong:
        raise InputError(
            "head is 'letters', which reads the letter that follows each sequence as its one "
            f"class, but {wrong[0] if wrong else f'task is {task}'}. Leave that out, or take head "
            "linear."
        )


# What changes speed or place, and not what comes out.
_NO_MATTER = {
    *("recipe", "out", "resume", "overwrite", "progress", "device", "max_tokens_per_batch"),
    *("train", "validation", "test"),
}


def _asked(given: Mapping[str, Any], parts: Mapping[str, Labelled]) -> dict[str, Any]:
    """Return all that decides what comes out."""
    asked = {name: value for name, value in given.items() if name not in _NO_MATTER}
    for name, part in parts.items():
        digest = hashlib.sha256()
        for record, label in zip(part.records, part.labels, strict=True):
            digest.update(f"{record.sequence}\t{label}\n".encode())
        asked[f"{name}_sha256"] = digest.hexdigest()
    return asked


def _check(given: Mapping[str, Any]) -> None:
    pick("method", given["method"], get_args(Method))
    if given["pooling"] is not None:
        pick("pooling", given["pooling"], get_args(Pooling))
    pick("head", given["head"], HEADS)
    if given["head_start"] is not None:
        pick("head_start", given["head_start"], get_args(HeadStart))
    pick("schedule", given["schedule"], SCHEDULES)
    for name in given["baselines"]:
        pick("baseline", name, BASELINES)
    if given["task"] is not None:
        pick("task", given["task"], METRICS)
    for name in ("epochs", "batch_size", "seeds", "lora_rank", "prompt_tokens"):
        if type(given[name]) is not int or given[name] < 1:
            raise InputError(f"{name} is {given[name]!r}. Expected a whole number of at least 1.")
    least_of = {"max_steps": 1, "evaluate_every": 1, "patience": 1, "warmup_steps": 0, "folds": 2}
    for name, least in least_of.items():
        value = given[name]
        if value is not None and (type(value) is not int or value < least):
            raise InputError(f"{name} is {value!r}. Expected a whole number of at least {least}.")
    for name in ("warmup_fraction", "dropout", "lora_dropout"):
        if not 0 <= given[name] < 1:
            raise InputError(f"{name} is {given[name]!r}. Expected a share from 0 to below 1.")
    for name in ("learning_rate", "weight_decay", "clip", "lora_alpha", "min_improvement"):
        value = given[name]
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{name} is {value!r}. Expected a number of at least 0.")
    by_folds = given["folds"] and (given["test"] is not None or given["test_fraction"])
    check_shares(
        given["validation_fraction"],
        given["test_fraction"],
        has_validation=given["validation"] is not None or bool(by_folds),
    )


def _check_beginning(model: str | Path) -> None:
    """Refuse a fine-tuned model that is not whole; the error of a folder without one is less clear.

    Raises
    ------
    InputError
        With how to make it whole, or where it is.
    """
    folder = Path(model).expanduser()
    if (folder / "model" / SETTINGS).is_file():
        raise InputError(
            f"{folder} is the folder of a fine-tuning. Expected a model; give {folder / 'model'} "
            "to go on from what came out of it."
        )
    if (folder / SETTINGS).is_file():
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        if settings.get("method") != "full":
            raise InputError(
                f"{folder} holds what was trained beside {settings['base']['source']} (method "
                f"{settings['method']!r}), and no whole model. Give that base, or make one of both "
                f"with `lexome merge {folder} --out FOLDER`."
            )

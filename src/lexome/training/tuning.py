"""The loop of fine-tuning: steps over sequences of any length, judged on validation as it goes.

It is its own and small, since what it goes over is items cut into pieces and grouped by length,
which transformers' Trainer would collate and pad. Every run begins with the head that is best on
the frozen backbone (Kumar et al. 2022, arXiv:2202.10054), which is solved for and not stepped to;
heads of letters start from random numbers.
Axes: N items, L letters, D width, C scores: classes, labels or values.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lexome.core import InputError, atomic_path
from lexome.core.json_files import without_nan
from lexome.inference.batching import enough_memory, plan_batches, progress_bar, windows
from lexome.inference.letters import LetterPlaces, letter_places, letter_scores
from lexome.inference.predictor import OF_LETTERS, Predictor
from lexome.inference.reading import Item
from lexome.training.groups import keep_bounds, parameter_groups
from lexome.training.metrics import Task, goodness, measure
from lexome.training.regression import LinearFit, fit_best, loss_of
from lexome.training.schedules import Schedule, learning_rate_factor
from lexome.training.targets import labelled_rows
from lexome.training.vectors import pool_items, token_vectors

CHECKPOINT = "checkpoint.pt"
_AT_ONCE = 16  # batches whose tokens are predicted from together
_MOST_KEPT = 1 << 28  # numbers of a frozen backbone's tokens that are kept: 1 GB
_SAFE_EVERY_SECONDS = 300.0  # between checkpoints within a pass


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How the weights are stepped.

    Attributes
    ----------
    epochs, max_steps
        Passes over the training sequences, and most steps in all; None for no such limit.
    batch_size
        Sequences in a step.
    learning_rate, schedule, warmup_steps
        The highest rate; how it falls after the warm-up; steps of the rise.
    weight_decay, clip, dropout
        As for `finetune`.
    evaluate_every
        Steps between two judgements; None judges after each pass.
    patience, min_improvement
        Judgements without a score better by more than this after which to stop; None never does.
    """

    epochs: int
    max_steps: int | None
    batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup_steps: int | float
    weight_decay: float
    clip: float
    dropout: float
    evaluate_every: int | None
    patience: int | None
    min_improvement: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What was measured on the way; step 0 is before the first.

    Attributes
    ----------
    step, epoch
        After how many steps, and passes over the training sequences.
    seconds
        When, pauses between a kill and going on not counted.
    loss
        Mean training loss since the last; None before the first.
    validation
        Scores on validation.
    """

    step: int
    epoch: float
    seconds: float
    loss: float | None
    validation: Mapping[str, float]


@dataclass(frozen=True)
class Examples:
    """Sequences with what is true of them, as numbers.

    Parameters
    ----------
    items
        As the model takes them.
    truth
        As `Target.encode` gives it.
    """

    items: list[Item]
    truth: Any

    def __len__(self) -> int:
        return len(self.items)


class Tuner:
    """Training of one predictor, and its judgement on validation.

    Parameters
    ----------
    predictor
        Trained in place.
    train, validation
        What to learn from, and what decides.
    weights_C
        Weights of the classes; None for equal ones.
    metric
        What decides; one of the task's.
    budget
        Most tokens that go through the model at once, padding included.
    say
        Takes lines for people.
    folder
        Gets ``metrics.jsonl`` and, until the run is done, the checkpoint.
    progress
        Whether to show progress bars.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        train: Examples,
        validation: Examples,
        weights_C: NDArray | None,
        metric: str,
        budget: int,
        say: Callable[[str], object],
        folder: Path,
        progress: bool,
    ):
        self.predictor, self.metric, self.budget = predictor, metric, budget
        self.train, self.validation = train, validation
        self.say, self.folder, self.progress = say, folder, progress
        self.of_letters = predictor.task in OF_LETTERS
        self.other_strands = (
            predictor.other_strands(train.items) if predictor.both_strands else None
        )
        self.targets = self._numbers(train.truth)
        self.weights = self._weights(weights_C)
        self.history: list[Judgement] = []
        self.best = 0
        self._fixed_ND: Tensor | None = None  # vectors of a frozen backbone
        self._fixed_tokens: list[Tensor] = []  # the same of all tokens
        self._earlier = 0.0
        self._began = time.monotonic()

    # ---------------------------------------------------------------- numbers

    def _numbers(self, truth: Any) -> Any:
        """Return the truth as tensors, values in units of the head."""
        return list(map(self._scaled, truth)) if self.of_letters else self._scaled(truth)

    def _scaled(self, truth: NDArray) -> Tensor:
        if self.predictor.classes:
            return torch.from_numpy(truth)
        scaled = (truth - np.array(self.predictor.centre)) / np.array(self.predictor.scale)
        return torch.from_numpy(scaled).float()

    def _weights(self, weights_C: NDArray | None) -> Any:
        """Return the weight of each sequence, or of each letter: 0 where it has no label."""
        table = None if weights_C is None else torch.from_numpy(weights_C).float()
        if not self.of_letters:
            if table is None:
                return torch.ones(len(self.train))
            return table[self.targets]
        made = []
        for target_L in self.targets:
            known_L = torch.from_numpy(labelled_rows(target_L.numpy())).float()
            made.append(known_L if table is None else known_L * table[target_L.clamp(min=0)])
        return made

    def _rows(self, values: Any, rows: Sequence[int]) -> Tensor:
        if self.of_letters:
            return torch.cat([values[i] for i in rows])
        return values[list(rows)]

    # ---------------------------------------------------------------- judging

    def outputs(self, items: list[Item]) -> NDArray:
        """Predict, in evaluation mode and float32; of letters, all below each other."""
        self.predictor.model.eval()
        if self.predictor.head.reads_tokens:
            return self._outputs_of_tokens(items)
        if not self.of_letters:
            return self.predictor.outputs(self._vectors(items, "predicting"))
        with self._bar("predicting") as bar:
            found = list(self.predictor.letter_outputs(items, self.budget, bar.update))
        return np.concatenate(found)

    def _outputs_of_tokens(self, items: list[Item]) -> NDArray:
        """Predict some items at a time: the vectors of all tokens of all items take much room."""
        predictor = self.predictor
        with self._bar("predicting") as bar:
            found = [
                predictor.outputs(predictor.vectors(window, self.budget, bar.update))
                for window in windows(items, lambda i: i.tokens, max_size=_AT_ONCE * self.budget)
            ]
        return np.concatenate(found)

    def measured(self, outputs: NDArray, truth: Any) -> dict[str, float]:
        """Score outputs by every metric of the task."""
        task: Task = self.predictor.task  # type: ignore[assignment]
        return measure(task, outputs, np.concatenate(truth) if self.of_letters else truth)

    def _vectors(self, items: Sequence[Item], what: str) -> Any:
        with self._bar(what) as bar:
            return self.predictor.vectors(list(items), self.budget, bar.update)

    def _bar(self, what: str) -> Any:
        bar = progress_bar("bases", show=None if self.progress else False)
        bar.set_description(what)
        return bar

    def _judge(self, step: int, epoch: float, loss: float | None, outputs: NDArray) -> None:
        made = Judgement(
            step=step,
            epoch=round(epoch, 4),
            seconds=round(self._earlier + time.monotonic() - self._began, 3),
            loss=loss,
            validation=self.measured(outputs, self.validation.truth),
        )
        self.history.append(made)
        self._write_history()
        score = made.validation[self.metric]
        shown = f"validation {self.metric} {'-' if math.isnan(score) else f'{score:.3f}'}"
        if loss is None:
            self.say(f"before the first step: {shown}")
        else:
            self.say(f"step {step:,} (epoch {epoch:.3g}): training loss {loss:.4f}, {shown}")

    def _write_history(self) -> None:
        with atomic_path(self.folder / "metrics.jsonl") as temporary:
            lines = (json.dumps(without_nan(asdict(each))) + "\n" for each in self.history)
            temporary.write_text("".join(lines), encoding="utf-8")

    def _goodness(self, number: int) -> float:
        return goodness(self.metric, self.history[number].validation[self.metric])

    # ---------------------------------------------------------------- the head

    def begin(self, *, solve: bool, frozen: bool) -> None:
        """Judge the run before its first step.

        Parameters
        ----------
        solve
            Whether to look for the last matrix of the head that is best on the backbone as it is.
            Heads of letters are not solved for.
        frozen
            Whether the backbone stays as it is, so that its vectors are worth keeping.
        """
        predictor = self.predictor
        going_on = (self.folder / CHECKPOINT).is_file()
        if self.of_letters or not (solve or frozen) or (going_on and not frozen):
            if not going_on:
                self._judge(0, 0.0, None, self.outputs(self.validation.items))
            return
        predictor.model.eval()
        if predictor.head.reads_tokens:
            numbers = sum(item.tokens for item in self.train.items) * predictor.how.width
            if frozen and numbers <= _MOST_KEPT:
                found = self._vectors(self.train.items, "frozen backbone")
                self._fixed_tokens = [torch.from_numpy(tokens) for tokens in found]
            if not going_on:
                self._judge(0, 0.0, None, self.outputs(self.validation.items))
            return
        fixed_ND = torch.from_numpy(self._vectors(self.train.items, "frozen backbone"))
        self._fixed_ND = fixed_ND if frozen else None
        if going_on:
            return
        validation_ND = self._vectors(self.validation.items, "frozen backbone")
        if solve:
            self._solve(fixed_ND, validation_ND)
        self._judge(0, 0.0, None, predictor.outputs(validation_ND))

    def _solve(self, fixed_ND: Tensor, validation_ND: NDArray[np.float32]) -> None:
        predictor = self.predictor
        last = predictor.head.out

        def put(fitted: LinearFit) -> None:
            last.load_state_dict({"weight": fitted.weight_CD, "bias": fitted.bias_C})

        def judge(fitted: LinearFit) -> float:
            put(fitted)
            scores = self.measured(predictor.outputs(validation_ND), self.validation.truth)
            return goodness(self.metric, scores[self.metric])

        with torch.no_grad():
            hidden_NH = predictor.head.hidden(fixed_ND)
        fitted, _ = fit_best(
            hidden_NH,
            self.targets,
            outputs=last.out_features,
            judge=judge,
            weights_N=self.weights,
        )
        put(fitted)

    # ---------------------------------------------------------------- steps

    def parameters(self, *, frozen: bool) -> dict[str, nn.Parameter]:
        """Return what is trained, by name: the head and, unless it is frozen, the backbone's part.

        Parameters
        ----------
        frozen
            Whether the whole backbone stays as it is.
        """
        predictor = self.predictor
        head = predictor.head.named_parameters()
        found = {f"head.{n}": p for n, p in head if p.requires_grad}
        if not frozen:
            own = predictor.model.backbone.named_parameters()
            found |= {n: p for n, p in own if p.requires_grad}
        return found

    def fit(self, steps: Steps, *, frozen: bool, autocast: torch.dtype, seed: int) -> None:
        """Train, and leave the weights of the best judgement in place.

        Parameters
        ----------
        steps
            How.
        frozen
            Whether the head alone is trained.
        autocast
            Number type of the matrix products.
        seed
            Of order and dropout.
        """
        model, inside = self.predictor.model, self.predictor.model.backbone
        mine = set() if frozen else {id(p) for p in inside.parameters()}
        for parameter in model.parameters():  # the pretraining head, unless tied, has no part
            if id(parameter) not in mine:
                parameter.requires_grad_(False)
        parameters = self.parameters(frozen=frozen)
        loop = _Loop(self, steps, parameters, frozen=frozen, autocast=autocast, seed=seed)
        with torch.random.fork_rng():
            loop.run()
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(loop.kept[name])
        model.eval()

    def scores(self, rows: Sequence[int], dropout: float, autocast: torch.dtype) -> Tensor:
        """Return the head's scores of training sequences, or of all their letters, (N, C)."""
        model, head = self.predictor.model, self.predictor.head
        items = [self.train.items[i] for i in rows]
        if self.other_strands is not None:
            turned = (torch.rand(len(rows)) < 0.5).tolist()
            items = [
                self.other_strands[i] if turn else item
                for i, item, turn in zip(rows, items, turned, strict=True)
            ]
        narrow = (
            nullcontext()
            if autocast == torch.float32
            else torch.autocast(model.device.type, dtype=autocast)
        )
        x_ND, tokens = torch.zeros(0), []
        with narrow:
            if self.of_letters:
                x_ND = torch.cat(token_vectors(model, items))
            elif head.reads_tokens:
                tokens = [
                    self._fixed_tokens[i].to(model.device) for i in rows if self._fixed_tokens
                ]
                tokens = tokens or token_vectors(model, items)
            elif self._fixed_ND is not None:
                x_ND = self._fixed_ND[list(rows)].to(model.device)
            else:
                x_ND = pool_items(model, items, self.predictor.how)
        if head.reads_tokens:
            hidden_NH = torch.stack([head.hidden(x_TD.float()) for x_TD in tokens])
        else:
            hidden_NH = head.hidden(x_ND.float())
        scores = head.last(nn.functional.dropout(hidden_NH, dropout))
        if not self.of_letters:
            return scores
        by_item = scores.split([item.tokens for item in items])
        return torch.cat(
            [letter_scores(s, p) for s, p in zip(by_item, map(self._places, items), strict=True)]
        )

    def _places(self, item: Item) -> LetterPlaces:
        assert item.spans is not None, "asked for when the items were prepared"
        return letter_places(item.spans, item.length, self.predictor.head.places or 1)


class _Loop:
    """One run of steps, which a kill can stop and the same call takes up again."""

    def __init__(
        self,
        tuner: Tuner,
        steps: Steps,
        parameters: Mapping[str, nn.Parameter],
        *,
        frozen: bool,
        autocast: torch.dtype,
        seed: int,
    ):
        self.tuner, self.steps, self.parameters = tuner, steps, parameters
        self.frozen, self.autocast, self.seed = frozen, autocast, seed
        model, head = tuner.predictor.model, tuner.predictor.head
        head.to(model.device)
        self.per_epoch = -(-len(tuner.train) // steps.batch_size)
        self.total = min(steps.max_steps or sys.maxsize, self.per_epoch * steps.epochs)
        self.optimizer = torch.optim.AdamW(self._groups(), lr=steps.learning_rate)
        keep_bounds(model, self.optimizer)
        warmup = steps.warmup_steps
        warmup = round(warmup * self.total) if isinstance(warmup, float) else warmup
        factor = partial(
            learning_rate_factor,
            schedule=steps.schedule,
            steps=self.total,
            warmup_steps=min(warmup, self.total - 1),
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.step = 0
        self.waited = 0
        self.loss_sum, self.loss_weight = 0.0, 0.0
        self.kept = self._copy()
        self._saved = time.monotonic()
        lengths = (sum(len(p.tokens["input_ids"]) for p in i.pieces) for i in tuner.train.items)
        self.lengths = list(lengths)
        on_gpu = model.device.type == "cuda"
        # Training keeps the activations of all layers.
        self.budget = tuner.budget // len(model.backbone.layers) if on_gpu else tuner.budget

    def _groups(self) -> list[dict[str, Any]]:
        """Divide the parameters by whether they decay."""
        decay = self.steps.weight_decay
        head = [p for n, p in self.parameters.items() if n.startswith("head.")]
        groups = [
            {"params": [p for p in head if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in head if p.dim() == 1], "weight_decay": 0.0},
        ]
        if self.frozen:
            return groups
        wanted = {id(p) for p in self.parameters.values()}
        for group in parameter_groups(self.tuner.predictor.model, decay):
            kept = [p for p in group["params"] if id(p) in wanted]
            groups += [{**group, "params": kept}] if kept else []
        return groups

    def _copy(self) -> dict[str, Tensor]:
        return {name: p.detach().cpu().clone() for name, p in self.parameters.items()}

    def run(self) -> None:
        """Do all steps, from where a checkpoint says."""
        tuner, every = self.tuner, self.steps.evaluate_every
        torch.manual_seed(self.seed)
        self._restore()
        stopped = self._in_vain()
        while self.step < self.total and not stopped:
            epoch = self.step // self.per_epoch
            self._training()
            with progress_bar(
                "steps", total=self.per_epoch, show=None if tuner.progress else False
            ) as bar:
                bar.set_description(f"epoch {epoch + 1}")
                bar.update(self.step % self.per_epoch)
                for chosen in self._batches(epoch, self.step % self.per_epoch):
                    self._take(chosen)
                    bar.update()
                    at_end = self.step % self.per_epoch == 0 or self.step == self.total
                    if (
                        (every and self.step % every == 0)
                        or self.step == self.total
                        or (at_end and not every)
                    ):
                        stopped = self._judge()
                        self._training()
                        if not at_end and time.monotonic() - self._saved > _SAFE_EVERY_SECONDS:
                            self._save()
                    if stopped or self.step == self.total:
                        break
            self._save()
        if stopped:
            tuner.say(f"no better for {self.waited} judgements: stopped")

    def _training(self) -> None:
        self.tuner.predictor.model.train(not self.frozen)
        self.tuner.predictor.head.train()

    def _batches(self, epoch: int, first: int) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, epoch + 1)).permutation(len(self.tuner.train))
        size = self.steps.batch_size
        for start in range(first * size, len(order), size):
            yield order[start : start + size].tolist()

    def _take(self, chosen: list[int]) -> None:
        """Take one step, with the gradient in groups of similar length."""
        tuner = self.tuner
        place = tuner.predictor.model.device
        total = float(tuner._rows(tuner.weights, chosen).sum())
        for group in plan_batches([self.lengths[i] for i in chosen], self.budget):
            rows = [chosen[g] for g in group]
            with enough_memory([self.lengths[i] for i in rows]):
                scores_NC = tuner.scores(rows, self.steps.dropout, self.autocast)
                targets = tuner._rows(tuner.targets, rows).to(place)
                weights = tuner._rows(tuner.weights, rows).to(place)
                if tuner.of_letters:
                    scores_NC, targets, weights = (
                        each[weights > 0] for each in (scores_NC, targets, weights)
                    )
                loss = loss_of(scores_NC.float(), targets, weights)
                (loss / max(total, 1e-12)).backward()
            self.loss_sum += float(loss.detach())
        self.loss_weight += total
        nn.utils.clip_grad_norm_(self.parameters.values(), self.steps.clip or math.inf)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _judge(self) -> bool:
        """Measure; say whether it has been in vain for too long."""
        tuner, steps = self.tuner, self.steps
        loss = self.loss_sum / max(self.loss_weight, 1e-12)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss became {loss} by step {self.step:,}. Lower learning_rate "
                f"({steps.learning_rate:g}), or use precision='float32'."
            )
        self.loss_sum = self.loss_weight = 0.0
        outputs = tuner.outputs(tuner.validation.items)
        tuner._judge(self.step, self.step / self.per_epoch, loss, outputs)
        before, now = tuner._goodness(tuner.best), tuner._goodness(len(tuner.history) - 1)
        self.waited = 0 if now - before > steps.min_improvement else self.waited + 1
        if now > before:
            tuner.best, self.kept = len(tuner.history) - 1, self._copy()
        return self._in_vain()

    def _in_vain(self) -> bool:
        return self.steps.patience is not None and self.waited >= self.steps.patience

    # ---------------------------------------------------------------- going on after a kill

    def _save(self) -> None:
        """Keep all that the rest of the run depends on."""
        tuner = self.tuner
        state = {
            "step": self.step,
            "waited": self.waited,
            "loss": [self.loss_sum, self.loss_weight],
            "weights": self._copy(),
            "kept": self.kept,
            "best": tuner.best,
            "history": [asdict(each) for each in tuner.history],
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.random.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with atomic_path(tuner.folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        self._saved = time.monotonic()

    def _restore(self) -> None:
        tuner = self.tuner
        path = tuner.folder / CHECKPOINT
        if not path.is_file():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.random.set_rng_state(state["random"])
        if state["random_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.step, self.waited, self.kept = state["step"], state["waited"], state["kept"]
        self.loss_sum, self.loss_weight = state["loss"]
        tuner.best = state["best"]
        tuner.history[:] = [Judgement(**each) for each in state["history"]]
        tuner._earlier = tuner.history[-1].seconds
        tuner._began = time.monotonic()
        tuner._write_history()
        tuner.say(f"going on after step {self.step:,} of {self.total:,}")

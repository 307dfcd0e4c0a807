"""Pretraining on transformers' Trainer: what it does for us, and where we differ.

The Trainer brings devices, mixed precision, gradient accumulation, several processes, the state
of optimizer, schedule and random numbers. Ours are the data (micro-batches by number, never
prepared or skipped by the Trainer), the files (official layouts; a checkpoint counts only once
it is whole), the optimizer's groups and the measurements.

This module needs the train extra; import it inside functions.
"""

import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from lexome.catalog import load
from lexome.core import InputError
from lexome.model import Model
from lexome.training.datasets import Batch, From, MicroBatches, Validation
from lexome.training.groups import keep_bounds, parameter_groups
from lexome.training.runs import Measurement, Run, Watcher, step_of
from lexome.training.schedules import Schedule, learning_rate_factor
from lexome.training.validation import Score, errors, validate_windows


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the weights are changed: AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101).

    Parameters
    ----------
    steps
        Number of updates.
    learning_rate
        The highest.
    schedule, warmup_steps, decay_steps, initial_rate, final_rate
        See `learning_rate_factor`.
    weight_decay
        Of weights; biases, norms and what the family names in `undecayed` get none.
    betas, eps
        Of Adam.
    clip
        Largest norm of the gradient; 0 does not clip.
    accumulate
        Micro-batches of a process in a step.
    """

    steps: int
    learning_rate: float
    schedule: Schedule
    warmup_steps: int
    decay_steps: int | None
    initial_rate: float
    final_rate: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    clip: float
    accumulate: int


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """After how many steps what happens; all of it happens after the last one too."""

    log_every: int
    evaluate_every: int
    save_every: int
    keep_checkpoints: int


class Task(nn.Module):
    """The model as the Trainer sees it: a batch in, its loss out."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, a mean over the targets of the batch."""
        batch = dict(batch)
        loss = self.model(labels=batch.pop("targets"), **batch).loss
        assert loss is not None, "labels were given"
        return loss


def trainer_arguments(
    run: Run, optimization: Optimization, *, seed: int, autocast: torch.dtype
) -> TrainingArguments:
    """Set the Trainer up on this machine; says how many processes there are and which this is."""
    arguments = TrainingArguments(
        output_dir=str(run.checkpoints),
        max_steps=optimization.steps,
        gradient_accumulation_steps=optimization.accumulate,
        max_grad_norm=optimization.clip,
        seed=seed,
        bf16=autocast == torch.bfloat16,
        fp16=autocast == torch.float16,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        # When to log, evaluate and save is `_Clock`'s business.
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ignore_data_skip=True,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
    )
    # One process drives one device; without this the Trainer would split batches over all GPUs.
    _ = arguments.device
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


class Pretrainer(Trainer):
    """The training loop.

    Parameters
    ----------
    model
        With its pretraining head, float32.
    arguments
        As `trainer_arguments` makes them.
    batches, validation
        What is trained on, and what is held out, if anything is.
    optimization, rhythm
        How and when.
    run
        Where everything is written.
    autocast
        Number type of the matrix products; the weights stay float32.
    workers
        Processes that make batches beside this one; 0 makes them here.
    watch
        Called with every measurement, in the first process.
    progress
        Whether to draw a bar on standard error.
    """

    def __init__(
        self,
        model: Model,
        arguments: TrainingArguments,
        *,
        batches: MicroBatches,
        validation: Validation | None,
        optimization: Optimization,
        rhythm: Rhythm,
        run: Run,
        autocast: torch.dtype,
        workers: int,
        watch: Watcher | None,
        progress: bool,
    ):
        self.batches, self.validation = batches, validation
        self.optimization, self.rhythm, self.run = optimization, rhythm, run
        self.autocast, self.workers, self.watch = autocast, workers, watch
        self.progress = progress
        super().__init__(Task(model), arguments)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Clock(rhythm, has_validation=validation is not None))
        self._begin(0, [])

    def _begin(self, step: int, history: list[Measurement]) -> None:
        self.first_step = step
        self._tokens = history[-1].tokens if history else 0
        self._seconds_before = history[-1].seconds if history else 0.0
        self._started = time.monotonic()
        found = [h.validation_nats for h in history if h.validation_nats is not None]
        self._best = min(found, default=math.inf)

    @property
    def seconds(self) -> float:
        """Seconds of training so far, pauses between a stop and a resumption not counted."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, over all processes."""
        return self._tokens

    @property
    def network(self) -> Model:
        """The model, without what training wraps around it."""
        return self.accelerator.unwrap_model(self.model).model

    def fit(self, *, measure_before: bool = False) -> None:
        """Train to the last step, from the latest whole checkpoint if there is one.

        Parameters
        ----------
        measure_before
            Whether to validate before the first step too.
        """
        checkpoint = self.run.latest_checkpoint()
        self.accelerator.wait_for_everyone()  # all have looked before the first one tidies up
        if self.is_world_process_zero():
            self.run.tidy(checkpoint)
        self.accelerator.wait_for_everyone()
        history = self.run.history()
        self._begin(step_of(checkpoint) if checkpoint else 0, history)
        if checkpoint is not None and self.first_step == self.optimization.steps:
            self._load_from_checkpoint(str(checkpoint))
            return
        if self.is_world_process_zero():
            from torch.utils.tensorboard import SummaryWriter  # an extra

            writer = SummaryWriter(str(self.run.tensorboard), purge_step=self.first_step + 1)
            self.add_callback(TensorBoardCallback(writer))
        was_measured = any(each.validation_nats is not None for each in history)
        if measure_before and self.validation is not None and not was_measured:
            self.evaluate()
        if self.is_world_process_zero() and self.progress:
            self.add_callback(_Bar())
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    # ------------------------------------------------------------------ steps

    def get_train_dataloader(self) -> DataLoader[Batch]:
        """Return the micro-batches that are still to do."""
        first = self.first_step * self.optimization.accumulate
        return DataLoader(
            self.batches,
            batch_size=None,
            sampler=From(first, len(self.batches)),
            collate_fn=_unchanged,
            num_workers=self.workers,
            pin_memory=self.args.device.type == "cuda",
            # Its own: the global one must not be moved by looking at data.
            generator=torch.Generator(),
        )

    def training_step(self, model: nn.Module, inputs: Batch, *_: Any) -> Tensor:
        """Add the gradient of a micro-batch and return its share of the step's loss.

        Whole in itself, since how losses of micro-batches are averaged has changed from one
        version of the Trainer to the next.
        """
        mask = inputs.get("attention_mask")
        tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self._tokens += tokens * self.args.world_size
        model.train()
        loss = model(self._prepare_inputs(inputs)) / self.optimization.accumulate
        # Some versions let accelerate divide by its own count of micro-batches; undo that.
        self.accelerator.backward(loss * self.accelerator.gradient_accumulation_steps)
        return loss.detach()

    def create_optimizer(self, *_: Any) -> torch.optim.Optimizer:
        """Make AdamW with our groups."""
        how = self.optimization
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(
                parameter_groups(self.network, how.weight_decay),
                lr=how.learning_rate,
                betas=how.betas,
                eps=how.eps,
                fused=self.args.device.type in {"cpu", "cuda"},
            )
            keep_bounds(self.network, self.optimizer)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """Make our schedule."""
        how = self.optimization
        factor = partial(
            learning_rate_factor,
            schedule=how.schedule,
            steps=how.steps,
            warmup_steps=how.warmup_steps,
            decay_steps=how.decay_steps,
            initial_rate=how.initial_rate,
            final_rate=how.final_rate,
        )
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    # ------------------------------------------------------------ measurements

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        """Write a measurement down; stop if the loss is no number."""
        if "loss" not in logs:  # the Trainer's summary of the run, which the run's files have
            return
        if not math.isfinite(logs["loss"]):
            raise InputError(
                f"the loss became {logs['loss']} by step {self.state.global_step}. Lower "
                "learning_rate, raise warmup_steps, or use precision='float32'; what was saved "
                f"before is in {self.run.checkpoints}."
            )
        self._note(loss=logs["loss"], learning_rate=logs["learning_rate"])
        super().log(logs, *rest)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validate, and keep the model if it is the best so far."""
        assert self.validation is not None, "asked for by _Clock only with validation"
        windows_W3 = self._validate(self.validation)
        score, (nats_error, bits_error) = Score.of(windows_W3), errors(windows_W3)
        if score.nats < self._best:
            self._best = score.nats
            if self.args.should_save:
                self.network.save(self.run.best)
        if self.is_world_process_zero():
            self.run.note_windows("last" if self.state.global_step else "before", windows_W3)
        self._note(
            validation_nats=score.nats,
            validation_bits_per_base=score.bits_per_base,
            validation_nats_error=nats_error,
            validation_bits_per_base_error=bits_error,
        )
        metrics = {"eval_nats": score.nats, "eval_bits_per_base": score.bits_per_base}
        super().log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _validate(self, held_out: Validation) -> np.ndarray:
        """Return what each held-out window cost; the processes share them."""
        rank, processes = self.args.process_index, self.args.world_size
        batches = held_out.batches(self.batches.largest_micro_batch, rank=rank, processes=processes)
        mine = validate_windows(self.network, batches, held_out.examples, autocast=self.autocast)
        if processes == 1:
            return mine
        windows = torch.zeros(len(held_out), 3, dtype=torch.float64, device=self.args.device)
        windows[rank::processes] = torch.from_numpy(mine).to(windows)
        return self.accelerator.reduce(windows).cpu().numpy()

    def _note(self, **values: float | None) -> None:
        if self.is_world_process_zero():
            step = self.state.global_step
            seconds = round(self.seconds, 3)
            measurement = Measurement(step=step, tokens=self._tokens, seconds=seconds, **values)
            self.run.note(measurement)
            if self.watch is not None:
                self.watch(measurement)

    # ------------------------------------------------------------- checkpoints

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        super()._save_checkpoint(*arguments, **named)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = self.run.checkpoints / f"checkpoint-{self.state.global_step}"
            self.run.seal(folder, keep=self.rhythm.keep_checkpoints)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.args.should_save:
            assert output_dir is not None, "only checkpoints are saved through the Trainer"
            self.network.save(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        network = self.network
        saved = load(resume_from_checkpoint, family=network.family.name, device="cpu")
        network.load_state_dict(saved.state_dict())


def _unchanged(batch: Batch) -> Batch:
    return batch


class _Clock(TrainerCallback):
    """Say after each step what is due.

    Losses are averaged from one log to the next; there is one wherever a checkpoint is, so that
    a resumed run averages over the same steps.
    """

    def __init__(self, rhythm: Rhythm, *, has_validation: bool):
        self.rhythm, self.has_validation = rhythm, has_validation

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the Trainer's flags."""
        step, last = state.global_step, state.global_step >= state.max_steps
        control.should_save = last or step % self.rhythm.save_every == 0
        control.should_log = control.should_save or step % self.rhythm.log_every == 0
        control.should_evaluate = self.has_validation and (
            last or step % self.rhythm.evaluate_every == 0
        )


_LINES = 20  # of a run whose standard error is no terminal


class _Bar(TrainerCallback):
    """A bar on a terminal with the latest numbers; in a file, a line now and then."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw it."""
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            mininterval=0.5,
            file=sys.stderr,
            dynamic_ncols=True,
            disable=None,
        )
        self._numbers: dict[str, str] = {}
        self._told = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it."""
        self._bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Show loss and validation."""
        for key, title in (("loss", "loss"), ("eval_bits_per_base", "validation bits/base")):
            if key in (logs or {}):
                self._numbers[title] = f"{logs[key]:.4f}"
        self._bar.set_postfix(self._numbers, refresh=False)
        due = state.global_step - self._told >= state.max_steps / _LINES
        if self._bar.disable and (due or state.global_step >= state.max_steps):
            numbers = ", ".join(f"{title} {value}" for title, value in self._numbers.items())
            print(f"step {state.global_step:,} of {state.max_steps:,}: {numbers}", file=sys.stderr)
            self._told = state.global_step

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave it as it is."""
        self._bar.close()

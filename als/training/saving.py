"""What survives a kill: checkpoints that appear whole, the one before kept, signals obeyed."""

import io
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from als.errors import InputError
from als.files import UNWRITABLE, atomic_write

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
OBEYED = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}

say = rank_zero_only(print)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all; `last.ckpt` first becomes `previous.ckpt`.

    Lightning's own way writes to the system's temporary folder, from where moving the file is a
    copy that can be cut off.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        path = Path(path)
        with atomic_write(path, durable=True) as aside:
            aside.write_bytes(buffer.getbuffer())
            # Killed after this line a run has no last.ckpt, and resumes from the previous.
            if path.name == LAST and path.exists():
                path.replace(path.with_name(PREVIOUS))


def newest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """(path, step) of the newest whole checkpoint in `folder`; None where there is none at all.

    A damaged one is told in a sentence, and the one before it is taken. Raises InputError when
    none is whole.
    """
    paths = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for path in paths:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return path, int(state["global_step"])
        except Exception as error:  # torch raises many kinds for a broken file
            say(f"{path}: the checkpoint is cut off or damaged ({type(error).__name__}).")
    if paths:
        raise InputError(
            f"{folder}: no checkpoint here is whole; copy {LAST} here again, or remove the "
            "folder to start anew."
        )
    return None


class Best(ModelCheckpoint):
    """`best.ckpt`. Where a run goes on, the file itself says what the best so far is.

    Lightning forgets it in a folder that was moved, and the last checkpoint of a run whose time
    was over is from before its last validation.
    """

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, "ModelCheckpoint", 1)

    def load_state_dict(self, state_dict) -> None:
        best = Path(self.dirpath, f"{self.filename}{self.FILE_EXTENSION}")
        if not best.exists():
            return
        try:
            state = torch.load(best, map_location="cpu", weights_only=True, mmap=True)
            score, path = state["callbacks"][self.state_key]["best_model_score"], str(best)
        except Exception as error:  # of many kinds, for a broken file
            raise InputError(
                f"{best}: is cut off or damaged; copy it again, or remove it."
            ) from error
        self.best_model_score = self.kth_value = score
        self.best_model_path = self.kth_best_model_path = path
        self.best_k_models = {path: score}


class SaveLast(L.Callback):
    """Saves all that resuming needs, every so many steps, after every epoch and where a run stops.

    After a SIGTERM or Ctrl-C the step is finished, the run saved, and the process ends with
    status 128 + the signal's number. A second Ctrl-C ends it on the spot.

    Args:
        path: the checkpoint, `last.ckpt`.
        every: optimiser steps between two saves.
    """

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self.step = 0
        self.due = False
        self.asked_to_stop = 0  # the signal's number

    def on_train_start(self, trainer, module) -> None:
        self.step = trainer.global_step
        self.asked_to_stop = signal.SIGTERM if trainer.received_sigterm else 0
        # Lightning's handler ends the run unsaved, and of several processes it stops each at
        # another step. It puts the handler of before back when the run ends.
        if threading.current_thread() is threading.main_thread():
            for number in OBEYED:
                signal.signal(number, self._ask_to_stop)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self.step:  # gradients accumulate, or the batch was skipped
            trainer.should_stop = False  # where the time is over, the step is finished first
            return
        self.step = trainer.global_step
        self.due = self.due or self.step % self.every == 0
        # Where lightning ends the run within an epoch it then takes that for the epoch's end.
        ends = trainer.should_stop or self.step == trainer.max_steps
        # A validation that comes after this step would be left out on resuming.
        validates = trainer.enable_validation and (batch_idx + 1) % trainer.val_check_batch == 0
        if trainer.is_last_batch or (validates and not ends):
            return
        stop = self._all_stop(trainer)
        if stop or ends or self.due:
            self._save(trainer)
        if stop:
            self._leave()

    def on_train_epoch_end(self, trainer, module) -> None:
        if trainer.is_last_batch:
            self._save(trainer)
        if self._all_stop(trainer):
            self._leave()

    def on_save_checkpoint(self, trainer, module, checkpoint) -> None:
        checkpoint["skipped"] = _total_skipped(trainer, module)
        checkpoint["counted"] = _counted(trainer, module)
        checkpoint["images"] = trainer.datamodule.train_sampler(trainer).global_batch

    def on_load_checkpoint(self, trainer, module, checkpoint) -> None:
        made, now = checkpoint.get("counted"), _counted(trainer, module)
        if made is not None and made != now:
            told = ", ".join(f"{made[name]} {name}, now {now[name]}" for name in now)
            raise InputError(
                f"{self.path}: was saved by a run of {told}; resume with as many images a batch, "
                "all processes together, and a step of as many batches."
            )
        # Another batch may make as many steps: of 6 images there is one batch of 4, and one of 6.
        images = trainer.datamodule.train_sampler(trainer).global_batch
        if checkpoint.get("images", images) != images:
            raise InputError(
                f"{self.path}: was saved by a run of {checkpoint['images']} images a batch, now "
                f"{images}; resume with as many, all processes together."
            )
        if trainer.is_global_zero:
            module.skipped = checkpoint.get("skipped", 0)

    def on_train_end(self, trainer, module) -> None:
        skipped = _total_skipped(trainer, module)
        if skipped:
            say(f"{skipped} samples could not be read and were skipped")

    def _save(self, trainer: L.Trainer) -> None:
        """Every process takes part. False: optimiser and schedule too, not the weights alone."""
        self.due = False
        trainer.save_checkpoint(self.path, weights_only=False)

    def _ask_to_stop(self, number, frame) -> None:
        self.asked_to_stop = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            say("Ctrl-C: the step is finished and saved; once more ends at once", flush=True)

    def _all_stop(self, trainer: L.Trainer) -> bool:
        """Whether any process was asked to stop: then all do, at the same step."""
        return trainer.strategy.reduce_boolean_decision(bool(self.asked_to_stop), all=False)

    def _leave(self) -> None:
        number = signal.Signals(self.asked_to_stop or signal.SIGTERM)
        by = OBEYED[number]
        say(f"stopped by {by}: {self.path} holds step {self.step}; --resume goes on from it")
        raise SystemExit(128 + number)


@contextmanager
def interrupts_put_back() -> Iterator[None]:
    """Ctrl-C means after the block what it meant before; lightning does so of SIGTERM alone."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def ignore_interrupts(worker: int) -> None:
    """For the processes that load images: Ctrl-C reaches them too, and the step needs them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _counted(trainer: L.Trainer, module) -> dict[str, int]:
    """What a place within the run is counted by."""
    batches = len(trainer.datamodule.train_sampler(trainer))
    return {"batches an epoch": batches, "steps in all": module.total_steps}


def _total_skipped(trainer: L.Trainer, module) -> int:
    own = torch.tensor(float(module.skipped), device=module.device)
    return int(trainer.strategy.reduce(own, reduce_op="sum"))


@contextmanager
def failures_in_a_sentence(out: Path) -> Iterator[None]:
    """A disk that cannot be written and a worker that dies end a run with an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        named = error.filename if isinstance(error.filename, str) else out
        place, own = Path(named).resolve(), out.resolve()
        if not (place.is_relative_to(own) or own.is_relative_to(place)):  # as data, which are read
            told = f"{named}: cannot be used ({error.strerror}); make room, mend its mode"
            raise InputError(f"{told}, or give another place. {_kept(out)}") from error
        raise InputError(
            f"{named}: cannot be written ({error.strerror}); make room, or choose "
            f"another --out. {_kept(out)}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"memory ran out ({' '.join(str(error).split())[:100]}); begin a new run with a lower "
            f"data.batch_size, or data.max_size. {_kept(out)}"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        # The workers' end is told by whoever notices first; only one of them knows the cause.
        causes = [str(e) for e in (error, error.__cause__, error.__context__) if e is not None]
        cause = next((c for c in causes if "signal" in c or "exit code" in c), causes[0])
        raise InputError(
            f"{' '.join(cause.split()).rstrip('.')}; a worker killed by the system most often "
            f"found no memory left: lower data.workers or data.min_sizes. {_kept(out)}"
        ) from error


def _kept(out: Path) -> str:
    for name in (LAST, PREVIOUS):
        path = out / "checkpoints" / name
        if path.exists():
            return f"{path} is as it was; --resume goes on from it."
    return "No checkpoint was saved yet."

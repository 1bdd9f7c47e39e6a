"""A folder of numbered training states. Each state is complete or absent."""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from refinejax._files import canonical_json, hash_json
from refinejax.checkpoint.arrays import check_one_process, read_meta, read_step, write_step
from refinejax.checkpoint.leaves import Leaf, compare, describe
from refinejax.checkpoint.settings import check_same
from refinejax.checkpoint.sums import fault, seal, sealed, unseal
from refinejax.checkpoint.versions import changes, check_format, versions

_FORMAT = 1


class Saved(NamedTuple):
    """A state that `Checkpoints.restore` found.

    Attributes:
        step: the number of the step.
        state: the pytree.
    """

    step: int
    state: Any


class Checkpoints:
    """A folder of numbered states of a training, by Orbax's ``CheckpointManager``.

    A process that is killed at any moment loses at most the step that it was writing: a step counts
    once its checksums are there, and older steps are removed only then. Arrays, typed keys and
    Python numbers are kept exactly; anything else is refused, and nothing is pickled. Beside the
    state, a step holds its number, the config, package versions and the SHA-256 of every file.

    One process writes; others may read at the same time.

    Args:
        folder: where; made when the first step is written.
        keep: how many of the newest steps to keep.
        config: the settings of the training, as JSON can hold them. A state that was written with
            another config is not restored. None accepts any.

    Raises:
        ValueError: for a ``keep`` below 1, or a ``config`` that JSON cannot hold.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep: int = 3,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"keep: expected an integer of 1 or more, got {keep!r}")
        canonical_json(config, "config")
        self.folder, self.keep = Path(folder).absolute(), keep
        self.config = None if config is None else dict(config)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that were written to the end, in ascending order."""
        return tuple(step for step in self._found() if sealed(self._path(step)))

    def save(self, step: int, state: Any) -> None:
        """Write a state, then remove the oldest beyond ``keep``.

        Args:
            step: the number of the step, 0 or more.
            state: a pytree of arrays, typed keys and Python numbers.

        Raises:
            ValueError: for another leaf (names it), a step that is already there, or several
                processes.
            OSError: if the state cannot be written. Earlier steps are still there.
        """
        check_one_process("Checkpoints.save")
        leaves = describe(state, "state")
        self._make_room(step)
        meta = {
            "format": _FORMAT,
            "step": step,
            "config": self.config,
            "config_sha256": hash_json(self.config, "config"),
            "versions": versions(),
            "leaves": [leaf._asdict() for leaf in leaves],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_step(self.folder, step, state, meta)
            seal(self._path(step))
        except Exception as error:  # Orbax reports a full disk as a ValueError
            for part in (self._path(step), *self.folder.glob(f"{step}.*")):
                shutil.rmtree(part, ignore_errors=True)
            raise OSError(
                f"folder: cannot write step {step} to {self.folder} ({error}); make room, or name "
                "another folder; what was saved before is still there"
            ) from error
        self._retire(step)

    def _make_room(self, step: int) -> None:
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"step: expected a number of 0 or more, got {step!r}")
        if not self._path(step).exists():
            return
        if fault(self._path(step)) is None:
            raise ValueError(
                f"step: {self.folder} has a step {step} already; to go on, `restore` first; for a "
                "new training name another folder"
            )
        self._remove(step)

    def _retire(self, step: int) -> None:
        """Remove old and unfinished steps. Steps with a higher number stay."""
        finished = [other for other in self.steps if other <= step]
        unfinished = set(self._found()) - set(self.steps)
        for other in [*finished[: -self.keep], *unfinished]:
            self._remove(other)

    def _remove(self, step: int) -> None:
        unseal(self._path(step))  # first: a step that is half removed must not count
        shutil.rmtree(self._path(step))

    def restore(self, like: Any, *, step: int | None = None, shardings: Any = None) -> Saved:
        """Read the newest step that is intact, with a warning that names damaged newer steps.

        Args:
            like: a pytree of the same structure whose leaves give the expected dtypes and shapes,
                NumPy or JAX, and the devices; ``jax.ShapeDtypeStruct`` is enough.
            step: read this step only.
            shardings: where to place the arrays instead: a sharding, or a pytree prefix of ``like``
                with shardings and None. The state may have been written from any number of devices.

        Returns:
            The step and its state.

        Raises:
            FileNotFoundError: if there is no finished step, or not the one asked for.
            ValueError: if all steps are damaged; for a leaf whose dtype or shape differs from
                ``like`` (names it); for another config (names the keys), or a newer format.
        """
        chosen = self._newest() if step is None else self._this(step)
        meta = read_meta(self.folder, chosen)
        source = f"step {chosen} in {self.folder}"
        check_format(meta["format"], _FORMAT, source)
        if self.config is not None:
            check_same(meta["config"], self.config, source)
        saved = [Leaf.read(entry) for entry in meta["leaves"]]
        compare(saved, describe(like, "state"), source, "state")
        if changed := changes(meta["versions"]):
            warnings.warn(
                f"{source} was written with {changed}: the state is the same, but a training that "
                "continues from it may differ in the last bits",
                stacklevel=2,
            )
        return Saved(chosen, read_step(self.folder, chosen, saved, like, shardings))

    def _newest(self) -> int:
        faults = []
        for step in reversed(self._found()):
            if (why := fault(self._path(step))) is None:
                if faults:
                    warnings.warn(
                        f"{self.folder}: passed over {'; '.join(faults)}; step {step} is whole",
                        stacklevel=3,
                    )
                return step
            faults.append(f"step {step} ({why})")
        if self.steps:
            raise ValueError(
                f"{self.folder}: no step can be used: {'; '.join(faults)}; start again in another "
                "folder"
            )
        raise FileNotFoundError(
            f"{self.folder}: no finished step{f', only {faults[0]}' if faults else ''}; is it the "
            "right folder?"
        )

    def _this(self, step: int) -> int:
        why = fault(self._path(step)) if step in self._found() else "it is not there"
        if why is None:
            return step
        kind = ValueError if step in self.steps else FileNotFoundError
        raise kind(
            f"step: {self.folder} has no step {step} that can be used ({why}); finished steps: "
            f"{[*self.steps]}"
        )

    def _found(self) -> list[int]:
        """Return all steps, finished or not, in ascending order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

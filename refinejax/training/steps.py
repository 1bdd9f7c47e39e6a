"""The compiled part of a training: its start, its steps and its validations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, Shaped

from refinejax._checks import check_params
from refinejax._trees import select
from refinejax.learned.schedules import learning_rate
from refinejax.training.check import alike, check_grad, check_metrics, check_scalars, firm
from refinejax.training.optimizers import optimizer
from refinejax.training.state import Live, Numbers, Recipe, Window

ROWS = 1024  # lines of the log that one call can write, and so the most steps in one
Rows = dict[str, Shaped[Array, " rows"]]


@functools.partial(jax.jit, static_argnames="recipe")
def start(task: Any, numbers: Numbers, key: PRNGKeyArray, *, recipe: Recipe) -> Live:
    """Return the state in which a training begins.

    Args:
        task: to be trained.
        numbers: settings that are leaves.
        key: of the random numbers.
        recipe: settings that are compiled in; static.
    """
    first, second = jax.random.split(key)
    weights = firm(check_params(task.init(first), "weights"))
    memory = firm(task.begin(weights, second))
    zero = jnp.int32(0)
    gradient = functools.partial(_gradient, recipe=recipe)
    shapes = jax.eval_shape(gradient, task, weights, memory, zero, key)
    check_metrics(shapes[3])
    names = ("loss", "grad_norm", *shapes[3])
    return Live(
        step=zero,
        weights=weights,
        optimizer=firm(_optimizer(recipe, numbers, zero).init(weights)),
        average=_precise(weights) if recipe.averaging else None,
        memory=memory,
        skipped=zero,
        lost=zero,
        window=Window({name: jnp.zeros(()) for name in names}, zero),
    )


@functools.partial(jax.jit, static_argnames="recipe", donate_argnames="live")
def advance(
    task: Any, numbers: Numbers, live: Live, key: PRNGKeyArray, count: Any, *, recipe: Recipe
) -> tuple[Live, Rows, Int[Array, ""]]:
    """Take ``count`` steps, up to `ROWS`, or fewer if it is to be given up.

    How many is a number and not a size: all calls run the same program, so that where a training
    is interrupted does not change what it computes.

    Args:
        task: to be trained.
        numbers: settings that are leaves.
        live: where the training is.
        key: of the random numbers.
        count: how many steps, a number: it does not compile anew.
        recipe: settings that are compiled in; static.

    Returns:
        where it stands, the lines for the log, and how many there are.
    """
    begun = live.step
    rows = {name: jnp.zeros(ROWS) for name in ("learning_rate", *live.window.sums)}
    rows |= {name: jnp.zeros(ROWS, jnp.int32) for name in ("step", "skipped")}

    def more(carry: Any) -> Any:
        live, _, _ = carry
        return (live.step - begun < count) & (live.lost < numbers.give_up)

    def body(carry: Any) -> Any:
        live, rows, filled = carry
        rate = learning_rate(
            recipe.schedule, numbers.learning_rate, live.step, numbers.warmup, numbers.steps
        )
        live = _step(task, numbers, live, key, recipe)
        due = live.step % numbers.log_every == 0
        row = {"step": live.step, "learning_rate": rate, "skipped": live.skipped}
        row |= live.window.means()
        at = jnp.where(due, filled, ROWS)  # beyond the end: dropped
        rows = {name: rows[name].at[at].set(row[name], mode="drop") for name in rows}
        window = select(due, jax.tree.map(jnp.zeros_like, live.window), live.window)
        return live.replace(window=window), rows, filled + due

    return jax.lax.while_loop(more, body, (live, rows, jnp.int32(0)))


@functools.partial(jax.jit, static_argnames="recipe")
def validate(
    task: Any, live: Live, key: PRNGKeyArray, *, recipe: Recipe
) -> tuple[dict[str, Any], Any]:
    """Return the numbers of a validation, and the weights they hold for.

    Args:
        task: to be trained.
        live: where the training is.
        key: of the held-out data.
        recipe: settings that are compiled in; static.

    Raises:
        ValueError: if the numbers are not real scalars, or have no "loss".
    """
    del recipe
    weights = live.current()
    numbers = task.validate(weights, key)
    check_scalars(numbers, "validate")
    if "loss" not in numbers:
        raise ValueError(
            f"task: validate returned {', '.join(numbers) or 'nothing'}; it must return a 'loss'"
        )
    return numbers, weights


@functools.partial(jax.jit, static_argnames="recipe")
def _gradient(
    task: Any, weights: Any, memory: Any, step: Int[Array, ""], key: PRNGKeyArray, *, recipe: Recipe
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Ask the task; a function of its own, so that it is traced once."""
    del recipe
    loss, grad, after, metrics = task.loss_and_grad(weights, memory, step, key)
    check_scalars({"loss": loss}, "loss_and_grad")
    check_grad(grad, weights)
    return loss, grad, alike(after, memory, "memory"), metrics


def _step(task: Any, numbers: Numbers, live: Live, key: PRNGKeyArray, recipe: Recipe) -> Live:
    """Take a step, or skip it if the loss or the gradient is not finite."""
    key, again = jax.random.split(jax.random.fold_in(key, live.step))
    loss, grad, memory, metrics = _gradient(
        task, live.weights, live.memory, live.step, key, recipe=recipe
    )
    norm = optax.tree.norm(_precise(grad))
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    clipped = _shorten(grad, norm, numbers.clip)
    rule = _optimizer(recipe, numbers, live.step)
    updates, state = rule.update(clipped, live.optimizer, live.weights)
    weights = optax.apply_updates(live.weights, updates)
    new = (weights, alike(state, live.optimizer, "optimizer", cast=True))
    weights, state = select(finite, new, (live.weights, live.optimizer))
    average = live.average
    if average is not None:
        decay = _decay(numbers.average, live.step - live.skipped)
        average = select(finite, _mix(average, weights, decay), average)
    return Live(
        step=live.step + 1,
        weights=weights,
        optimizer=state,
        average=average,
        memory=_memory(task, finite, memory, live.replace(weights=weights), again),
        skipped=live.skipped + ~finite,
        lost=jnp.where(finite, 0, live.lost + 1),
        window=_count(live.window, {"loss": loss, "grad_norm": norm, **metrics}, finite),
    )


def _optimizer(recipe: Recipe, numbers: Numbers, step: Any) -> optax.GradientTransformation:
    rate = learning_rate(
        recipe.schedule, numbers.learning_rate, step, numbers.warmup, numbers.steps
    )
    return optimizer(recipe.optimizer, rate, numbers.weight_decay)


def _shorten(grad: Any, norm: Any, longest: Any) -> Any:
    """Scale a gradient to ``longest`` if it is longer (Pascanu et al. 2013, algorithm 1)."""
    scale = jnp.where(norm > longest, longest / norm, 1)
    return jax.tree.map(lambda g: (g * scale).astype(g.dtype), grad)


def _decay(decay: Any, taken: Any) -> Any:
    """Keep the first weights from staying in the average for long."""
    return jnp.minimum(decay, (1 + taken) / (10 + taken))


def _mix(average: Any, weights: Any, decay: Any) -> Any:
    def mix(a: Array, w: Array) -> Array:
        return (decay * a + (1 - decay) * w.astype(a.dtype)).astype(a.dtype)

    return jax.tree.map(mix, average, weights)


def _memory(task: Any, finite: Any, memory: Any, live: Live, key: PRNGKeyArray) -> Any:
    """Begin the memory anew after a step that was skipped, as it may hold NaN."""
    if not jax.tree.leaves(memory):
        return memory
    renew = getattr(task, "renew", None)

    def anew() -> Any:
        if renew is None:
            return alike(task.begin(live.weights, key), memory, "memory")
        return alike(renew(live.weights, live.memory, live.step, key), memory, "memory")

    return jax.lax.cond(finite, lambda: memory, anew)


def _count(window: Window, values: dict[str, Any], finite: Any) -> Window:
    sums = {
        name: total + jnp.where(finite, values[name], 0).astype(total.dtype)
        for name, total in window.sums.items()
    }
    return Window(sums, window.count + finite)


def _precise(tree: Any) -> Any:
    """Give leaves float32 or better, in which sums of many small numbers are not lost."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

"""Gradient steps of finite size, and what exactly they do to the conserved quantities.

    u_l <- momentum u_l + Delta_l,        W_l <- W_l + eta u_l,        Delta = the flow's velocity at the weights

(torch.optim.SGD's rule, with the flow's decay as its weight_decay). The limit eta -> 0 at fixed time is the flow, sped
up by 1 / (1 - momentum). Each step changes the conserved quantities of Theorem 5.2 by an amount that has a formula
(theorems/README.md, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim.flow import Flow
from flowsim.validation import require_positive, require_within
from flowsim.weights import AnyWeights, require_weights


@dataclass(frozen=True, eq=False)
class State(Generic[AnyWeights]):
    """Where a descent is.

    Args:
        weights: W_1 .. W_{H+1}.
        update: u_1 .. u_{H+1}, shaped like them.
        mismatch: <B_{l+1}[:, i], u_{l+1}[:, i]> - <W_l[i, :], u_l[i, :]> of each hidden layer, `*batch x m_l`, from
            its recursion. Without momentum the next step takes none of it.
        correction: what the steps have added to `observables.conserved` so far, `*batch x m_l`, from the formula.

    Both are NaN for a layer at which the rule conserves nothing, from the first step on.
    """

    weights: AnyWeights
    update: tuple[Tensor, ...]
    mismatch: tuple[Float[Tensor, "*batch _m"], ...]
    correction: tuple[Float[Tensor, "*batch _m"], ...]


def start(weights: AnyWeights) -> State[AnyWeights]:
    """The state before the first step: at rest.

    Raises:
        ValueError: if these are no weights.
    """
    require_weights("weights", weights)
    none = tuple(torch.zeros_like(layer) for layer in weights.layers)
    per_neuron = tuple(torch.zeros_like(layer[..., 0]) for layer in weights.layers[:-1])
    return State(weights, none, per_neuron, per_neuron)


def step(flow: Flow, state: State[AnyWeights], eta: float, momentum: float = 0.0) -> State[AnyWeights]:
    """One full-batch step of size eta.

    The conserved quantity c of a neuron changes by

        eta carried + D_Psi(W_{l+1}[:, i]', W_{l+1}[:, i]) - |W_l[i, :]' - W_l[i, :]|^2 / 2,
        carried = momentum mismatch - decay (<B_{l+1}[:, i], W_{l+1}[:, i]> - |W_l[i, :]|^2)

    where ' is after the step and D_Psi the Bregman divergence of the rule's potential, `Rule.divergences`: under FA,
    without momentum and decay by - eta^2 |Delta_l[i, :]|^2 / 2.

    Raises:
        ValueError: if eta is not positive and finite, the momentum not in [0, 1], or the weights do not fit the flow.

    >>> from flowsim import Dataset, FeedbackAlignment, Weights
    >>> from flowsim.observables import conserved
    >>> flow = Flow(Dataset([[1.0]], [1]), FeedbackAlignment([1.0]))
    >>> first = start(Weights(torch.ones(1, 1), torch.ones(1)))
    >>> second = step(flow, first, eta=0.1)
    >>> change = conserved(flow, second.weights)[0] - conserved(flow, first.weights)[0]
    >>> bool(abs(change - second.correction[0]) < 1e-15), bool(change < -1e-4)
    (True, True)
    """
    if not isinstance(flow, Flow):
        raise ValueError(f"flow must be a flowsim.Flow, got {type(flow).__name__}: the order is flow, state, eta")
    if not isinstance(state, State):
        raise ValueError(f"state must be a State, got {type(state).__name__}: begin with start(weights)")
    eta, momentum = require_positive("eta", eta), require_within("momentum", momentum, 0, 1)
    before = state.weights
    feedback_before = flow.rule.feedback_matrices(before)
    velocity = flow.velocity(before, feedback=feedback_before).layers
    update = tuple(momentum * u + delta for u, delta in zip(state.update, velocity, strict=True))
    after = before.with_layers([layer + eta * u for layer, u in zip(before.layers, update, strict=True)])
    feedback_after, divergences = flow.rule.feedback_matrices(after), flow.rule.divergences(before, after)
    mismatch, correction = [], []
    for level, (old, new, divergence) in enumerate(zip(feedback_before, feedback_after, divergences, strict=True)):
        if divergence is None:
            undefined = torch.full_like(state.mismatch[level], torch.nan)
            mismatch.append(undefined)
            correction.append(undefined)
            continue
        decaying = (old * before.layers[level + 1]).sum(-2) - before.layers[level].square().sum(-1)
        carried = momentum * state.mismatch[level] - flow.decay * decaying
        length = update[level].square().sum(-1)
        correction.append(state.correction[level] + eta * carried + divergence - 0.5 * eta**2 * length)
        mismatch.append(carried + ((new - old) * update[level + 1]).sum(-2) - eta * length)
    return State(after, update, tuple(mismatch), tuple(correction))

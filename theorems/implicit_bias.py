"""Implicit bias: where the weights of FA go on separable data, and how fast (section 14.12; beyond the paper).

With slopes sigma_ij = 1 where y_i b_j > 0, else gamma, p_j = w_j / b_j, N(p)^4 = sum_j b_j^2 |p_j|^4 / 8, and margins
m_i(p) = sum_j b_j^2 |p_j|^2 sigma_ij y_i p_j.x_i / 2:

    4 N(p(t) - p(0)) >= mu int_0^t L,                                          mu = max_p min_i m_i(p) / N(p)^3
    log 1/(n L) <= mu (|v|^2 / 3 + sum_j |w_j|^4 / (24 b_j^2))^(3/4)

The first says that the weights travel at least as far as on the straight way to the limit, the second that no network
with these slopes has a larger margin for its size than that limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights, data
from flowsim.initialization import random_signs
from theorems.check import Case, Role, Statement, control
from theorems.constants import feedback_not_zero, largest_norm, start_of
from theorems.ensembles import KAPPA, SLOPE, Scope, Shape, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, two_layers
from theorems.measurement import Claim, Compared, NoMarginError, infimum, ratio
from theorems.observation import Observation
from theorems.thresholds import EARLY

T_FINAL = 1e4


SOLVED = 1e-6
"""Bounds of mu may differ by so much, relatively; a limit that is found less sharply is none."""


class Limit(NamedTuple):
    """p of the limit, up to a factor, and two bounds of mu."""

    point: Float[np.ndarray, "m d"]
    at_least: float
    at_most: float


def find_limit(dataset: Dataset, feedback: Float[Tensor, " m"], slope: float) -> Limit:
    """The largest margin, by its dual: p = sum_i a_i e_i, where a >= 0 minimises N(p)^4 - sum_i a_i.

    e_i has the parts sigma_ij y_i x_i. Whatever a >= 0 is found, min_i m_i(p) / N(p)^3 <= mu <= 4 N(p) / sum_i a_i.
    """
    b, labels, inputs = feedback.cpu().numpy(), dataset.labels.cpu().numpy(), dataset.inputs.cpu().numpy()
    of_b, of_x = np.abs(b).max(), np.linalg.norm(inputs, axis=1).max()
    b, inputs = b / of_b, inputs / of_x  # so that a is of order 1
    slopes = np.where(np.outer(labels, b) > 0, 1.0, slope)
    pushes = slopes[:, :, None] * (labels[:, None] * inputs)[:, None, :]

    def margins(p: np.ndarray) -> np.ndarray:
        return np.einsum("j,jd,ijd->i", b**2 * (p**2).sum(1), p, pushes) / 2

    def cost(a: np.ndarray) -> tuple[float, np.ndarray]:
        p = np.einsum("i,ijd->jd", a, pushes)
        return size(p, b) ** 4 - a.sum(), margins(p) - 1

    count = len(labels)
    found = minimize(
        cost, np.full(count, 0.5), jac=True, bounds=[(0, None)] * count, method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-10, "maxiter": 10_000},
    )  # fmt: skip
    p, unit = np.einsum("i,ijd->jd", found.x, pushes), of_x * of_b**0.5
    return Limit(p, unit * margins(p).min() / size(p, b) ** 3, unit * 4 * size(p, b) / found.x.sum())


def size(p: np.ndarray, b: np.ndarray) -> float:
    """N(p)."""
    return (((b * (p**2).sum(1)) ** 2).sum() / 8) ** 0.25


@lru_cache(maxsize=16)
def mu_bounds(solution: Solution) -> Float[Tensor, "2 ensemble"]:
    """Lower and upper bounds of the largest margin of each trajectory's problem, over N^3.

    Raises:
        NoMarginError: if a problem that has a limit is not solved to SOLVED.
    """
    flow, feedback = solution.flow_of(torch.arange(solution.batch_shape.numel())), start_of(solution).feedback
    datasets = [
        Dataset(inputs, labels) for inputs, labels in zip(flow.dataset.inputs, flow.dataset.labels, strict=True)
    ]
    limits = [find_limit(dataset, b, flow.slope) for dataset, b in zip(datasets, feedback, strict=True)]
    if any(limit.at_most - limit.at_least > SOLVED * limit.at_most for limit in limits if limit.at_least > 0):
        raise NoMarginError(f"the limit of the weights was not found to {SOLVED:g}")
    return feedback.new_tensor([[limit.at_least for limit in limits], [limit.at_most for limit in limits]])


def mu_limit(solution: Solution) -> Float[Tensor, " ensemble"]:
    """The largest margin of each trajectory's problem, over N^3: the lower bound."""
    return mu_bounds(solution)[0]


def _sides(seen: Observation) -> Compared:
    """y_i z_ij sign b_j, which is positive where the slopes are those of the limit."""
    signs = seen.flow.dataset.labels.unsqueeze(-1) * seen.feedback[0].sign()
    values = (signs * seen.pre_activations[0]).flatten(-2)
    return Compared(values, torch.ones_like(values))


def _hypotheses(stated: bool, solution: Solution) -> list[Hypothesis]:
    setting = two_layers(solution, FeedbackAlignment)
    if not all_hold(setting):
        return setting
    nonzero = feedback_not_zero(solution)
    if not nonzero.holds:
        return [*setting, nonzero]
    return [
        *setting,
        nonzero,
        has_loss(solution, "exponential"),
        fact("mu as stated", stated),
        Hypothesis("mu > 0", mu_limit(solution), strict=True),
        Hypothesis("y_i z_ij sign b_j > 0 throughout", infimum(_sides, solution), strict=True),
    ]


def _travelled(share: float, seen: Observation) -> Compared:
    """4 N of (p(t) - p(0)) / A(t), or at first of the rates of both, which say the same of the start."""
    hidden, moved = seen.start.layers[0], seen.weights.layers[0] - seen.start.layers[0]
    # |w_j(t) - w_j(0)| is at most R |b_j| int L
    furthest = seen.of(largest_norm(seen.solution)) * seen.feedback[0].norm(dim=(-2, -1)) * seen.integral
    early = (furthest <= EARLY * hidden.norm(dim=(-2, -1))).unsqueeze(-1)
    rates = seen.velocity.layers[0].norm(dim=-1) / seen.risk.unsqueeze(-1)
    lengths = torch.where(early, rates, moved.norm(dim=-1) / seen.integral.unsqueeze(-1))
    squares = lengths.square() / seen.feedback[0].squeeze(-2).abs()  # |b_j| |p_j|^2
    return ratio(4 * (squares.square().sum(-1) / 8) ** 0.25, seen.of(share * mu_limit(seen.solution)))


def _largest_margin(share: float, seen: Observation) -> Compared:
    """mu (|v|^2 / 3 + sum_j |w_j|^4 / (24 b_j^2))^(3/4) above -log(n L)."""
    hidden, output = seen.weights.layers
    quartic = (hidden.square().sum(-1) / seen.feedback[0].squeeze(-2)).square().sum(-1) / 24
    most = seen.of(share * mu_bounds(seen.solution)[1]) * (output.square().sum((-2, -1)) / 3 + quartic) ** 0.75
    least = -seen.flow.log_risk(seen.weights) - math.log(seen.flow.dataset.samples)
    return Compared((most - least).unsqueeze(-1), most.unsqueeze(-1))


def statement(share: float = 1.0) -> Statement:
    """The statement, with so many times its constant."""
    return Statement(
        name="implicit_bias",
        title="Implicit bias, where FA goes on separable data",
        formula=r"4 N(p(t) - p(0)) \ge \mu \int_0^t L\,ds, \qquad \log\frac{1}{nL} \le \mu\Big(\tfrac13|v|^2 + "
        r"\sum_j \frac{|w_j|^4}{24 b_j^2}\Big)^{3/4}, \qquad \mu = \max_p \min_i \frac{m_i(p)}{N(p)^3}",
        hypotheses=partial(_hypotheses, share == 1),
        claims=[
            Claim("4 N(p(t) - p(0)) / int L > mu", "inequality", partial(_travelled, share), mu_limit),
            Claim(
                "log 1/(nL) < mu (|v|^2/3 + sum |w_j|^4/(24 b_j^2))^(3/4)",
                "inequality",
                partial(_largest_margin, share),
            ),
        ],
        rate=lambda seen: seen.risk,
        constants=lambda solution: {"mu": mu_limit(solution)},
        beyond=True,
    )


STATEMENT = statement()


@cache
def sided_run(shape: Shape, seeds: int, device: str, sizes: bool = False) -> Solution[Weights]:
    """Orthogonally separable data, neurons on their sides from the start, c_j of either sign; `sizes`: of b_j, too."""
    hidden, output, feedback, datasets = [], [], [], []
    for seed in range(seeds):
        dataset = data.orthogonally_separable(shape.samples, shape.samples + 2, KAPPA, seed)
        generator = torch.Generator().manual_seed(seed)
        b = random_signs(shape.width, seed)
        if sizes:
            b = b * torch.randn(shape.width, generator=generator, dtype=torch.float64).exp()
        towards = torch.rand(shape.width, shape.samples, generator=generator, dtype=torch.float64)
        w = b.sign().unsqueeze(-1) * (towards @ (dataset.labels.unsqueeze(-1) * dataset.inputs)) / shape.samples
        gaps = 0.1 * torch.randn(shape.width, generator=generator, dtype=torch.float64)
        datasets.append(dataset)
        hidden.append(w)
        output.append((0.5 * w.square().sum(-1) + gaps) / b)
        feedback.append(b)
    flow = Flow(data.stack(datasets), FeedbackAlignment(torch.stack(feedback)), slope=shape.slope)
    return solved(flow, Weights(torch.stack(hidden), torch.stack(output)), T_FINAL, device)


@cache
def tight_run(device: str, start: float, loss: str = "exponential", samples: int = 2) -> Solution[Weights]:
    """Two inputs that are nearly one, c_j = 0, all w_j the same multiple of the first: on the way to the limit.

    Both claims are attained but for 3e-4, the share of the second input's direction, and log(2) of the margin.
    Of one sample it is the first input.
    """
    hidden = torch.tensor([[[start, 0.0], [start, 0.0]]], dtype=torch.float64)
    dataset = Dataset([[[1.0, 0.0], [1.0, 0.05]][:samples]], [[1, 1][:samples]])
    flow = Flow(dataset, FeedbackAlignment([[1.0, 1.0]]), loss, SLOPE)
    return solved(flow, Weights(hidden, hidden.square().sum(-1) / 2), 10.0, device)


NEAR, FAR = 0.5, 5.5
"""Starts at which the loss is about 1, and at which it is e^-166."""


def cases(scope: Scope) -> list[Case]:
    """Random instances, feedback of one size and of several; instances that attain mu; controls of each hypothesis."""
    shapes = (Shape(3, 4, 0.3), Shape(6, 10, 0.7), *((Shape(16, 20, 0.5),) if scope.full else ()))

    def runs(sizes: bool) -> list[Callable[[], Solution]]:
        return [partial(sided_run, shape, scope.seeds, scope.device, sizes) for shape in shapes]

    def tight(label: str, start: float, share: float = 1.0, role: Role = "theorem", loss: str = "exponential") -> Case:
        return Case(statement(share), label, role, [partial(tight_run, scope.device, start, loss)])

    return [
        Case(STATEMENT, "separable, |b_j| = 1", "theorem", runs(False)),
        Case(STATEMENT, "separable, any b_j", "theorem", runs(True)),
        tight("tight, near the start", NEAR),
        tight("tight, far out", FAR),
        tight("1.01 mu, near the start", NEAR, 1.01, "control"),
        tight("0.99 mu, far out", FAR, 0.99, "control"),
        tight("other sides at the start", -NEAR, role="control"),
        tight("logistic loss", NEAR, role="control", loss="logistic"),
        control("logistic loss, one sample", STATEMENT, partial(tight_run, scope.device, NEAR, "logistic", 1)),
    ]

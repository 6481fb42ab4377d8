"""Linear networks (phi(z) = z) under FA, beyond the paper (section 14.9).

any depth    B_{l+1}^T W_{l+1} + W_{l+1}^T B_{l+1} - W_l W_l^T is constant at every hidden layer
two layers, scalar output, squared loss, W(0) = 0, b.v(0) > 0, independent inputs: with s = W^T b / |b|^2
             W = b s^T,  v = v(0) + b |s|^2 / 2,  beta = W^T v = (b.v) s,  in the span of the data
             |beta - X^+ y|^2 lambda_min(K) <= 2 n L(0) e^(-mu t),  mu = 2 (b.v(0)) lambda_min(K) / n
             cos(v, b) - cos(v(0), b) <= (1 - cos(v(0), b)^2) |b| / (2 |v(0)|) (2 |beta| / |b|^2)^(2/3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial

import torch
from jaxtyping import Float
from torch import Tensor

from flowsim import Dataset, FeedbackAlignment, Flow, Solution, Weights
from flowsim.initialization import gaussian, random_signs
from theorems.check import Case, Statement, control
from theorems.constants import smallest_gram_eigenvalue
from theorems.ensembles import DEEP, DIMENSION, GAUSSIAN, WIDTH, Scope, any_run, linear_run, solved
from theorems.hypothesis import Hypothesis, all_hold, fact, has_loss, is_rule, two_layers
from theorems.measurement import Claim, Compared
from theorems.observation import Observation
from theorems.theorem_5_1 import mu_linear
from theorems.thresholds import EARLY

SAMPLES = 4
WIDTHS = (16, 64, 256, 1024)


# --- any depth ---


def matrix_law(seen: Observation) -> Compared:
    """Entries of the matrix at t less those at 0, and |B| |W_{l+1}| + |W_l|^2 of their layer at 0 or t, the larger."""
    (now, size_now), (first, size_first) = (_matrices(at.layers, seen.feedback) for at in (seen.weights, seen.start))
    return Compared(now - first, torch.maximum(size_now, size_first))


def _matrices(layers: Sequence[Tensor], feedback: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Entries of B_{l+1}^T W_{l+1} + W_{l+1}^T B_{l+1} - W_l W_l^T of all hidden layers, and the sizes of its terms."""
    entries, sizes = [], []
    for below, above, matrix in zip(layers[:-1], layers[1:], feedback, strict=True):
        product = matrix.mT @ above
        found = (product + product.mT - below @ below.mT).flatten(-2)
        size = matrix.norm(dim=(-2, -1)) * above.norm(dim=(-2, -1)) + below.square().sum((-2, -1))
        entries.append(found)
        sizes.append(size.unsqueeze(-1).expand_as(found))
    return torch.cat(entries, -1), torch.cat(sizes, -1)


def is_linear(solution: Solution) -> Hypothesis:
    """The hypothesis phi(z) = z."""
    return fact("gamma = 1", solution.flow.activation.leaky_slope == 1)


FORMULA = (
    r"B_{l+1}^T W_{l+1} + W_{l+1}^T B_{l+1} - W_l W_l^T = \mathrm{const}, \qquad "
    r"W(0) = 0: \ \ |\beta(t) - X^+y|^2 \lambda_{\min}(K) \le 2 n L(0) e^{-\mu t}, \qquad "
    r"\cos(v, b) - \cos(v(0), b) \le \left(1 - \cos^2(v(0), b)\right) \frac{|b|}{2|v(0)|} "
    r"\left(\frac{2|\beta|}{|b|^2}\right)^{2/3}"
)

MATRIX = Statement(
    name="linear_networks",
    title="Linear networks, a conserved matrix at every hidden layer",
    formula=FORMULA,
    hypotheses=lambda solution: [is_rule(solution, FeedbackAlignment), is_linear(solution)],
    claims=[Claim("B^T W_{l+1} + W_{l+1}^T B - W_l W_l^T is constant", "equality", matrix_law)],
    beyond=True,
)


# --- two layers from W(0) = 0 ---


def _vectors(seen: Observation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden weights W, and v, b, s = W^T b / |b|^2 as vectors."""
    (hidden, output), (feedback,) = seen.weights.layers, seen.feedback
    b = feedback.squeeze(-2)
    return hidden, output.squeeze(-2), b, (feedback @ hidden).squeeze(-2) / b.square().sum(-1, keepdim=True)


def predictor(seen: Observation) -> Float[Tensor, "nodes pieces d"]:
    """Beta = W^T v: f(x) = beta.x."""
    return (seen.weights.layers[1] @ seen.weights.layers[0]).squeeze(-2)


@lru_cache(maxsize=16)
def interpolant(solution: Solution) -> Float[Tensor, "ensemble d"]:
    """X^+ y, of all beta with X beta = y the one of smallest norm."""
    dataset = solution.flow.dataset
    found = (torch.linalg.pinv(dataset.inputs) @ dataset.labels.unsqueeze(-1)).squeeze(-1)
    return found.expand(*solution.batch_shape, -1).reshape(-1, found.shape[-1])


def rank_one(seen: Observation) -> Compared:
    """The norms of the columns of W - b s^T, and (|W|^2 + 2 |b| |v(0)|)^(1/2)."""
    hidden, _, b, s = _vectors(seen)
    size = hidden.square().sum((-2, -1)) + 2 * b.norm(dim=-1) * seen.start.layers[1].norm(dim=(-2, -1))
    off = (hidden - b.unsqueeze(-1) * s.unsqueeze(-2)).norm(dim=-2)
    return Compared(off, size.sqrt().unsqueeze(-1).expand_as(off))


def output_along_feedback(seen: Observation) -> Compared:
    """The norm of v - v(0) - b |s|^2 / 2, and |v|."""
    _, v, b, s = _vectors(seen)
    off = v - seen.start.layers[1].squeeze(-2) - 0.5 * s.square().sum(-1, keepdim=True) * b
    return Compared(off.norm(dim=-1, keepdim=True), v.norm(dim=-1, keepdim=True))


def within_the_data(seen: Observation) -> Compared:
    """Entries of beta - (b.v) s, those of beta across the span of the data, and |beta| + |X^+ y|."""
    beta, (_, v, b, s) = predictor(seen), _vectors(seen)
    inputs = seen.flow.dataset.inputs
    across = beta - (torch.linalg.pinv(inputs) @ (inputs @ beta.unsqueeze(-1))).squeeze(-1)
    off = torch.cat([beta - (b * v).sum(-1, keepdim=True) * s, across], -1)
    size = beta.norm(dim=-1, keepdim=True) + seen.of(interpolant(seen.solution)).norm(dim=-1, keepdim=True)
    return Compared(off, size.expand_as(off))


def distance(seen: Observation, rate: float = 1.0, share: float = 1.0) -> Compared:
    """2 n L(0) e^(-mu t) less |beta - X^+ y|^2 lambda_min(K), and the former; rate and share are factors of them."""
    solution, samples = seen.solution, seen.flow.dataset.samples
    bound = 2 * samples * seen.initial_risk * (-rate * seen.of(mu_linear(solution)) * seen.times).exp()
    off = (predictor(seen) - seen.of(interpolant(solution))).square().sum(-1)
    return Compared(
        (bound - share * seen.of(smallest_gram_eigenvalue(solution)) * off).unsqueeze(-1), bound.unsqueeze(-1)
    )


def little_alignment(seen: Observation, share: float = 1.0, power: float = 2 / 3) -> Compared:
    """2 (b.v) / |b|^2 less (gain / (share k))^(1/power) / |s|, and the former.

    That is gain < share k (2 |beta| / |b|^2)^power, as |beta| = (b.v) |s|. Here gain = cos(v, b) - cos(v(0), b), and
    k = (1 - cos(v(0), b)^2) |b| / (2 |v(0)|), the limit of gain / |s|^2 at t = 0, stands for it while it is rounding.
    """
    _, v, b, s = _vectors(seen)
    first, squared = seen.start.layers[1].squeeze(-2), s.square().sum(-1)
    cosine, before = ((at * b).sum(-1) / (at.norm(dim=-1) * b.norm(dim=-1)) for at in (v, first))
    limit = ((1 - before.square()) * b.norm(dim=-1) / (2 * first.norm(dim=-1))).expand_as(squared)
    early = b.norm(dim=-1) * squared <= EARLY * first.norm(dim=-1)
    per_square = torch.where(early, limit, (cosine - before) / torch.where(early, 1.0, squared))
    size = 2 * (b * v).sum(-1) / b.square().sum(-1)
    taken = squared ** (1 / power - 0.5) * (per_square / (share * limit)) ** (1 / power)
    return Compared((size - taken).unsqueeze(-1), size.unsqueeze(-1))


def _setting(solution: Solution) -> list[Hypothesis]:
    """FA, two layers, scalar output, squared loss, W(0) = 0, b.v(0) > 0, independent inputs."""
    start, flow = solution.start, solution.flow
    shape = two_layers(solution, FeedbackAlignment)
    if not all_hold(shape):
        return shape
    feedback = flow.rule.feedback_matrices(start)[0]
    rounding = flow.dataset.samples * torch.finfo(feedback.dtype).eps * flow.dataset.gram.abs().amax()
    return [
        *shape,
        is_linear(solution),
        has_loss(solution, "squared"),
        Hypothesis("W(0) = 0", -start.layers[0].abs().amax((-2, -1))),
        Hypothesis("b.v(0) > 0", (feedback * start.layers[1]).sum((-2, -1)), strict=True),
        Hypothesis("lambda_min(K) > 0", smallest_gram_eigenvalue(solution), strict=True, rounding=rounding),
    ]


def _alignment_setting(solution: Solution) -> list[Hypothesis]:
    """The same, and v(0) not along b."""
    setting = _setting(solution)
    if not all_hold(setting[:3]):
        return setting
    feedback, output = solution.flow.rule.feedback_matrices(solution.start)[0], solution.start.layers[1]
    cosine = (feedback * output).sum((-2, -1)) / (feedback.norm(dim=(-2, -1)) * output.norm(dim=(-2, -1)))
    return [*setting, Hypothesis("cos(v(0), b) < 1", 1 - cosine.square(), strict=True, rounding=1e-12)]


STATEMENT = Statement(
    name="linear_networks",
    title="Linear networks, FA from W(0) = 0 finds the interpolant of smallest norm",
    formula=FORMULA,
    hypotheses=_setting,
    claims=[
        Claim("|beta - X^+ y|^2 lambda_min(K) < 2 n L(0) e^(-mu t)", "inequality", distance),
        Claim("W = b s^T", "equality", rank_one),
        Claim("v = v(0) + b |s|^2 / 2", "equality", output_along_feedback),
        Claim("beta = (b.v) s, in the span of the data", "equality", within_the_data),
    ],
    beyond=True,
)
ALIGNMENT = Statement(
    name="linear_networks",
    title="Linear networks, alignment gains little where the network is wide",
    formula=FORMULA,
    hypotheses=_alignment_setting,
    claims=[Claim("gain of cos(v, b) < k (2 |beta| / |b|^2)^(2/3)", "inequality", little_alignment)],
    beyond=True,
)


def _misstated(statement: Statement, claim: Claim) -> Statement:
    """With another constant, rate or exponent than the statement's."""

    def hypotheses(solution: Solution) -> list[Hypothesis]:
        return [*statement.hypotheses(solution), fact("constants as stated", False)]

    return replace(statement, hypotheses=hypotheses, claims=[claim])


# --- runs ---


def _solved(
    inputs: Tensor, labels: Tensor, b: Tensor, weights: Weights, slope: float, t_final: float, device: str
) -> Solution[Weights]:
    flow = Flow(Dataset(inputs, labels), FeedbackAlignment(b), "squared", slope)
    return solved(flow, weights, t_final, device)


@cache
def wide_run(width: int, seeds: int, device: str, *, hidden: float = 0.0, slope: float = 1.0) -> Solution[Weights]:
    """Gaussian inputs, b of random signs, independent entries of v(0) of variance 1, with b.v(0) > 0.

    It ends where mu t = 10 on the fastest trajectory: later, distances are rounding beside what they were.
    """
    generator = torch.Generator().manual_seed(11)
    inputs = torch.randn(seeds, SAMPLES, DIMENSION, generator=generator, dtype=torch.float64)
    labels = (1.0 - 2.0 * (torch.arange(SAMPLES) % 2)).expand(seeds, SAMPLES)
    b = torch.stack([random_signs(width, seed) for seed in range(seeds)])
    drawn = [gaussian(width, DIMENSION, seed) for seed in range(seeds)]
    output = width**0.5 * torch.stack([weights.output for weights in drawn])
    output = output * (output * b).sum(-1, keepdim=True).sign()
    weights = Weights(hidden * torch.stack([weights.hidden for weights in drawn]), output)
    fastest = 2 * (output * b).sum(-1) * torch.linalg.eigvalsh(inputs @ inputs.mT)[:, 0] / SAMPLES
    return _solved(inputs, labels, b, weights, slope, 10 / fastest.amax().item(), device)


@cache
def tight_run(device: str) -> Solution[Weights]:
    """K nearly a multiple of I, v(0) = 10 b: 2 n L(0) e^(-mu t) is attained to half a percent."""
    inputs = torch.diag(torch.tensor([1.0, 1.002], dtype=torch.float64))
    b = random_signs(WIDTH, 0)
    weights = Weights(torch.zeros(1, WIDTH, 2, dtype=torch.float64), 10 * b.unsqueeze(0))
    return _solved(inputs.unsqueeze(0), torch.tensor([[1.0, -1.0]]), b.unsqueeze(0), weights, 1.0, 0.05, device)


@cache
def across_run(device: str) -> Solution[Weights]:
    """A large v(0) nearly across b: the gain of cos(v, b) attains its bound to 0.02 %."""
    inputs = torch.eye(2, dtype=torch.float64)
    b = torch.ones(WIDTH, dtype=torch.float64)
    output = 1000 * random_signs(WIDTH, 0) + 1e-4 * b
    weights = Weights(torch.zeros(1, WIDTH, 2, dtype=torch.float64), output.unsqueeze(0))
    return _solved(inputs.unsqueeze(0), torch.tensor([[1.0, -1.0]]), b.unsqueeze(0), weights, 1.0, 10.0, device)


def cases(scope: Scope) -> list[Case]:
    """Depths, widths, tight instances; the controls start elsewhere, bend the activation, misstate constants."""
    seeds, device = scope.seeds, scope.device
    wide = [partial(wide_run, width, seeds if width < max(WIDTHS) else 1, device) for width in WIDTHS]
    tight, across = partial(tight_run, device), partial(across_run, device)

    def matrix(label: str, run: Callable[[], Solution]) -> Case:
        return Case(MATRIX, label, "theorem", [run])

    two, three = GAUSSIAN._replace(slope=1.0), DEEP._replace(slope=1.0)
    deep = {"loss": "cross-entropy", "outputs": 3, "hidden_layers": 2}
    linear = partial(linear_run, seeds, device)

    def off(name: str, **factors: float) -> Statement:
        return _misstated(STATEMENT, Claim(name, "inequality", partial(distance, **factors)))

    def gain(name: str, **factors: float) -> Statement:
        return _misstated(ALIGNMENT, Claim(name, "inequality", partial(little_alignment, **factors)))

    return [
        matrix("matrix, 2 layers, logistic", partial(any_run, "fa", seeds, device, shape=two)),
        matrix("matrix, 3 layers, cross-entropy", partial(any_run, "fa", seeds, device, shape=three, **deep)),
        control("matrix, gamma = 0.3", MATRIX, partial(any_run, "fa", seeds, device)),
        control("matrix, GD", MATRIX, partial(any_run, "gd", seeds, device, shape=two)),
        Case(STATEMENT, "smallest norm, v(0) along b", "theorem", [linear]),
        Case(STATEMENT, "smallest norm, m = 16 to 1024", "theorem", wide),
        Case(STATEMENT, "smallest norm, tight", "theorem", [tight]),
        control("smallest norm, 1.01 mu", off("... < 2 n L(0) e^(-1.01 mu t)", rate=1.01), tight),
        control("smallest norm, 1.01 lambda_min", off("1.01 ... < 2 n L(0) e^(-mu t)", share=1.01), tight),
        control("smallest norm, W(0) not 0", STATEMENT, partial(wide_run, 16, seeds, device, hidden=0.3)),
        control("smallest norm, gamma = 0.5", STATEMENT, partial(wide_run, 16, seeds, device, slope=0.5)),
        Case(ALIGNMENT, "alignment, m = 16 to 1024", "theorem", wide),
        Case(ALIGNMENT, "alignment, v(0) across b, tight", "theorem", [across]),
        control("alignment, 0.99 of the bound", gain("gain < 0.99 k (...)^(2/3)", share=0.99), across),
        control("alignment, exponent 0.7", gain("gain < k (...)^0.7", power=0.7), across),
    ]

"""Problems that commands get: a data set from a file, and weights to start from, which the file has or are made up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from flowsim.data import Dataset
from flowsim.flow import SLOPE, Flow
from flowsim.initialization import adafa, deep_gaussian, gaussian, random_signs, with_gaps
from flowsim.losses import Loss
from flowsim.npz import require_keys
from flowsim.rules import FeedbackAlignment, GradientDescent, Rule, SignFeedbackAlignment
from flowsim.tables import is_table, of_arrays, read_arrays, read_labelled
from flowsim.validation import SEED_COUNT, as_finite, require_seed
from flowsim.weights import NetworkWeights, Weights

RULES = ("gd", "fa", "adafa", "sign-fa")
INITS = ("gaussian", "gaps")

SHAPES = {"hidden": "md", "output": "m", "feedback": "m"}
"""Dimensions of the weights in a file."""

UNLIKE = 100
"""Columns of inputs whose root mean squares are in a larger ratio are worth a word."""

SCALE, GAP = 1.0, 0.05
"""Of weights that are made up, where nothing else is said."""

OTHER_SEED = SEED_COUNT // 2
"""Added to the seed of the weights for that of feedback drawn alike."""


@dataclass(frozen=True)
class Init:
    """How weights are made up.

    - gaussian: all weights independent and Gaussian, of variance scale^2 / fan-in, and under FA the feedback alike; for
      any number of widths and of classes.
    - gaps: hidden weights likewise; output weights of random signs, both of which occur, such that every conserved
      quantity c_j is the gap; under FA the feedback is these signs. For one hidden layer and labels -1 and +1.

    Args:
        kind: "gaussian" or "gaps".
        widths: of the hidden layers, from the first one on.
        seed: of all that is random.
        scale: above 0.
        gap: for "gaps".

    >>> str(Init("gaps", (16,), seed=3))
    'gaps, width 16, seed 3, scale 1, gap 0.05'
    """

    kind: str
    widths: tuple[int, ...]
    seed: int = 0
    scale: float = SCALE
    gap: float = GAP

    def __str__(self) -> str:
        widths = f"width{'s' if len(self.widths) > 1 else ''} {', '.join(map(str, self.widths))}"
        gap = f", gap {self.gap:.6g}" if self.kind == "gaps" else ""
        return f"{self.kind}, {widths}, seed {self.seed}, scale {self.scale:.6g}{gap}"


class Source(NamedTuple):
    """What a file has.

    Args:
        path: of the file.
        dataset: its data, on the device asked for.
        said: which of its labels became which, and whether its columns are unlike, in a line; empty where neither.
        weights: hidden, output, and maybe feedback; empty if it has neither of the first two.
        arrays: all that an .npz file has.
    """

    path: str
    dataset: Dataset
    said: str
    weights: Mapping[str, Tensor]
    arrays: Mapping[str, NDArray]


def read_source(path: str, label: str | None = None, device: str = "cpu", *, standardize: bool = False) -> Source:
    """Return what a file has: .npz, .csv or .parquet, see `flowsim.tables`.

    With `standardize` the columns of the inputs have mean 0 and variance 1.

    Beside `inputs` and `labels` an .npz file may have the weights `hidden` (m, d) and `output` (m), and for FA the
    `feedback` (m).

    Raises:
        ValueError: as in `read_labelled`, or for weights that are not complete, or are no such arrays.
        ImportError: as there.
    """
    if is_table(path):
        arrays: Mapping[str, NDArray] = {}
        labelled = read_labelled(path, label)
    else:
        arrays = read_arrays(path, label, "--label")
        labelled = of_arrays(arrays)
    weights = {}
    if "hidden" in arrays or "output" in arrays:
        require_keys(path, arrays, ("hidden", "output"))
        for key in SHAPES.keys() & arrays.keys():
            weights[key] = as_finite(key, arrays[key]).to(device)
            if weights[key].ndim != len(SHAPES[key]):
                raise ValueError(f"{key} must have shape ({', '.join(SHAPES[key])}), got {arrays[key].shape}")
    data = labelled.dataset
    inputs = standardized(data.inputs) if standardize else data.inputs
    dataset = Dataset(inputs.to(device), data.labels.to(device), data.classes)
    said = "; ".join(part for part in (str(labelled), "" if standardize else unlike(data.inputs)) if part)
    return Source(path, dataset, said, weights, arrays)


def standardized(inputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Inputs whose columns have mean 0 and variance 1; a column of one value becomes 0.

    >>> standardized(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """
    centred = inputs - inputs.mean(0)
    constant = (inputs == inputs[0]).all(0)
    spread = centred.square().mean(0).sqrt()
    return torch.where(constant, 0.0, centred / spread.where(~constant, 1.0))


def unlike(inputs: Float[Tensor, "n d"]) -> str:
    """What is to be said of columns of very different sizes, which make a flow stiff; nothing where they are alike.

    >>> unlike(torch.tensor([[1.0, 2000.0], [3.0, 1000.0]]))
    'the largest column of the inputs is 707 times the smallest: --standardize makes them alike'
    """
    sizes = inputs.square().mean(0).sqrt()
    sizes = sizes[sizes > 0]
    if len(sizes) == 0 or sizes.max() <= UNLIKE * sizes.min():
        return ""
    ratio = (sizes.max() / sizes.min()).item()
    return f"the largest column of the inputs is {ratio:.3g} times the smallest: --standardize makes them alike"


def number_of(source: Source, key: str, default: float) -> float:
    """A number that an .npz file may have.

    Raises:
        ValueError: if it is not one finite number.
    """
    value = as_finite(key, source.arrays.get(key, default))
    if value.numel() != 1:
        raise ValueError(f"{key} in {source.path} must be one number, got shape {tuple(value.shape)}")
    return value.item()


def slope_of(source: Source) -> float:
    """The key `slope` of a file, SLOPE if it has none; errors as in `number_of`."""
    return number_of(source, "slope", SLOPE)


class Problem(NamedTuple):
    """A flow, and the weights that it begins with."""

    flow: Flow
    weights: NetworkWeights


def problem(source: Source, rule: str, loss: str | Loss, slope: float, init: Init | None = None) -> Problem:
    """Return the flow of a rule on the data of a file, and its initial weights.

    Args:
        source: what the file has.
        rule: one of RULES; "fa" takes the feedback of the file, "adafa" the output weights.
        loss: see `Flow`.
        slope: of the leaky ReLU.
        init: how weights are made up, if the file has none.

    Raises:
        ValueError: if the file has weights and there is an init, or neither of them; for an init that does not go with
            data or rule; if the file has no feedback, and the rule needs it; or for what does not fit.
    """
    if init is None:
        learning, weights = _given(source, rule)
    elif source.weights:
        raise ValueError(f"--init makes up weights, but {source.path} has the keys hidden and output: leave one out")
    else:
        learning, weights = MAKERS[init.kind](source.dataset, rule, init)
    flow = Flow(source.dataset, learning, loss, slope)
    flow.require_fit(weights)
    return Problem(flow, weights)


Start = tuple[Rule, NetworkWeights]


def _given(source: Source, rule: str) -> Start:
    """The weights of a file."""
    if not source.weights:
        raise ValueError(
            f"{source.path} has no weights to start from, the keys hidden and output: have them made up, "
            "by --init gaussian or --init gaps, and --width"
        )
    weights = Weights(source.weights["hidden"], source.weights["output"])
    if rule == "fa":
        if "feedback" not in source.weights:
            raise ValueError(
                f"{source.path} lacks the key 'feedback' (m), which --rule fa needs: add it, or take another rule"
            )
        return FeedbackAlignment(source.weights["feedback"]), weights
    return _without_feedback(rule, weights), weights


def _without_feedback(rule: str, weights: NetworkWeights) -> Rule:
    """A rule that has no feedback weights but the network's."""
    if rule == "adafa":
        return adafa(weights)
    return GradientDescent() if rule == "gd" else SignFeedbackAlignment()


def _gaussian(dataset: Dataset, rule: str, init: Init) -> Start:
    def drawn(seed: int) -> NetworkWeights:
        if len(init.widths) == 1:
            sizes = init.widths[0], dataset.dimension
            weights: NetworkWeights = gaussian(*sizes, seed, outputs=dataset.classes, scale=init.scale)
        else:
            weights = deep_gaussian((dataset.dimension, *init.widths, dataset.classes or 1), seed, scale=init.scale)
        return weights.map(lambda tensor: tensor.to(dataset.inputs.device))

    weights = drawn(require_seed(init.seed))
    if rule == "fa":
        return adafa(drawn((init.seed + OTHER_SEED) % SEED_COUNT)), weights
    return _without_feedback(rule, weights), weights


def _gaps(dataset: Dataset, rule: str, init: Init) -> Start:
    if len(init.widths) != 1:
        raise ValueError(f"--init gaps is for one hidden layer, got {len(init.widths)} widths: use --init gaussian")
    if dataset.classes is not None:
        raise ValueError(f"--init gaps is for labels of two values, got {dataset.classes} classes: use --init gaussian")
    if rule == "adafa":
        raise ValueError("--init gaps is not for --rule adafa, whose feedback is its weights: use --init gaussian")
    (width,), device = init.widths, dataset.inputs.device
    hidden = gaussian(width, dataset.dimension, init.seed, scale=init.scale).hidden.to(device)
    signs = random_signs(width, init.seed).to(device)
    if rule == "fa":
        learning: Rule = FeedbackAlignment(signs)
        return learning, with_gaps(hidden, learning, init.gap)
    learning = GradientDescent() if rule == "gd" else SignFeedbackAlignment()
    return learning, with_gaps(hidden, learning, init.gap, signs)


MAKERS = {"gaussian": _gaussian, "gaps": _gaps}

FEEDBACK = {"gaussian": "Gaussian", "gaps": "random signs"}


def made_up(init: Init, rule: str) -> str:
    """What is made up, in a line.

    >>> made_up(Init("gaps", (16,)), "fa")
    'start: gaps, width 16, seed 0, scale 1, gap 0.05, feedback random signs'
    """
    return f"start: {init}{f', feedback {FEEDBACK[init.kind]}' if rule == 'fa' else ''}"

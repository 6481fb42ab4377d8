"""The deep networks: their layers, the protocol, training that resumes to the last bit, tables, sentences, figures."""

import dataclasses
import functools
import io
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from test_figures import assert_readable, data_of
from torch import nn
from torch.nn import functional

from figures import command
from figures.deep_networks import accuracy, alignment, conservation, experiment, training
from figures.deep_networks.networks import initialize, lenet, resnet18
from figures.deep_networks.protocol import (
    CIFAR100,
    RULES,
    SMALL,
    TINY_IMAGENET,
    Protocol,
    Setting,
    chosen_classes,
    filled,
    network_of,
    normalized,
    order_of,
    select,
    settings_of,
)
from figures.deep_networks.results import (
    OWN,
    accuracy_table,
    at_end,
    at_equal_updates,
    claims,
    layers_of,
    predicted_cosine,
    tabulate,
)
from figures.deep_networks.training import OF_LAYER, OF_RUN, accumulate, run, set_up, start
from figures.experiments.images import Images
from figures.experiments.table import array_of, column, rows
from figures.style import STYLE, title_and_caption
from flowsim import progress
from flowsim.modules import feedback_layers
from flowsim.shell import Attempts

TINY = Protocol(
    "mnist-5000", "lenet", width=2, side=32, classes=(2, 3), repeats=2, epochs=4, batch=10, rate=0.05, halved=(2,),
    decay=0.01, per_class=(13, 6), piece=4,
)  # fmt: skip
"""More decay than the paper has, so that the ledger has some to count."""


@functools.cache
def pictures() -> Images:
    """Four classes: bars in four places, with noise; colours differ in brightness."""
    generator = np.random.default_rng(0)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(4 * count) % 4
        images = generator.integers(0, 60, (4 * count, 3, 28, 28))
        for number in range(4):
            images[labels == number, :, :, 7 * number : 7 * number + 6] += 140
        return (images * np.array([1.0, 0.5, 0.8])[:, None, None]).astype(np.uint8), labels

    return Images(part(20), part(10))


@functools.cache
def recorded(folder: Path) -> pd.DataFrame:
    found = [
        (setting, run(TINY, setting, select(TINY, pictures(), setting), folder, "cpu")) for setting in settings_of(TINY)
    ]
    return tabulate(found)


@pytest.fixture
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return recorded(tmp_path_factory.getbasetemp())


# --- networks ---


def test_lenet_is_that_of_the_paper() -> None:
    """Parameters by hand, and the forward pass written out."""
    network = lenet(10)
    expected = [3 * 32 * 9 + 32, 32 * 64 * 9 + 64, 64 * 128 * 9 + 128, 128 * 256 + 256, 256 * 10 + 10]
    assert sum(parameter.numel() for parameter in network.parameters()) == sum(expected)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (w1, b1), (w2, b2), (w3, b3), (w4, b4), (w5, b5) = (
        tuple(layer.parameters()) for layer in network if isinstance(layer, (nn.Conv2d, nn.Linear))
    )
    y = functional.max_pool2d(functional.conv2d(x, w1, b1).clamp(min=0), 2)
    assert y.shape[2:] == (15, 15)
    y = functional.max_pool2d(functional.conv2d(y, w2, b2).clamp(min=0), 2)
    y = functional.conv2d(y, w3, b3).clamp(min=0)
    assert y.shape[1:] == (128, 4, 4)
    y = (y.mean((2, 3)) @ w4.T + b4).clamp(min=0) @ w5.T + b5
    torch.testing.assert_close(network(x), y)


RESNET18 = """
conv1 64x3x7x7; bn1 64
layer1.0.conv1 64x64x3x3; layer1.0.bn1 64; layer1.0.conv2 64x64x3x3; layer1.0.bn2 64
layer1.1.conv1 64x64x3x3; layer1.1.bn1 64; layer1.1.conv2 64x64x3x3; layer1.1.bn2 64
layer2.0.conv1 128x64x3x3; layer2.0.bn1 128; layer2.0.conv2 128x128x3x3; layer2.0.bn2 128
layer2.0.downsample.0 128x64x1x1; layer2.0.downsample.1 128
layer2.1.conv1 128x128x3x3; layer2.1.bn1 128; layer2.1.conv2 128x128x3x3; layer2.1.bn2 128
layer3.0.conv1 256x128x3x3; layer3.0.bn1 256; layer3.0.conv2 256x256x3x3; layer3.0.bn2 256
layer3.0.downsample.0 256x128x1x1; layer3.0.downsample.1 256
layer3.1.conv1 256x256x3x3; layer3.1.bn1 256; layer3.1.conv2 256x256x3x3; layer3.1.bn2 256
layer4.0.conv1 512x256x3x3; layer4.0.bn1 512; layer4.0.conv2 512x512x3x3; layer4.0.bn2 512
layer4.0.downsample.0 512x256x1x1; layer4.0.downsample.1 512
layer4.1.conv1 512x512x3x3; layer4.1.bn1 512; layer4.1.conv2 512x512x3x3; layer4.1.bn2 512
fc 1000x512
"""
"""The weights of torchvision's resnet18, as its published state dict has them."""


def test_resnet_18_has_the_names_and_shapes_of_torchvision() -> None:
    network = resnet18(1000)
    state = network.state_dict()
    published = dict(re.findall(r"(\S+) ([\dx]+)", RESNET18))
    weights = {name.removesuffix(".weight"): tensor for name, tensor in state.items() if name.endswith(".weight")}
    assert {name: "x".join(map(str, tensor.shape)) for name, tensor in weights.items()} == published
    assert sum(tensor.numel() for tensor in network.parameters()) == 11_689_512
    others = {name.rsplit(".")[-1] for name in state} - {"weight"}
    assert others == {"bias", "running_mean", "running_var", "num_batches_tracked"}
    assert not [name for name in state if re.search(r"(conv\d|downsample\.0)\.bias", name)]


def test_resnet_18_computes_what_its_weights_say() -> None:
    """The first two stages and the head, written out; at 64 pixels each stage halves the side."""
    torch.manual_seed(0)
    network = resnet18(3, channels=1, width=4).eval()
    state, x = network.state_dict(), torch.randn(2, 1, 64, 64)

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(y, *parts)

    def conv(y: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return functional.conv2d(y, weight, stride=stride, padding=weight.shape[-1] // 2)

    y = functional.max_pool2d(norm(conv(x, "conv1", 2), "bn1").relu(), 3, 2, 1)
    assert y.shape[2:] == (16, 16)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            z = norm(conv(y, f"{name}.conv1", stride), f"{name}.bn1").relu()
            z = norm(conv(z, f"{name}.conv2"), f"{name}.bn2")
            if stride == 2:
                y = norm(conv(y, f"{name}.downsample.0", 2), f"{name}.downsample.1")
            y = (z + y).relu()
    assert y.shape[1:] == (32, 2, 2)
    expected = y.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights_are_xaviers() -> None:
    torch.manual_seed(0)
    network = lenet(10)
    initialize(network)
    for layer in network.children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            fans = layer.weight[0].numel() + layer.weight[:, 0].numel()
            assert layer.weight.std().item() == pytest.approx((2 / fans) ** 0.5, rel=0.1)
            assert not layer.get_parameter("bias").any()


# --- protocol ---


def test_the_protocols_are_those_of_the_paper() -> None:
    for protocol, expected in [
        (CIFAR100, ("cifar-100", "lenet", 32, (10, 25, 50), 6, 500, 1024)),
        (TINY_IMAGENET, ("tiny-imagenet", "resnet", 64, (10, 25, 50), 4, 50, 512)),
    ]:
        p = protocol
        assert (p.dataset, p.network, p.width, p.classes, p.repeats, p.epochs, p.batch) == expected
        assert (p.rate, p.momentum, p.decay, p.per_class) == (0.01, 0.9, 1e-4, None)
    assert [CIFAR100.step_size(epoch) for epoch in (0, 99, 100, 249, 250, 499)] == [0.01] * 2 + [0.005] * 2 + [
        0.0025
    ] * 2
    assert [TINY_IMAGENET.step_size(epoch) for epoch in (19, 20, 39, 40)] == [0.01, 0.005, 0.005, 0.0025]
    assert TINY_IMAGENET.piece is None, "batch norm sees whole batches"
    assert len(settings_of(SMALL["lenet"])) == 36 and SMALL["lenet"].classes == (3, 5, 10)


def test_rules_share_classes_weights_and_order_and_repeats_do_not() -> None:
    of = {rule: Setting(rule, 10, 1) for rule in RULES}
    classes = {rule: chosen_classes(CIFAR100, 100, setting) for rule, setting in of.items()}
    assert len({tuple(each) for each in classes.values()}) == 1 and len(set(classes["GD"])) == 10
    assert chosen_classes(CIFAR100, 100, Setting("GD", 10, 2)) != classes["GD"]
    networks = {rule: network_of(CIFAR100, setting, 3) for rule, setting in of.items()}
    for name, weight in networks["GD"].named_parameters():
        assert all(torch.equal(weight, network.get_parameter(name)) for network in networks.values())
    other = network_of(CIFAR100, Setting("FA", 10, 2), 3)
    for mine, others in zip(feedback_layers(networks["FA"]).values(), feedback_layers(other).values(), strict=True):
        assert not torch.equal(mine.weight, others.weight)
        assert not torch.equal(mine.feedback_weights, others.feedback_weights)
        cosine = functional.cosine_similarity(mine.weight.flatten(), mine.feedback_weights.flatten(), dim=0)
        assert abs(cosine) < 4 / mine.weight.numel() ** 0.5, "B is independent of W"
        bound = math.sqrt(6 / (mine.weight[0].numel() + mine.weight[:, 0].numel()))
        assert 0.9 * bound < mine.feedback_weights.abs().max() <= bound
    for layer in feedback_layers(networks["sign-FA"]).values():
        scale = (2 / (layer.weight[0].numel() + layer.weight[:, 0].numel())) ** 0.5
        torch.testing.assert_close(layer.feedback_weights, scale * layer.weight.sign())
    for layer in feedback_layers(networks["adaFA"]).values():
        assert torch.equal(layer.feedback_weights, layer.weight)
    orders = [order_of(of[rule], epoch, 50).tolist() for rule in RULES for epoch in (0, 1)]
    assert orders[0::2] == [orders[0]] * 4 and orders[1::2] == [orders[1]] * 4 and orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(50))
    assert order_of(Setting("GD", 10, 2), 0, 50).tolist() != orders[0]


def test_a_run_has_the_images_of_its_classes_and_no_others() -> None:
    setting = Setting("FA", 3, 1)
    data, classes = select(TINY, pictures(), setting), chosen_classes(TINY, 4, setting)
    train, test = pictures().train, pictures().test
    assert test is not None
    for (images, labels), (all_images, all_labels), count in zip(data, (train, test), (13, 6), strict=True):
        assert len(images) == 3 * count
        for number, name in enumerate(classes):
            np.testing.assert_array_equal(images[labels == number], all_images[all_labels == name][:count])
    with pytest.raises(ValueError, match="--dataset must have 5 classes, got mnist-5000 with 4"):
        select(TINY, pictures(), Setting("FA", 5, 0))


def test_images_have_mean_0_and_deviation_1_of_each_colour_over_the_training_set() -> None:
    protocol = dataclasses.replace(TINY, side=28)
    ready = normalized(protocol, select(protocol, pictures(), Setting("GD", 2, 0)), "cpu")
    train, test = (images.double() for images, _ in ready)
    torch.testing.assert_close(train.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        train.std((0, 2, 3), correction=0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-5
    )
    assert test.mean((0, 2, 3)).abs().max() > 1e-3, "the moments are not its own"
    raw = select(protocol, pictures(), Setting("GD", 2, 0))
    pixels = raw.train[0].numpy()
    expected = (raw.test[0][4, 1, 3, 5].item() - pixels[:, 1].mean()) / pixels[:, 1].std()
    assert test[4, 1, 3, 5].item() == pytest.approx(expected, abs=1e-5)
    padded = filled(raw.train[0], 32)
    np.testing.assert_array_equal(padded[:, :, 2:30, 2:30], pixels)
    assert padded.sum() == raw.train[0].sum()
    large = filled(raw.train[0], 64)
    np.testing.assert_array_equal(large[:, :, 4:60, 4:60], pixels.repeat(2, 2).repeat(2, 3))
    with pytest.raises(ValueError, match="must have images of 16 x 16 pixels or less, got 28 x 28"):
        filled(raw.train[0], 16)


# --- training ---


@pytest.mark.parametrize("piece", [1, 4, 7, None])
def test_pieces_have_the_gradient_of_the_batch(piece: int | None) -> None:
    runs = set_up(TINY, Setting("FA", 3, 0), select(TINY, pictures(), Setting("FA", 3, 0)), "cpu")
    module, (images, labels) = runs.module.double(), runs.data.train
    loss = accumulate(module, images[:20].double(), labels[:20], piece)
    found = [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]
    module.zero_grad()
    whole = functional.cross_entropy(module(images[:20].double()), labels[:20])
    whole.backward()
    assert loss == pytest.approx(whole.item(), rel=1e-12)
    for mine, parameter in zip(found, module.parameters(), strict=True):
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-10, atol=1e-13)


def trained_by_hand(setting: Setting) -> nn.Module:
    """All epochs with whole batches, SGD's steps written out, in float64."""
    runs = set_up(TINY, setting, select(TINY, pictures(), setting), "cpu")
    module, (images, labels) = runs.module.double(), runs.data.train
    velocity = [torch.zeros_like(parameter) for parameter in module.parameters()]
    for epoch in range(TINY.epochs):
        eta, order = 0.05 if epoch < 2 else 0.025, order_of(setting, epoch, len(labels))
        for first in range(0, len(order), 10):
            chosen = order[first : first + 10]
            module.zero_grad()
            functional.cross_entropy(module(images[chosen].double()), labels[chosen]).backward()
            with torch.no_grad():
                for parameter, moving in zip(module.parameters(), velocity, strict=True):
                    assert parameter.grad is not None
                    moving.mul_(0.9).add_(parameter.grad + 0.01 * parameter)
                    parameter.sub_(eta * moving)
    return module


@pytest.mark.parametrize("rule", RULES)
def test_a_run_is_sgd_and_records_what_its_weights_say(rule: str, table: pd.DataFrame, tmp_path: Path) -> None:
    setting = Setting(rule, 3, 1)
    module = trained_by_hand(setting)
    own = rows(table, rule=rule, classes=3, repeat=1)
    assert column(own, "epoch").tolist() == [0, 1, 2, 3, 4]
    assert column(own, "updates").tolist() == [0, 4, 8, 12, 16], "39 images in batches of 10"
    last, first = own.iloc[-1], own.iloc[0]
    data = normalized(TINY, select(TINY, pictures(), setting), "cpu")
    for (images, labels), part in zip(data, ("train", "test"), strict=True):
        outputs = module(images.double()).detach()
        loss = (outputs.exp().sum(1).log() - outputs[torch.arange(len(labels)), labels]).mean().item()
        assert last[f"{part}_loss"] == pytest.approx(loss, rel=2e-4)
        assert last[f"{part}_accuracy"] == pytest.approx((outputs.argmax(1) == labels).double().mean().item())
    begun = set_up(TINY, setting, select(TINY, pictures(), setting), "cpu").module
    before, layers = None, feedback_layers(module)
    for name, layer in layers.items():
        weight, old = layer.weight.detach().numpy(), begun.get_parameter(f"{name}.weight").detach().numpy()
        drawn = feedback_layers(begun)[name].feedback_weights
        scale = (2 / (weight[0].size + weight[:, 0].size)) ** 0.5
        feedback = {"GD": weight, "sign-FA": scale * np.sign(weight), "adaFA": old}.get(rule, np.asarray(drawn))
        norms = np.linalg.norm(weight), np.linalg.norm(feedback)
        assert abs(weight - old).max() > 0.01
        assert last[f"product {name}"] == pytest.approx((weight * feedback).sum(), rel=1e-3, abs=1e-4)
        assert last[f"cosine {name}"] == pytest.approx((weight * feedback).sum() / norms[0] / norms[1], abs=1e-4)
        assert last[f"weight_norm {name}"] == pytest.approx(norms[0], rel=1e-4)
        assert last[f"feedback_norm {name}"] == pytest.approx(norms[1], rel=1e-4)
        if before is None:
            assert np.isnan(last[f"gain {name}"]) and np.isnan(last[f"correction {name}"])
        else:
            now, then = (
                sum((tensor.detach().double() ** 2).sum().item() for tensor in of.get_submodule(before).parameters())
                / 2
                for of in (module, begun)
            )
            assert last[f"gain {name}"] == pytest.approx(now - then, abs=1e-4)
            factor = 0.5 if rule == "GD" else 1.0
            change = factor * (last[f"product {name}"] - first[f"product {name}"]) - last[f"gain {name}"]
            assert last[f"correction {name}"] == pytest.approx(change, abs=1e-5)
            assert abs(change) > 1e-3
        before = name
    assert last["drift"] > 1e-3 and 0 < last["rest"] < 1e-5
    assert not last["diverged"]


def test_alignment_is_predicted_by_the_norms_one_layer_before(table: pd.DataFrame) -> None:
    names = layers_of(table)
    assert names == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    assert np.isnan(predicted_cosine(table, "conv1")).all()
    for name in names[1:]:
        measured, predicted = column(table, f"cosine {name}"), predicted_cosine(table, name)
        np.testing.assert_allclose(predicted, measured, rtol=0, atol=2e-5)
        without = predicted_cosine(table.assign(**{f"gain {name}": 0.0}), name)
        assert abs(without - measured).max() > 1e-2, "it is the gain that says so"


def test_where_a_run_diverges_that_is_recorded_and_it_ends(tmp_path: Path) -> None:
    """At a large rate FA and adaFA blow up, and backpropagation does not."""
    protocol = dataclasses.replace(TINY, rate=0.4, epochs=12, halved=(), decay=0.0)
    found = []
    for rule in RULES:
        setting = Setting(rule, 3, 0)
        found.append((setting, run(protocol, setting, select(protocol, pictures(), setting), tmp_path, "cpu")))
    made = tabulate(found)
    for rule in ("FA", "adaFA"):
        own = rows(made, rule=rule)
        assert column(own, "diverged").tolist() == [0] * (len(own) - 1) + [1]
        assert 1 < len(own) < 13
        assert own.iloc[-1].filter(regex="loss|accuracy|cosine|drift|rest").isna().all()
        assert own.iloc[-2].filter(regex="loss|accuracy|drift").notna().all()
        again = run(protocol, Setting(rule, 3, 0), select(protocol, pictures(), Setting(rule, 3, 0)), tmp_path, "cpu")
        np.testing.assert_array_equal(again.values, dict(zip(RULES, [r for _, r in found], strict=True))[rule].values)
    for _, records in found:
        last = len(records.values) - 1
        assert experiment.outcome(records).startswith(f"diverged in epoch {last}" if last < 12 else "test accuracy ")
    assert "all diverged" in list(accuracy_table(made, "").columns[1].cells)


def stopped_at(shares: list[float], kind: type[BaseException]) -> Callable[[float], None]:
    def tell(share: float) -> None:
        if shares and share == shares[0]:
            shares.pop(0)
            raise kind

    return tell


@pytest.mark.parametrize(
    ("rule", "kind"),
    list(zip(RULES, [KeyboardInterrupt, RuntimeError, KeyboardInterrupt, RuntimeError], strict=True)),
)
def test_interrupted_and_failing_runs_end_with_the_same_bits(
    rule: str, kind: type[BaseException], table: pd.DataFrame, tmp_path: Path
) -> None:
    setting = Setting(rule, 3, 1)
    data, shares = select(TINY, pictures(), setting), [0.25, 0.75]
    tell = stopped_at(shares, kind)
    for _ in range(2):
        with pytest.raises(kind):
            run(TINY, setting, data, tmp_path, "cpu", tell)
    assert not shares and len(list(tmp_path.glob("*.partial"))) == 1
    again = tabulate([(setting, run(TINY, setting, data, tmp_path, "cpu", tell))])
    whole = rows(table, rule=rule, classes=3, repeat=1).reset_index(drop=True)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_batch_norm_and_its_moments_are_resumed_too(tmp_path: Path) -> None:
    protocol = dataclasses.replace(TINY, network="resnet", width=2, side=32, piece=None, epochs=3, classes=(2,))
    setting = Setting("FA", 2, 0)
    data = select(protocol, pictures(), setting)
    (tmp_path / "whole").mkdir()
    whole = run(protocol, setting, data, tmp_path / "whole", "cpu")
    with pytest.raises(KeyboardInterrupt):
        run(protocol, setting, data, tmp_path, "cpu", stopped_at([2 / 3], KeyboardInterrupt))
    again = run(protocol, setting, data, tmp_path, "cpu")
    np.testing.assert_array_equal(again.values, whole.values)
    last = dict(zip(whole.quantities, whole.values[-1], strict=True))
    assert last["drift"] > 1e-4 and last["rest"] < 1e-5
    made = tabulate([(setting, whole)])
    read_alone = [name for name in layers_of(made) if not np.isnan(predicted_cosine(made, name)).all()]
    assert read_alone == [f"layer{stage}.{block}.conv2" for stage in (1, 2, 3, 4) for block in (0, 1)]
    for name in read_alone:
        np.testing.assert_allclose(predicted_cosine(made, name), column(made, f"cosine {name}"), atol=2e-5)


def test_an_advance_leaves_the_state_before_as_it_is() -> None:
    setting = Setting("FA", 2, 0)
    runs = set_up(TINY, setting, select(TINY, pictures(), setting), "cpu")
    first = start(runs)
    again = start(set_up(TINY, setting, select(TINY, pictures(), setting), "cpu"))
    second = training.advance(runs, first)
    for part in ("module", "squares"):
        for name, value in first[part].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(again[part][name]))
    assert not torch.equal(first["module"]["fc1.weight"], second["module"]["fc1.weight"])
    assert not any(buffer.any() for buffer in first["momentum"])
    assert first["epoch"] == 0 and len(first["records"]) == 1


# --- results ---


def test_the_table_of_accuracies_is_mean_and_standard_error_over_repeats(table: pd.DataFrame) -> None:
    shown = accuracy_table(table, "Title")
    assert [column.header for column in shown.columns] == ["method", "2 classes", "3 classes"]
    for place, rule in enumerate(RULES):
        for number, k in enumerate((2, 3), start=1):
            final = [100 * rows(table, rule=rule, classes=k, repeat=r).iloc[-1]["test_accuracy"] for r in (0, 1)]
            error = np.std(final, ddof=1) / 2**0.5
            assert list(shown.columns[number].cells)[place] == f"{np.mean(final):.1f} ± {error:.1f}"
    lost = without_the_end(table, "FA")
    cell = str(list(accuracy_table(lost, "Title").columns[2].cells)[1])
    assert re.fullmatch(r"[\d.]+ \(1 diverged\)", cell), "the one that is left"


def test_equal_updates_are_those_with_which_the_fewest_classes_end(table: pd.DataFrame) -> None:
    """26 images make 3 updates in an epoch, 39 make 4: after 4 epochs 12, which the others reach after 3."""
    found, last = at_equal_updates(table, "test_loss"), at_end(table, "test_loss")
    for place, rule in enumerate(RULES):
        for repeat in (0, 1):
            few = rows(table, rule=rule, classes=2, repeat=repeat)
            many = rows(table, rule=rule, classes=3, repeat=repeat)
            assert found[place, 0, repeat] == few.iloc[4]["test_loss"] == last[place, 0, repeat]
            assert found[place, 1, repeat] == many.iloc[3]["test_loss"] != last[place, 1, repeat]


def without_the_end(table: pd.DataFrame, rule: str) -> pd.DataFrame:
    """As if one run had diverged."""
    where = [column(table, name) == entry for name, entry in [("rule", rule), ("classes", 3), ("repeat", 1)]]
    return table.loc[~(np.all(where, 0) & (column(table, "epoch") > 2))]


def doctored(table: pd.DataFrame, name: str, of: Callable[[str, int, int, int], float]) -> pd.DataFrame:
    """With a quantity set to a function of rule, k, repeat and epoch."""
    where = zip(*(column(table, each) for each in ("rule", "classes", "repeat", "epoch")), strict=True)
    return table.assign(**{name: [of(*each) for each in where]})


ORDER = {"GD": 0, "sign-FA": 1, "adaFA": 2, "FA": 3}


def as_the_paper_says(table: pd.DataFrame) -> pd.DataFrame:
    made = doctored(
        table,
        "test_accuracy",
        lambda rule, k, r, e: 0.9 - 0.05 * (k - 2) * (1 + ORDER[rule] % 3) + 0.001 * r - (rule == "FA") * 0.3,
    )
    for place, name in enumerate(layers_of(table)):
        made = doctored(
            made, f"cosine {name}",
            lambda rule, k, r, e, place=place: 0.9 - 0.05 * ORDER[rule] * (k - 1) + 0.001 * r
            - (0.3 - 0.01 * (1 + 5 * (place == 4)) * e if rule == "FA" else 0),
        )  # fmt: skip
    return made


def test_sentences_agree_or_disagree_by_what_was_measured(table: pd.DataFrame) -> None:
    good = as_the_paper_says(table)
    found = claims(good)
    assert {claim.claim for claim in found if "at equal updates" in claim.claim}
    assert {claim.claim: claim.verdict for claim in found if claim.verdict != "agrees"} == {}
    for claim, name, of in [
        ("accuracy declines", "test_accuracy", lambda rule, k, r, e: 0.1 * k + 0.001 * r),
        ("more robust", "test_accuracy", lambda rule, k, r, e: 0.9 - 0.1 * (k - 2) * (rule == "sign-FA")),
        ("stays competitive", "test_accuracy", lambda rule, k, r, e: 0.9 - 0.1 * (rule == "sign-FA")),
        ("advantage of initialisation", "test_accuracy", lambda rule, k, r, e: 0.5 + 0.1 * k * (rule == "adaFA")),
        ("alignment degrades", "cosine fc2", lambda rule, k, r, e: 10.0 * k * (rule == "adaFA")),
        ("more so for FA", "cosine fc2", lambda rule, k, r, e: -10.0 * k * (rule == "sign-FA")),
        ("improves over epochs", "cosine conv3", lambda rule, k, r, e: -0.1 * e),
        ("particularly in the output", "cosine conv3", lambda rule, k, r, e: 0.2 * e),
        ("keeps higher alignment", "cosine fc1", lambda rule, k, r, e: 0.5 + 0.1 * (rule == "FA") * (e == 3)),
        ("conservation law", "rest", lambda rule, k, r, e: 1e-3 * (e == 2)),
    ]:
        bad = [each for each in claims(doctored(good, name, of)) if claim in each.claim]
        assert len(bad) == (
            1
            if claim in "improves over epochs particularly in the output keeps higher alignment conservation law"
            else 2
        )
        assert {each.verdict for each in bad} == {"disagrees"}, claim


def test_differences_within_a_standard_error_and_lost_runs_decide_nothing(table: pd.DataFrame) -> None:
    good = as_the_paper_says(table)
    mixed = doctored(good, "test_accuracy", lambda rule, k, r, e: 0.9 - 0.1 * (k - 2) * (2 * r - 1))
    assert {claim.verdict for claim in claims(mixed) if "accuracy declines" in claim.claim} == {"undecided"}
    found = {claim.claim: claim for claim in claims(without_the_end(good, "adaFA"))}
    robust = found["sign-FA is more robust than adaFA, at equal epochs"]
    assert robust.verdict == "undecided" and "nan" not in robust.measured, "one repeat is left"
    low = doctored(good, "cosine fc1", lambda rule, k, r, e: 0.5 - 2.0 * (rule == "adaFA") * (k == 3) * r)
    kept = {claim.claim: claim for claim in claims(low)}["adaFA keeps higher alignment than FA"]
    assert kept.verdict == "disagrees"
    apart = {claim.claim: claim for claim in claims(without_the_end(low, "adaFA"))}
    assert apart["adaFA keeps higher alignment than FA"].measured != kept.measured, "what diverges has no alignment"


# --- figures ---


@pytest.fixture(params=experiment.FIGURES)
def drawn(request: pytest.FixtureRequest, table: pd.DataFrame) -> Figure:
    with matplotlib.rc_context(STYLE):
        return experiment.FIGURES[request.param].draw(table)


def test_figures_can_be_read(drawn: Figure) -> None:
    assert_readable(drawn)


@pytest.mark.parametrize("name", experiment.FIGURES)
def test_captions_say_what_supports_what(name: str) -> None:
    title, caption = title_and_caption(experiment.FIGURES[name])
    assert title.startswith("Deep networks") and len(title) < 80
    assert len(caption) > 200 and "heorem" in caption


def test_figures_plot_the_table(table: pd.DataFrame) -> None:
    with matplotlib.rc_context(STYLE):
        aligned, (left, right), drifts = (module.draw(table).axes for module in (alignment, accuracy, conservation))
    for place, (rule, k) in enumerate([(rule, k) for rule in OWN for k in (2, 3)]):
        own, lines = rows(table, rule=rule, classes=k), aligned[place].get_lines()
        assert aligned[place].get_title() == f"{rule}, $k = {k}$" and len(lines) == 10
        for number, name in enumerate(layers_of(table)):
            law, measured = lines[2 * number : 2 * number + 2]
            expected = array_of(own, f"cosine {name}", "epoch", "repeat").mean(1)
            np.testing.assert_allclose(data_of(measured)[1], expected)
            assert law.get_linewidth() > 3 * measured.get_linewidth() and law.get_color() == measured.get_color()
            if number:
                predicted = own.assign(law=predicted_cosine(own, name))
                np.testing.assert_allclose(data_of(law)[1], array_of(predicted, "law", "epoch", "repeat").mean(1))
    for panel, at in [(left, at_end), (right, at_equal_updates)]:
        for number, values in enumerate(100 * at(table, "test_accuracy")):
            line, caps, _ = panel.containers[number].lines  # type: ignore[misc]
            np.testing.assert_allclose(data_of(line)[1], values.mean(-1))
            error = (data_of(caps[1])[1] - data_of(caps[0])[1]) / 2
            np.testing.assert_allclose(error, values.std(-1, ddof=1) / 2**0.5, atol=1e-12)
    for place, k in enumerate((2, 3)):
        for number, rule in enumerate(RULES):
            own = rows(table, rule=rule, classes=k)
            for quantity, line in zip(("drift", "rest"), drifts[place].get_lines()[2 * number :], strict=False):
                np.testing.assert_allclose(data_of(line)[1], array_of(own, quantity, "epoch", "repeat").mean(1)[1:])


# --- from the shell ---


def shell(tmp_path: Path, *more: str) -> list[str]:
    return ["deep_networks", "--output", str(tmp_path / "out"), *more]


def test_from_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All runs in another process; a line for each on standard error, as it is no terminal here."""
    small = dataclasses.replace(TINY, dataset="fashion-mnist", epochs=2, classes=(2,))
    monkeypatch.setattr(experiment, "SMALL", {"lenet": small})
    monkeypatch.setattr(experiment, "cores", lambda: 1)
    monkeypatch.setattr(experiment, "load", lambda dataset, folder, download: pictures())
    monkeypatch.setattr(progress, "FIRST", math.inf)
    assert command.main(shell(tmp_path, "--dataset", "fashion-mnist")) == 0
    prefix = "deep_networks"
    names = {f"{prefix}_{name}.{kind}" for name in experiment.FIGURES for kind in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{prefix}.csv", *names}, "and the states are gone"
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 8
    assert all(re.fullmatch(r"\S+, k = 2, repeat \d: test accuracy [\d.]+ % after 6 updates", each) for each in lines)
    assert "As table 1 of the paper" in out and "sign-FA is more robust than adaFA" in out
    made = experiment.table.read(tmp_path / "out" / f"{prefix}.csv")
    assert len(made) == 4 * 2 * 3
    setting = Setting("adaFA", 2, 1)
    direct = tabulate([(setting, run(small, setting, select(small, pictures(), setting), tmp_path, "cpu"))])
    own = rows(made, rule="adaFA", repeat=1).reset_index(drop=True)
    pd.testing.assert_frame_equal(own, direct, check_exact=True)


def test_a_run_that_fails_costs_no_other_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: one of the states is broken."""
    protocol, out = dataclasses.replace(TINY, epochs=1, classes=(2,), repeats=1), Console(file=io.StringIO())

    class Done:
        def __init__(self, made: Callable[[], object]) -> None:
            self.result = made

    def in_this_process(runs: list, *_: object) -> list:
        return [(each, Done(lambda each=each: each.function(*each.arguments(), lambda share: None))) for each in runs]

    monkeypatch.setattr(experiment, "carry_out", in_this_process)
    monkeypatch.setattr(experiment, "FIGURES", {})
    setting = Setting("FA", 2, 0)
    path = training.state_path(protocol, setting, select(protocol, pictures(), setting), tmp_path, "cpu")
    path.write_bytes(b"not a state")
    failed = Attempts()
    experiment.run(protocol, pictures(), tmp_path, "cpu", out, out, failed)
    (message,) = failed.stopped
    assert failed.status == 1 and message.startswith(f"FA, k = 2, repeat 0: {path} is not the state of a run")
    assert len(list(tmp_path.glob("*.partial"))) == 4 and not list(tmp_path.glob("*.csv"))
    path.unlink()
    experiment.run(protocol, pictures(), tmp_path, "cpu", out, out, Attempts())
    assert len(list(tmp_path.glob("*.csv"))) == 1 and not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--dataset", "digits"],
            "--dataset of deep_networks must be one of mnist-5000, fashion-mnist, cifar-100, tiny",
        ),
        (["--dataset", "cifar-100"], "--data-dir must say where the folder cifar-100-python of cifar-100 is, got none"),
        (["--paper"], "--paper goes with --dataset cifar-100 or tiny-imagenet, got mnist-5000"),
        (["--paper", "--dataset", "cifar-100", "--network", "resnet"], "--network of the paper's cifar-100 is lenet"),
        (["--data-dir", "/tmp"], "--data-dir goes with --dataset mnist, fashion-mnist, cifar-100, tiny-imagenet, got"),
        (["--device", "nonsense"], "--device must be cpu or cuda, got 'nonsense'"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(shell(tmp_path, *arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_one_experiment_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["deep_networks", "noisy_digits", "--output", str(tmp_path)]) == 2
    message = "error: NAME must have one experiment at most, got noisy_digits and deep_networks: run them in turn\n"
    assert capsys.readouterr().err == message
    assert command.main(["noisy_digits", "--network", "lenet", "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: --network goes with deep_networks, got 'lenet' with noisy_digits")


def test_images_that_do_not_fit_are_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = pictures()._replace(train=(np.zeros((40, 3, 64, 64), np.uint8), np.arange(40) % 10))
    monkeypatch.setattr(experiment, "load", lambda dataset, folder, download: large)
    assert command.main(shell(tmp_path, "--dataset", "tiny-imagenet", "--data-dir", str(tmp_path))) == 2
    message = "error: --dataset must have images of 32 x 32 pixels or less, got 64 x 64\n"
    assert capsys.readouterr().err == message


def test_the_papers_protocols_are_asked_for_by_their_data() -> None:
    parsed = command.parser().parse_args
    for dataset, protocol in [("cifar-100", CIFAR100), ("tiny-imagenet", TINY_IMAGENET)]:
        assert experiment.protocol_of(parsed(["deep_networks", "--paper", "--dataset", dataset])) == protocol
    assert experiment.protocol_of(parsed(["deep_networks"])) == SMALL["lenet"]
    assert experiment.protocol_of(parsed(["deep_networks", "--network", "resnet"])) == SMALL["resnet"]


def test_without_pandas_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "figures.deep_networks.experiment")
    monkeypatch.delitem(sys.modules, "figures.experiments.table")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert command.main(shell(tmp_path)) == 2
    assert capsys.readouterr().err == "error: deep_networks needs pandas: pip install '.[digits]'\n"


def test_records_have_a_name_for_each_number() -> None:
    setting = Setting("GD", 2, 0)
    runs = set_up(TINY, setting, select(TINY, pictures(), setting), "cpu")
    names = training.quantities(runs.module)
    assert len(names) == len(set(names)) == len(start(runs)["records"][0]) == len(OF_RUN) + 5 * len(OF_LAYER)

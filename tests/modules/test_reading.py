"""What is read off a network: groups of channels, and what breaks the law, by name; nothing is computed wrongly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from flowsim.modules import feedback_alignment, rates, read
from flowsim.modules.channels import Channels
from flowsim.modules.signals import BatchSize, Signal, through_function, through_module
from theorems.weight_sharing.networks import Branches, Residual, chain, kernels, norms


def names(network: nn.Module) -> list[tuple[str, int]]:
    return [(group.name, group.size) for group in read(network).groups]


def test_a_chain_of_layers_has_a_group_between_each_two() -> None:
    assert names(chain()) == [("0 -> 3", 4), ("3 -> 7", 6), ("7 -> 9", 8)]
    assert read(chain()).broken == {"other -> 0": "is the network's input", "9 -> other": "is the network's output"}
    assert names(kernels()) == [("0 -> 2", 4), ("2 -> 5", 6), ("5 -> 9", 6)]


def test_a_flattened_channel_is_read_by_a_block_of_columns() -> None:
    (term,) = read(chain()).groups[1].readers
    assert (term.layer, term.of, term.channels.tolist(), term.places.tolist()) == ("7", 6, [*range(6)], [*range(6)])


def test_a_residual_stream_has_all_its_writers_and_readers() -> None:
    assert names(Residual()) == [
        ("stem + blocks.0.conv2 -> blocks.0.conv1 + blocks.1.conv1 + blocks.1.project", 4),
        ("blocks.0.conv1 -> blocks.0.conv2", 4),
        ("blocks.1.conv1 -> blocks.1.conv2", 6),
        ("blocks.1.conv2 + blocks.1.project + blocks.2.conv2 -> blocks.2.conv1 + head", 6),
        ("blocks.2.conv1 -> blocks.2.conv2", 6),
    ]


def test_zero_padded_shortcuts_make_one_stream_of_all_stages() -> None:
    """Channel c of the first stage is channel c + 1 of the second; two channels are of the second alone."""
    network = Residual(shortcut="zeros")
    writers = ["stem", *(f"blocks.{number}.conv2" for number in range(3))]
    readers = [*(f"blocks.{number}.conv1" for number in range(3)), "head"]
    whole = f"{' + '.join(writers)} -> {' + '.join(readers)}"
    groups = {group.name: group for group in read(network).groups}
    assert groups[whole].size == 4
    assert groups["blocks.1.conv2 + blocks.2.conv2 -> blocks.2.conv1 + head"].size == 2
    terms = {term.layer: term.channels.tolist() for term in (*groups[whole].writers, *groups[whole].readers)}
    assert terms["stem"] == terms["blocks.1.conv1"] == [0, 1, 2, 3]
    assert terms["blocks.1.conv2"] == terms["head"] == [1, 2, 3, 4]


def test_norms_write_by_their_own_gamma_and_beta() -> None:
    reading = read(Residual(nn.BatchNorm2d))
    assert reading.groups[0].name == "norm + blocks.0.norm2 -> blocks.0.conv1 + blocks.1.conv1 + blocks.1.project"
    assert reading.broken["stem -> other"] == "goes into norm (BatchNorm2d), which takes its scale away"
    assert names(norms()) == [("1 -> 4", 4), ("5 -> 9", 6), ("10 -> 12", 8)]
    assert read(norms()).broken["4 -> other"] == "goes into 5 (InstanceNorm2d), which takes its scale away"


def test_a_norm_before_linear_layers_scales_each_of_their_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert names(network) == [("3 -> 5", 8)]


def test_channels_side_by_side_and_a_layer_that_is_used_twice() -> None:
    """What the second use writes is what its first use reads."""
    assert names(Branches()) == [("left + twice -> twice + head", 2), ("right + twice -> twice + head", 3)]


class Net(nn.Module):
    """Two convolutions and a linear layer with anything between."""

    def __init__(self, between: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Linear(4, 2),
        )
        self.between = between
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.second(self.between(self, self.first(x)))).mean((2, 3)))


def between(function: Callable[[Tensor], Tensor]) -> Net:
    return Net(lambda _, x: function(x))


BREAK: dict[str, tuple[nn.Module, str]] = {
    "tanh": (between(torch.tanh), "goes into tanh"),
    "GELU": (between(functional.gelu), "goes into gelu"),
    "softplus": (
        Net(lambda net, x: net.act(x), act=nn.Softplus()),
        "goes into act (Softplus)",
    ),
    "ReLU6": (Net(lambda net, x: net.act(x), act=nn.ReLU6()), "goes into act (ReLU6)"),
    "local response norm": (
        Net(lambda net, x: net.act(x), act=nn.LocalResponseNorm(2)),
        "goes into act (LocalResponse",
    ),
    "a norm without gamma": (
        Net(lambda net, x: net.n(x), n=nn.BatchNorm2d(4, affine=False)),
        "goes into n (BatchNorm2d)",
    ),
    "a constant added": (between(lambda x: x + 1), "goes into add"),
    "a parameter added": (
        Net(lambda net, x: x + net.own[0], own=nn.ParameterList([torch.ones(1, 4, 1, 1)])),
        "is own.0, which is not the weight of a layer",
    ),
    "a product": (between(lambda x: x * x), "goes into mul"),
    "channels mixed": (between(lambda x: x.flip(1)), "goes into flip"),
    "some channels": (between(lambda x: torch.cat([x[:, :2], x[:, 2:]], 1)), "goes into getitem"),
    "padding by ones": (between(lambda x: functional.pad(x, (1, 1, 1, 1), value=1.0)), "goes into pad"),
    "no error goes back": (between(lambda x: x.detach()), "goes into detach"),
}


@pytest.mark.parametrize("what", BREAK)
def test_what_breaks_the_law_is_said_by_name_and_the_rest_is_kept(what: str) -> None:
    network, why = BREAK[what]
    reading = read(network)
    found = [reason for name, reason in reading.broken.items() if name.startswith("first -> ")]
    assert any(why in reason for reason in found), reading.broken
    assert [group.name for group in reading.groups] == ["second -> head"]


KEEP: dict[str, nn.Module] = {
    "nothing": between(lambda x: x),
    "leaky ReLU": between(lambda x: functional.leaky_relu(x, 0.2)),
    "a number": between(lambda x: 0.5 * x / 3 - 2 * x),
    "pooling": between(lambda x: functional.max_pool2d(functional.avg_pool2d(x, 2), 2)),
    "dropout": between(lambda x: functional.dropout(x, 0.5, True)),
    "pixels": between(lambda x: x[:, :, ::2, 1:]),
    "padding": between(lambda x: functional.pad(x, (1, 1, 0, 0))),
    "reflection": between(lambda x: functional.pad(x, (1, 1, 1, 1), "reflect")),
}


@pytest.mark.parametrize("what", KEEP)
def test_what_acts_on_each_channel_by_itself_keeps_the_law(what: str) -> None:
    network = KEEP[what]
    assert names(network) == [("first -> second", 4), ("second -> head", 4)]
    assert_rates_agree(network)


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.flatten(1),
        lambda x: torch.flatten(x, start_dim=1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view((x.size()[0], -1)),
    ],
)
def test_the_usual_ways_to_flatten_are_known(flatten: Callable[[Tensor], Tensor]) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(flatten(functional.relu(self.conv(x))))

    assert names(Flat()) == [("conv -> head", 4)]
    assert_rates_agree(Flat())


def test_a_reshaping_that_moves_pixels_is_not_taken_for_flattening() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 7), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(functional.relu(self.conv(x)).view(-1, 4))  # pixels become images

    reading = read(Odd())
    assert not reading.groups
    assert "goes into view" in reading.broken["conv -> other"]


def test_untrained_and_tied_weights_break_the_law() -> None:
    network = chain()
    network[3].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    reading = read(network)
    assert reading.broken["3 -> 7"] == "3.bias is not trained"
    assert [group.name for group in reading.groups] == ["0 -> 3", "7 -> 9"], "a reader's bias plays no part"
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    network[2].weight = network[0].weight  # type: ignore[union-attr]
    assert read(network).broken["2 -> 4"] == "2.weight is that of 0, too"
    assert not read(network).groups


def test_a_layer_used_with_other_sizes_has_no_law() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.wide = nn.Conv2d(3, 4, 7), nn.Conv2d(4, 16, 1)
            self.fc, self.head = nn.Linear(16, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = functional.relu(self.conv(x))
            return self.head(self.fc(x.flatten(1)) + self.fc(self.wide(x).mean((2, 3))))

    reading = read(Twice())
    assert reading.broken["conv -> fc + wide"] == "fc is used with 4 and 16 channels"
    assert [group.name for group in reading.groups] == ["fc -> head"]


def test_the_number_of_images_may_be_asked_for() -> None:
    network = between(lambda x: x.view(x.size(0), x.size(1), x.size(2), x.size(3)))
    assert any("goes into view" in why for why in read(network).broken.values())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (torch.ones(1), "module must be a torch.nn.Module, got"),
        (between(lambda x: x if x.sum() > 0 else -x), "module must do the same whatever the data is"),
    ],
)
def test_what_cannot_be_followed_is_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(module)


def test_a_layer_by_itself_has_no_hidden_channel() -> None:
    assert read(nn.Linear(2, 2)).groups == ()


# --- whatever is read is true ---


def assert_rates_agree(network: nn.Module, rule: str = "fa", seed: int = 0) -> None:
    """In float64, on a batch: what is read off the network holds, up to rounding."""
    torch.manual_seed(seed)
    network = feedback_alignment(network, rule, scale=0.3, seed=seed).double()  # type: ignore[arg-type]
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    outputs = network(images)
    (outputs * torch.randn_like(outputs)).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    size = max(gradient.abs().sum().item() for gradient in gradients)
    for outgoing, incoming in rates(network).values():
        torch.testing.assert_close(outgoing, incoming, rtol=0, atol=1e-12 * max(size, 1))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "grouped": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "pool": lambda: nn.MaxPool2d(3, 1, 1),
    "batch norm": lambda: nn.BatchNorm2d(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "layer norm": lambda: nn.LayerNorm([4, 8, 8]),
    "instance norm": lambda: nn.InstanceNorm2d(4),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "dropout": lambda: nn.Dropout(0.3),
    "skip": nn.Identity,
    "again": nn.Identity,
}


class AnyNetwork(nn.Module):
    """Layers one after the other; a skip adds the signal two before, and a layer may be used again."""

    def __init__(self, kinds: list[str]) -> None:
        super().__init__()
        self.kinds = kinds
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, 2)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.layers = nn.ModuleList(LAYERS[kind]() for kind in kinds)

    def forward(self, x: Tensor) -> Tensor:
        signals = [self.first(x)]
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            x = signals[-1] + signals[max(0, len(signals) - 3)] if kind == "skip" else layer(signals[-1])
            signals.append(self.again(x) if kind == "again" else x)
        return self.head(signals[-1].flatten(1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=8), st.sampled_from(["gd", "fa", "sign-fa"]))
def test_whatever_is_read_off_a_network_is_true(kinds: list[str], rule: str) -> None:
    network = AnyNetwork(kinds)
    if read(network).groups:
        assert_rates_agree(network, rule)


# --- what a network does besides ---


class Dense(nn.Module):
    """Three linear layers of width 8, and whatever is done with them."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.does = does
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def without_gradients(net: Any, x: Tensor) -> Tensor:
    hidden = functional.relu(net.a(x))
    with torch.no_grad():
        beside = functional.relu(net.a(x))
    return net.b(hidden) + net.c(beside)


def frames(net: Any, x: Tensor) -> Tensor:
    batch = x.shape[0]
    hidden = functional.relu(net.conv(x.view(batch * 2, 1, 2, 2))).mean((2, 3), keepdim=True)
    return net.head(hidden.view(batch, -1))


FALSE: dict[str, tuple[nn.Module, str]] = {
    "weights used again": (
        Dense(lambda net, x: torch.tanh(net.b(functional.relu(net.a(x)))) @ net.b.weight), "a -> b"),
    "weights in the output": (
        Dense(lambda net, x: net.b(functional.relu(net.a(x))) + net.a.weight.square().sum()), "a -> b"),
    "weights of a layer that is not followed": (Dense(lambda net, x: net.b(functional.relu(net.a(x)))), "a -> b"),
    "a second use that is not followed": (
        Dense(lambda net, x: net.b(functional.relu(net.a(x))) + net.b(net.c(x), None)), "a -> b"),
    "another use without gradients": (Dense(without_gradients), "a -> b + c"),
    "transposed": (
        Dense(lambda net, x: net.b(functional.relu(net.a(x))) + net.c(functional.relu(net.a(x)).T)), "a -> b"),
    "data": (Dense(lambda net, x: net.b(functional.relu(net.a(x))) + net.a(x).data), "a -> b"),
    "frames as images": (
        Dense(frames, conv=nn.Conv2d(1, 4, 1), head=nn.Linear(8, 2)), "conv -> head"),
    "images pooled as vectors": (
        nn.Sequential(nn.Linear(8, 8), nn.MaxPool2d(3, 1, 1), nn.Linear(8, 8)), "0 -> 2"),
    "cropped channels": (Net(lambda _, x: functional.pad(x, (0, 0, 0, 0, 2, -2))), "first -> second"),
    "side by side elsewhere": (Net(lambda _, x: torch.cat([x[:, :, :4], x[:, :, 4:]], 2)), "first -> second"),
    "rounded quotients": (Net(lambda _, x: torch.div(x, 0.5, rounding_mode="floor")), "first -> second"),
    "some of the dimensions flat": (Net(lambda _, x: x.flatten(1, 2).view(x.size(0), 4, 8, 8)), "first -> second"),
    "a slope from another signal": (
        Net(lambda net, x: functional.prelu(x, x.mean((0, 2, 3)))), "first -> second"),
    "images and vectors added": (Net(lambda _, x: x + x.mean((2, 3))[:, :, None, None]), "first -> second"),
}  # fmt: skip


@pytest.mark.parametrize("what", FALSE)
def test_the_law_is_not_claimed_where_more_happens(what: str) -> None:
    network, name = FALSE[what]
    if what == "weights of a layer that is not followed":
        network.add_module("beside", nn.Bilinear(8, 8, 8))
        network.beside.bias = network.get_submodule("b").weight  # type: ignore[union-attr, assignment]
    assert name not in {group.name for group in read(network).groups}


def test_hooks_and_reparametrized_weights_are_not_followed() -> None:
    network = Dense(lambda net, x: net.c(functional.relu(net.b(functional.relu(net.a(x))))))
    assert names(network) == [("a -> b", 8), ("b -> c", 8)]
    hook = network.a.register_forward_hook(lambda *_: None)
    assert names(network) == [("b -> c", 8)]
    hook.remove()
    nn.utils.parametrizations.weight_norm(network.c)
    assert names(network) == [("a -> b", 8)]


def test_a_tied_output_layer_breaks_the_law_of_both() -> None:
    network = Dense(lambda net, x: net.c(functional.relu(net.b(functional.relu(net.a(x))))))
    network.c.weight = network.a.weight
    reading = read(network)
    assert reading.broken["a -> b"] == "a.weight is that of c, too"
    assert reading.broken["b -> c"] == "c.weight is that of a, too"


def test_optional_arguments_have_their_defaults() -> None:
    class Optional(Dense):
        def forward(self, x: Tensor, linear: bool | None = None) -> Tensor:
            hidden = self.a(x)
            return self.b(torch.tanh(hidden) if linear is None else hidden)

    assert not read(Optional(lambda net, x: x)).groups


@pytest.mark.parametrize(
    "does",
    [
        lambda net, x: net.b(input=functional.relu(net.a(x))),
        lambda net, x: net.b(sum([functional.relu(net.a(x)), -functional.relu(net.a(x))])),
        lambda net, x: net.b(2 * functional.relu(net.a(x)) / 3),
    ],
)
def test_usual_ways_to_write_the_same_are_known(does: Callable[[Any, Tensor], Tensor]) -> None:
    assert names(Dense(does)) == [("a -> b", 8)]


@pytest.mark.parametrize(
    "does",
    [
        lambda net, x: net.b(torch.mul(net.a(x), other=2)),
        lambda net, x: net.b(torch.cat(net.a(x).chunk(2, 1), dim=1)),
        lambda net, x: net.b(torch.reshape(net.a(x), shape=(-1, 8))),
        lambda net, x: net.b(functional.pad(net.a(x), (0, net.a(x).size(1) - 8))),
        lambda net, x: net.b(net.a(x).T.flatten(1)),
        lambda net, x: net.b(net.a(x).view(x.size(0) * 1, -1)),
    ],
)
def test_unusual_ways_are_not_followed_and_break_nothing_else(does: Callable[[Any, Tensor], Tensor]) -> None:
    network = Dense(lambda net, x: net.c(functional.relu(does(net, x))))
    assert names(network) == [("b -> c", 8)]


def test_channels_of_zeros_are_where_they_were_padded() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.thin, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((self.wide(x) + functional.pad(self.thin(x), (0, 0, 0, 0, 0, 2))).sum((2, 3)))

    groups = {group.name: group for group in read(Padded()).groups}
    assert groups["wide + thin -> head"].readers[0].channels.tolist() == [0, 1]
    assert groups["wide -> head"].readers[0].channels.tolist() == [2, 3]
    assert_rates_agree(Padded())


def test_signals_of_other_kinds_are_not_taken_for_the_usual_ones() -> None:
    layers = {"linear": nn.Linear(5, 1), "conv": nn.Conv2d(2, 1, 1), "relu": nn.ReLU()}
    channels = Channels(layers)
    images, vectors, flat = (Signal(channels.new(2), kind, batch=0) for kind in ("images", "vectors", "flattened"))
    for target, arguments in [
        (torch.add, (images, vectors)),
        (torch.cat, ([images, images], 2)),
        (torch.cat, ([images, vectors], 1)),
        (torch.mean, (vectors, (2, 3))),
        (torch.mean, (images, (1, 2))),
        (functional.leaky_relu, (images, images)),
        (torch.flatten, (images, 1, 2)),
        (torch.flatten, (images, 2)),
        (torch.max_pool2d, (vectors, 2)),
        ("view", (images, BatchSize(1), -1)),
    ]:
        assert through_function(channels, target, *arguments) is None, target
    for name, signals in [
        ("linear", (flat,)), ("linear", (vectors,)), ("linear", (images,)), ("conv", (vectors,)), ("conv", (flat,)),
        ("relu", (images, images)),
    ]:  # fmt: skip
        assert through_module(channels, name, *signals) is None, name
    assert through_module(channels, "conv", images) is not None
    assert through_function(channels, "view", images, BatchSize(0), -1) is not None

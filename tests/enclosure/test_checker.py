"""The checker rejects whatever was changed in a certificate, and says what and where; each of its checks is needed."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclosure.certificates import certified
from enclosure.forging import forge, problem_of
from flowsim.enclosure import checker

Record = dict[str, Any]


def events(certificate: Record) -> list[int]:
    """The steps that end with an event."""
    return [number for number, record in enumerate(certificate["steps"]) if record["event"]]


def ball_changed(text: str, shift: int = 0, scale: Fraction = Fraction(1)) -> str:
    """A ball with its middle shifted by so many radii, and its radius scaled."""
    middle, radius = (Fraction(str(checker.exact(part))) for part in text.split(" "))
    return f"{written(middle + shift * radius)} {written(scale * radius)}"


def written(number: Fraction) -> str:
    """A dyadic number as certificates have it."""
    return f"{number.numerator:x}p{1 - number.denominator.bit_length()}"


def nudged(text: str) -> str:
    """A rational number changed by less than one unit in the last place of a float."""
    return str(Fraction(text) * (1 + Fraction(1, 2**53)))


def start(certificate: Record, **change: Any) -> None:
    record = certificate["steps"][7]
    record["start"][2] = ball_changed(record["start"][2], **change)


def length(certificate: Record, shift: int) -> None:
    record = certificate["steps"][events(certificate)[1]]
    low, high = (Fraction(str(checker.exact(text))) for text in record["length"])
    record["length"] = [written(bound + shift * (high - low)) for bound in (low, high)]


def tails(certificate: Record, scale: Fraction) -> None:
    record = certificate["steps"][5]
    record["tails"] = [written(scale * Fraction(str(checker.exact(text)))) for text in record["tails"]]


def letter(certificate: Record, new: str, event: int) -> None:
    """Other letters where a sample's letter has changed, from an event up to the next."""
    steps, number = certificate["steps"], events(certificate)[event]
    record = steps[number]["event"]
    for later in steps[number + 1 :]:
        text = later["modes"][record["neuron"]]
        later["modes"][record["neuron"]] = text[: record["sample"]] + new + text[record["sample"] + 1 :]
    refitted(certificate, number + 1)


def one_exit(certificate: Record) -> None:
    """The second of two neurons that leave at one time goes on to slide."""
    steps, number = certificate["steps"], events(certificate)[0]
    for later in steps[number + 1 :]:
        later["modes"][1] = steps[number]["modes"][1]
    refitted(certificate, number + 1)


def no_event(certificate: Record) -> None:
    record = certificate["steps"][events(certificate)[0]]
    record["event"], record["length"][1] = None, record["length"][0]


def other_sample(certificate: Record) -> None:
    event = certificate["steps"][events(certificate)[0]]["event"]
    event["sample"] = (event["sample"] + 1) % 5


def refitted(certificate: Record, number: int, disc: int = -1, length: int = 1) -> None:
    """Give a step a smaller disc and tails that hold in the modes that it claims, as a forger would."""
    record = certificate["steps"][number]
    record["disc"] = scaled(record["disc"], disc)
    record["length"] = [scaled(bound, length) for bound in record["length"]]
    with checker.digits(certificate["bits"]):
        step = checker.Step(
            checker.CertifiedProblem(certificate["data"]), record | {"tails": ["0p0"] * len(record["tails"])}
        )
        for _ in range(30):
            step.expand([(bound * 1.01).upper() for bound in step.image()])
        record["tails"] = [written(Fraction(str(one.tail.fmpq()))) for one in step.weights]


def scaled(text: str, power: int) -> str:
    """A dyadic number times 2^power."""
    mantissa, exponent = text.split("p")
    return f"{mantissa}p{int(exponent) + power}"


def sign_kept(certificate: Record) -> None:
    steps, number = certificate["steps"], events(certificate)[0]
    steps[number + 1]["signs"] = steps[number]["signs"]
    refitted(certificate, number + 1, disc=-4, length=0)


def other_mode(certificate: Record) -> None:
    modes = certificate["steps"][4]["modes"]
    modes[1] = modes[1].translate(str.maketrans("+-", "-+"))
    refitted(certificate, 4)


def several_solutions(certificate: Record) -> None:
    """A start 2^-150 off a repelling kink, put onto it: it could leave to either side."""
    certificate["data"]["hidden"][0][0] = "0"
    certificate["steps"][0]["start"][0] = "0p0 1p-140"


def other_side(certificate: Record) -> None:
    """A kink changes sides where another is crossed."""
    number = events(certificate)[0]
    modes, event = certificate["steps"][number + 1]["modes"], certificate["steps"][number]["event"]
    text = modes[event["neuron"]]
    modes[event["neuron"]] = ("-" if text[0] == "+" else "+") + text[1:]
    refitted(certificate, number + 1)


def without_pieces(certificate: Record) -> None:
    for record in certificate["steps"]:
        record["pieces"] = {}
    for claim in certificate["claims"]:
        claim["pieces"] = {}


def swapped(certificate: Record) -> None:
    steps = certificate["steps"]
    steps[2], steps[3] = steps[3], steps[2]


def other_data(certificate: Record) -> None:
    certificate["data"] |= {key: certified("linear")["data"][key] for key in ("inputs", "labels", "hidden", "output")}


def setting(*path: Any, to: Callable[[Any], Any]) -> Callable[[Record], None]:
    """Change one entry."""

    def change(certificate: Record) -> None:
        place: Any = certificate
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to(place[path[-1]])

    return change


TAMPERED: dict[str, tuple[str, Callable[[Record], None], str]] = {
    "format": ("fa", setting("format", to=lambda _: "flowsim certificate 2"), "format"),
    "input by 1 ulp": ("fa", setting("data", "inputs", 1, 0, to=nudged), "is not in its ball"),
    "label flipped": ("fa", setting("data", "labels", 1, to=lambda y: -y), ""),
    "label 0": ("fa", setting("data", "labels", 1, to=lambda _: 0), "labels"),
    "hidden weight by 1 ulp": ("fa", setting("data", "hidden", 0, 1, to=nudged), "of the data is not in its ball"),
    "output weight by 1 ulp": ("fa", setting("data", "output", 1, to=nudged), "of the data is not in its ball"),
    "feedback by 1 ulp": ("fa", setting("data", "feedback", 0, to=nudged), "is not in its ball"),
    "feedback flipped": ("fa", setting("data", "feedback", 0, to=lambda b: f"-{b}"), "b_j has another one"),
    "scale by 1 ulp": ("sign-fa", setting("data", "scale", to=nudged), "is not in its ball"),
    "slope by 1 ulp": ("fa", setting("data", "slope", to=nudged), "is not in its ball"),
    "slope 2": ("fa", setting("data", "slope", to=lambda _: "2"), "of no known kind"),
    "loss": ("fa", setting("data", "loss", to=lambda _: "logistic"), ""),
    "rule": ("fa", setting("data", "feedback", to=lambda _: None), ""),
    "two rules": ("fa", setting("data", "scale", to=lambda _: "1"), "there are two rules"),
    "other data": ("fa", other_data, ""),
    "bits lowered": ("fa", setting("bits", to=lambda bits: bits - 16), "is not in its ball"),
    "t_final raised": ("fa", setting("t_final", to=nudged), "the steps do not reach"),
    "first step dropped": ("fa", setting("steps", to=lambda steps: steps[1:]), "of the data is not in its ball"),
    "step dropped": ("fa", setting("steps", to=lambda steps: steps[:4] + steps[5:]), "is not in its ball"),
    "last step dropped": ("fa", setting("steps", to=lambda steps: steps[:-1]), "the steps do not reach"),
    "ends with an event": (
        "slide",
        setting("steps", to=lambda s: s[: 1 + next(i for i, r in enumerate(s) if r["event"])]),
        "last step",
    ),
    "one of two exits": ("two slides", one_exit, "it exits to the wrong side"),
    "steps swapped": ("fa", swapped, "is not in its ball"),
    "start shifted": ("fa", lambda c: start(c, shift=3), "is not in its ball"),
    "start radius halved": ("fa", lambda c: start(c, scale=Fraction(1, 2)), "is not in its ball"),
    "start radius 0": ("fa", lambda c: start(c, scale=Fraction(0)), "is not in its ball"),
    "weight missing": ("fa", setting("steps", 3, "start", to=lambda balls: balls[:-1]), "weights are missing"),
    "tails halved": ("fa", lambda c: tails(c, Fraction(1, 2)), "the flow leaves the tail"),
    "tails 0": ("fa", lambda c: tails(c, Fraction(0)), "the flow leaves the tail"),
    "tails negative": ("fa", lambda c: tails(c, Fraction(-1)), "one is negative"),
    "order lowered": ("fa", setting("steps", 4, "order", to=lambda order: order - 3), ""),
    "order 2": ("fa", setting("steps", 4, "order", to=lambda _: 2), "too small"),
    "disc doubled": ("fa", setting("steps", 4, "disc", to=lambda text: scaled(text, 1)), "tail"),
    "step lengthened": ("fa", setting("steps", 4, "length", to=lambda _: ["3p-2", "3p-2"]), "half of the disc"),
    "length widened": ("fa", setting("steps", 4, "length", to=lambda bounds: ["1p-9", bounds[1]]), "not exact"),
    "event earlier": ("fa", lambda c: length(c, -2), "no zero in the time of its event"),
    "event later": ("fa", lambda c: length(c, 2), "no zero in the time of its event"),
    "event missing": ("fa", no_event, "its mode changes without an event"),
    "event of another sample": ("fa", other_sample, "it does not fall at its event"),
    "event of no neuron": (
        "fa",
        lambda c: c["steps"][events(c)[0]]["event"].update(neuron=-1),
        "nothing is known of it",
    ),
    "crossing as slide": ("fa", lambda c: letter(c, "0", 0), "it is not positive"),
    "crossing not made": ("fa", lambda c: letter(c, "+", 0), ""),
    "slide as crossing": ("fa", lambda c: letter(c, "-", 1), ""),
    "slide as touching": ("fa", lambda c: letter(c, "+", 1), ""),
    "slide as rest": ("fa", lambda c: letter(c, "i", 1), "a kink that it rests on has a drive"),
    "exit to the other side": ("fa", lambda c: letter(c, "+", 2), "it exits to the wrong side"),
    "exit at the other end": ("slide", lambda c: c["steps"][events(c)[0]]["event"].update(to="up"), "watch"),
    "mode of another neuron": ("fa", other_mode, "its mode changes without an event"),
    "start with several solutions": ("near", several_solutions, "is not proved to be the only one"),
    "other side at an event": ("fa", other_side, "sides change that the event does not concern"),
    "exit without an end": (
        "slide",
        lambda c: c["steps"][events(c)[0]]["event"].update(to=None),
        "where the slide ends",
    ),
    "mode too short": ("fa", setting("steps", 4, "modes", 1, to=lambda text: text[1:]), "is none"),
    "kink on two sides": (
        "equal",
        setting("steps", 0, "modes", 0, to=lambda text: "-" + text[1:]),
        "one kink on two sides",
    ),
    "signs": ("fa", setting("steps", 4, "signs", to=lambda signs: signs[::-1]), "b_j has another one"),
    "sign not flipped": ("sign-fa", sign_kept, "b_j has the wrong sign"),
    "sign 0": ("sign-fa", setting("steps", 4, "signs", to=lambda signs: "0" + signs[1:]), "b_j has none"),
    "pieces missing": ("fa", without_pieces, "is not proved to be above"),
    "pieces out of order": ("fa", setting("steps", 0, "pieces", "0 0", to=lambda _: ["1p-1", "1p-2"]), "not in order"),
    "bound raised": (
        "fa",
        setting("claims", 0, "lower", to=lambda bound: str(Fraction(bound) + Fraction(1, 10**17))),
        "is not proved to be above",
    ),
    "alignment raised": ("fa", setting("claims", 3, "lower", to=lambda _: "-2/5"), "is not proved to be above"),
    "gap raised": ("fa", setting("claims", 4, "lower", to=lambda _: "-33/100"), "is not proved to be above"),
    "bound lowered": (
        "fa",
        setting("claims", 0, "upper", to=lambda bound: str(Fraction(bound) - Fraction(1, 10**17))),
        "is not proved to come below",
    ),
    "witness elsewhere": ("fa", setting("claims", 0, "step", to=lambda _: 0), "claim"),
    "witness in no step": ("fa", setting("claims", 0, "step", to=lambda _: 1000), "its step does not exist"),
    "observable unknown": ("fa", setting("claims", 1, "observable", to=lambda _: "loss"), "no known observable"),
}


def rejection(certificate: Record) -> str | None:
    """Why a certificate is rejected; None if it is not."""
    try:
        checker.verify(certificate)
    except checker.Rejected as error:
        return str(error)
    return None


def tampered(name: str) -> Record:
    run, change, _ = TAMPERED[name]
    certificate = certified(run)
    if name == "pieces out of order":
        certificate["steps"][0]["pieces"]["0 0"] = []
    change(certificate)
    return certificate


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_changed_is_rejected_and_said(name: str) -> None:
    reason = rejection(tampered(name))
    assert reason is not None
    assert TAMPERED[name][2] in reason and "\n" not in reason


ONLY_CHECK = [
    ("start with several solutions", "is not proved to be the only one"),
    ("format", "it must be"),
    ("hidden weight by 1 ulp", "of the data is not in its ball"),
    ("t_final raised", "the steps do not reach"),
    ("start shifted", "at the end of the step before is not in its ball"),
    ("tails halved", "the flow leaves the tail"),
    ("bound raised", "is not proved to be above"),
    ("bound lowered", "is not proved to come below"),
    ("pieces out of order", "they are not in order"),
]
"""Where one check alone stands between the change and its acceptance."""


@pytest.mark.parametrize(("name", "what"), ONLY_CHECK)
def test_without_the_check_the_change_would_pass(name: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require = checker.require
    monkeypatch.setattr(checker, "require", lambda holds, where, said: require(holds or what in said, where, said))
    assert rejection(tampered(name)) is None


@pytest.mark.parametrize("name", TAMPERED)
def test_each_check_is_the_first_to_see_some_change(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker without it gives another reason, or none: the test above fails for it."""
    what, require = TAMPERED[name][2], checker.require
    monkeypatch.setattr(
        checker, "require", lambda holds, where, said: require(holds or what in f"{where}, {said}", where, said)
    )
    if what:
        assert what not in str(_outcome(tampered(name)))


def _outcome(certificate: Record) -> str | None:
    try:
        return rejection(certificate)
    except (ValueError, IndexError, KeyError, ArithmeticError) as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        ("positive", "slide as touching"),
        ("falls", "event of another sample"),
        ("check_passes", "steps swapped"),
        ("check_begins", "hidden weight by 1 ulp"),
        ("check_lasts", "event earlier"),
        ("check_claim", "bound raised"),
        ("pieces_of", "pieces out of order"),
    ],
)
def test_mistakes_in_the_checker_are_seen(mistake: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker with one function that does nothing no longer gives the reason that it must give."""
    reason = rejection(tampered(name))
    replacement = {"positive": True, "falls": True, "pieces_of": None, "check_claim": None, "check_lasts": None}
    result = replacement.get(mistake, {})
    monkeypatch.setattr(checker, mistake, lambda *given: _whole(*given) if mistake == "pieces_of" else result)
    assert _outcome(tampered(name)) != reason


def _whole(length: Any, _: Any) -> list[tuple[Any, Any]]:
    return [(0 * length, length.upper())]


@settings(max_examples=25, deadline=None)
@given(step=st.integers(1, 17), weight=st.integers(0, 7), shift=st.sampled_from([-5, 5]), small=st.booleans())
def test_every_ball_is_needed(step: int, weight: int, shift: int, small: bool) -> None:
    certificate = certified("fa")
    record = certificate["steps"][step]
    if checker.exact(record["start"][weight].split(" ")[1]) > 0:
        change: dict[str, Any] = {"scale": Fraction(3, 4)} if small else {"shift": shift}
        record["start"][weight] = ball_changed(record["start"][weight], **change)
        assert rejection(certificate) is not None


@settings(max_examples=15, deadline=None)
@given(
    sample=st.integers(0, 4),
    entry=st.integers(0, 2),
    neuron=st.integers(0, 1),
    part=st.sampled_from(["inputs", "hidden"]),
)
def test_every_number_of_the_data_is_needed(sample: int, entry: int, neuron: int, part: str) -> None:
    certificate = certified("fa")
    row = certificate["data"][part][sample if part == "inputs" else neuron]
    row[entry] = nudged(row[entry])
    assert rejection(certificate) is not None


def test_equal_starts_in_other_data_are_rejected() -> None:
    """Steps of one certificate, data of another, whose start they would fit."""
    certificate = certified("gd")
    certificate["data"]["labels"] = [-label for label in certificate["data"]["labels"]]
    assert rejection(certificate) is not None


def test_twins_are_exact_multiples_and_no_longer_when_a_sign_has_changed() -> None:
    data = deepcopy(certified("twins")["data"])
    assert checker.CertifiedProblem(data).twins == [0, 0, 2]
    assert checker.CertifiedProblem(data | {"feedback": ["1", "1/4", "1"]}).twins == [0, 1, 2]
    assert checker.CertifiedProblem(data | {"feedback": None}).twins == [0, 1, 2], "not under GD"
    data["hidden"][1][1] = nudged(data["hidden"][1][1])
    assert checker.CertifiedProblem(data).twins == [0, 1, 2]
    first, second = certified("two signs")["steps"][0], certified("two signs")["steps"][-1]
    assert first["signs"] != second["signs"]


FORGED = {
    "off the kink": (problem_of([["1", "0"], ["3/5", "6/5"]], [-1, 1], ["1/2", "1"], "3/10"), "++"),
    "a slide": (problem_of([["1", "0"], ["3/5", "6/5"]], [-1, 1], ["0", "1"], "3/10"), "0+"),
    "pushed by both sides": (problem_of([["1"], ["-2"]], [1, -1], ["0"], "0"), "+-"),
    "a rest": (problem_of([["1"], ["2"]], [-1, -1], ["0"], "0"), "ii"),
}
"""Tiny problems, and the only word of letters that is true of their start."""


@pytest.mark.parametrize("name", FORGED)
def test_of_all_modes_that_can_be_written_down_the_true_ones_alone_are_verified(name: str) -> None:
    """Every word of letters is made into a certificate that fits in all else."""
    data, true = FORGED[name]
    verified = set()
    for word in map("".join, itertools.product("+-0ai", repeat=len(true))):
        with suppress(checker.Rejected):
            checker.verify(forge(data, [word], "+"))
            verified.add(word)
    assert verified == {true}


CLAIMED: dict[str, tuple[dict[str, Any], str]] = {
    "a step between steps": ({"step": 0.5, "upper": "-1000000"}, "its step does not exist"),
    "minus the risk": ({"negated": True, "upper": None}, "has other fields"),
    "the risk of a neuron": ({"neuron": 1, "upper": None}, "has other fields"),
    "an observable of one's own": ({"observable": "joy"}, "is no known observable"),
}


@pytest.mark.parametrize("name", CLAIMED)
def test_what_would_be_printed_is_what_was_proved(name: str) -> None:
    certificate = certified("fa")
    (claim,) = [claim for claim in certificate["claims"] if claim["observable"] == "risk"]
    change, reason = CLAIMED[name]
    certificate["claims"] = [claim | change]
    assert reason in str(rejection(certificate))


def test_a_time_at_which_a_bound_is_met_is_not_behind_the_end() -> None:
    """With a smaller t_final all lower bounds stay true, and what was reached later was not reached."""
    certificate = certified("fa")
    (claim,) = [claim for claim in certificate["claims"] if claim["observable"] == "risk"]  # its bound is met at t = 4
    certificate |= {"t_final": "3", "claims": [claim]}
    assert "its time may be behind t_final" in str(rejection(certificate))
    claim["upper"] = None
    assert rejection(certificate) is None
    certificate["t_final"] = "0"
    assert "it must be above 0" in str(rejection(certificate))

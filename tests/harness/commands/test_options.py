"""Options that commands share: which seeds are read, what is said of others, where runs lie by default."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from harness.base.errors import UsageError
from harness.base.paths import ROOT
from harness.commands.options import MAX_SEED, number, runs_folder, seed_numbers, whole
from tests.harness.fakes.command_line import pgolf


def refusal(text: str) -> UsageError:
    with pytest.raises(UsageError) as refused:
        seed_numbers(text)
    return refused.value


def test_an_option_that_is_not_given_names_no_seed() -> None:
    assert seed_numbers(None) == []


def test_seeds_are_read_in_their_order_with_or_without_spaces() -> None:
    assert seed_numbers("1337,42,0") == [1337, 42, 0]
    assert seed_numbers(f" 1 , {MAX_SEED} ") == [1, MAX_SEED]


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_option_without_a_seed_is_refused_because_it_does_not_say_all(text: str) -> None:
    said = refusal(text)
    assert "names no seed" in said.message
    assert "leave it out for all seeds" in said.hint


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("042", "write 42"),
        ("00", "write 0"),
        ("1_000", "write 1000"),
        ("+5", "write 5"),
        ("-0", "write 0"),
        ("٤٢", "write 42"),
        ("\t42", "write 42"),
    ],
)
def test_a_seed_that_is_written_in_another_way_is_refused_with_what_to_write(text: str, write: str) -> None:
    said = refusal(f"1337,{text}")
    assert "is no plain number" in said.message
    assert said.hint == write


@pytest.mark.parametrize(
    "text", ["-1", str(MAX_SEED + 1), 21 * "1", 5000 * "1", "1.0", "0x10", "1 2", "all", "²"]
)
def test_what_is_no_seed_is_refused_with_the_range(text: str) -> None:
    said = refusal(f"1,{text}")
    assert "is no number from 0 to 4294967295" in said.message
    assert "e.g. --seeds 1337,42" in said.hint
    assert len(said.message) < 250


@pytest.mark.parametrize(("text", "seed"), [("1337,1337", 1337), ("0,7,0", 0)])
def test_a_seed_that_is_named_twice_is_refused(text: str, seed: int) -> None:
    said = refusal(text)
    assert f"{seed} is named twice" in said.message
    assert said.hint == f"write --seeds {','.join(dict.fromkeys(text.split(',')))}"


@pytest.mark.parametrize("text", ["1,,2", "1,2,", ",1,2"])
def test_a_comma_without_a_seed_is_refused(text: str) -> None:
    assert refusal(text).hint == "write --seeds 1,2"


def test_runs_lie_at_the_root_of_the_checkout_wherever_in_it_a_command_is_called(tmp_path: Path) -> None:
    assert runs_folder(ROOT) == Path("runs")
    assert runs_folder(ROOT / "submissions") == Path("../runs")
    assert runs_folder(tmp_path) == Path("runs")


@pytest.mark.parametrize("text", ["042", "1_0", "+64", " 64", "-1", "", "1e3", "६४", "9" * 30])
def test_a_whole_number_on_the_command_line_is_read_as_strictly_as_in_a_manifest(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a whole number, at least 0, such as 42"):
        whole(0)(text)


def test_a_whole_number_has_a_least_value() -> None:
    assert (whole(0)("0"), whole(1)("64")) == (0, 64)
    with pytest.raises(typer.BadParameter, match="at least 1"):
        whole(1)("0")


@pytest.mark.parametrize("text", ["1_0", "045", ".5", "5.", "nan", "inf", "0x10", "", " 4"])
def test_a_number_on_the_command_line_has_the_form_of_json(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a number such as 45"):
        number(text)


def test_numbers_of_the_form_of_json_are_read() -> None:
    assert [number(text) for text in ("45", "4.5", "1e-3", "-2")] == [45, 4.5, 0.001, -2]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "x", "--witness", "042"),
        ("run", "x", "--train-seconds", "1_0"),
        ("run", "x", "--runner", "podman"),
        ("schema", "foo"),
    ],
)
def test_a_refused_option_is_told_in_words_that_no_library_wrote_for_programmers(words: tuple[str]) -> None:
    refused = pgolf(*words)
    assert refused.exit_code == 2
    assert "Value error" not in refused.stderr and "Input should be" not in refused.stderr

"""manifest.yaml: each mistake is an error with its key and a hint; no file outside the folder is read."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import UsageError
from harness.run import manifest_mistakes, submission as submissions

DIGEST = "sha256:" + "0" * 64
GOOD: dict[str, Any] = {
    "schema": 1,
    "name": "my-idea",
    "title": "An idea",
    "authors": ["A. Person"],
    "source": "#586",
    "parents": ["#414"],
    "track": "A",
    "dataset": "sp1024",
    "seeds": [1337, 42, 2024],
    "config": "config.yaml",
    "image": {"cpu": DIGEST, "cuda": DIGEST},
    "claim": {"dataset": "fineweb-sp1024", "bpb": {1337: 1.1365, 42: 1.1357}},
    "baseline": {"name": "b", "source": "#414", "dataset": "fineweb-sp1024", "bpb": {1: 1.2, 2: 1.21}},
}
CONFIG = b"model: {width: 512}\n"


def write_submission(folder: Path, data: Any = GOOD, name: str = "my-idea") -> Path:
    """A submission's folder; `data` is its manifest, as an object or as text."""
    place = folder / "submissions" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "manifest.yaml").write_text(
        data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8"
    )
    (place / "config.yaml").write_bytes(CONFIG)
    return place


def changed(**changes: Any) -> dict[str, Any]:
    """The good manifest with keys replaced: a__b means key b inside a, and the value ... removes a key."""
    data = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = data
        for part in outer:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return data


def refused(place: Path, match: str, hint: str = "") -> UsageError:
    with pytest.raises(UsageError, match=match) as caught:
        submissions.load(place)
    assert hint in caught.value.hint
    assert caught.value.hint
    assert all(line.isprintable() for line in caught.value.message.splitlines())
    return caught.value


def test_a_good_manifest_is_read_with_its_recipe(tmp_path: Path) -> None:
    loaded = submissions.load(write_submission(tmp_path))
    assert loaded.manifest.model_dump(by_alias=True, exclude={"edition"}, exclude_defaults=False) == {
        **GOOD,
        "claim": {**GOOD["claim"], "profile": "record"},
        "baseline": {**GOOD["baseline"], "profile": "record"},
    }
    assert loaded.config == CONFIG


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seedz": [1]}, "seedz: unknown key; did you mean 'seeds'?"),
        ({"claim__bbp": {}}, "claim.bbp: unknown key; did you mean 'bpb'?"),
        ({"image__gpu": DIGEST}, "image.gpu: unknown key; did you mean 'cpu'?"),
        ({"baseline__dataste": "x"}, "baseline.dataste: unknown key; did you mean 'dataset'?"),
        ({"schema_version": 1}, "schema_version: unknown key; did you mean 'schema'?"),
        ({"wholly different": 1}, "wholly different: unknown key; known here: schema, name, title"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_a_known_one(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    refused(write_submission(tmp_path, changed(**changes)), re.escape(says))


@pytest.mark.parametrize(
    "key",
    [
        "schema",
        "name",
        "title",
        "authors",
        "source",
        "track",
        "dataset",
        "seeds",
        "image",
        "image__cuda",
        "claim__bpb",
        "baseline__name",
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    refused(
        write_submission(tmp_path, changed(**{key: ...})), f"{key.replace('__', '.')}: missing; expected "
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("schema", True),
        ("schema", "1"),
        ("schema", 1.0),
        ("name", "My Idea"),
        ("name", "../evil"),
        ("name", 3),
        ("title", ""),
        ("title", "x" * 401),
        ("authors", "A. Person"),
        ("authors", []),
        ("track", "C"),
        ("track", ["A"]),
        ("dataset", "sp4096"),
        ("edition", "official-2099"),
        ("seeds", []),
        ("seeds", [True]),
        ("seeds", [-1]),
        ("seeds", [2**32]),
        ("seeds", ["1337"]),
        ("seeds", [1.0]),
        ("seeds", [1, 2, 1]),
        ("seeds", 1337),
        ("image__cpu", "latest"),
        ("image__cpu", DIGEST.upper()),
        ("image", None),
        ("claim__bpb", {}),
        ("claim__bpb", {"1337": 1.1}),
        ("claim__bpb", {"bpb": 1.1}),
        ("claim__bpb", {"[key]": "x"}),
        ("claim__bpb", {1337: "1.1"}),
        ("claim__bpb", {1337: True}),
        ("claim__bpb", {1337: float("nan")}),
        ("claim__bpb", {1337: float("inf")}),
        ("claim__bpb", {1337: 0}),
        ("claim__bpb", {1337: -1.1}),
        ("claim__profile", "full"),
        ("baseline__bpb", {1: 1.2}),
        ("baseline", []),
    ],
)
def test_a_mistyped_value_is_an_error_that_names_its_key(tmp_path: Path, key: str, value: Any) -> None:
    refused(write_submission(tmp_path, changed(**{key: value})), key.split("__")[0])


def test_every_mistake_is_shown_at_its_place_on_a_line_of_its_own(tmp_path: Path) -> None:
    text = """\
schema: 1
name: my-idea
title: ""
authors: A. Person
source: [x]
track: C
dataset: sp1024
seeds: [42, 042, 1337, 42]
image: {cpu: latest, cuda: sha256:00}
claim:
  dataset: fineweb-sp1024
  bpbb: {}
  bpb: {"1337": 1.1, 42: high}
baseline:
seedz: 7
"""
    message = refused(write_submission(tmp_path, text), "manifest.yaml").message
    path = tmp_path / "submissions" / "my-idea" / "manifest.yaml"
    digest = "sha256: and 64 hexadecimal digits, as `pgolf image lock {}` prints it"
    assert message.splitlines() == [
        f"{path}:{line}"
        for line in (
            "3:8: title: expected text of 1 to 400 characters; found an empty text",
            "4:10: authors: expected a list of 1 to 20 names; found the text 'A. Person'",
            "5:9: source: expected text of 1 to 400 characters; found a list of 1 item",
            "6:8: track: expected A or B; found the text 'C'",
            '8:13: seeds[1]: YAML readers disagree about 042: write 42, or "042" for text',
            f"9:14: image.cpu: expected {digest.format('cpu')}; found the text 'latest'",
            f"9:28: image.cuda: expected {digest.format('cuda')}; found the text 'sha256:00'",
            "12:3: claim.bpbb: unknown key; did you mean 'bpb'?",
            "13:9: claim.bpb.1337: expected a seed: a whole number from 0 to 4,294,967,295; "
            "found the text '1337'",
            "13:26: claim.bpb.42: expected a number of bits per byte, above 0 and at most 32; "
            "found the text 'high'",
            '14:10: baseline: an empty value: write null, or "" for an empty text',
            "15:1: seedz: unknown key; did you mean 'seeds'?",
        )
    ]


def test_a_seed_that_is_written_twice_is_named(tmp_path: Path) -> None:
    refused(
        write_submission(tmp_path, changed(seeds=[42, 7, 42])), "seeds: each seed once; 42 is written twice"
    )


def test_every_key_of_the_schema_has_an_expectation_in_words() -> None:
    schema = submissions.schema()

    def paths(node: dict[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for option in (node, *node.get("anyOf", [])):
            option = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]] if "$ref" in option else option
            for key, below in option.get("properties", {}).items():
                yield (*at, key)
                yield from paths(below, (*at, key))
            if "items" in option:
                yield (*at, "*")
            if option.get("type") == "object" and "properties" not in option:
                yield from ((*at, "*"), (*at, "*", "[key]"))

    assert set(paths(schema, ())) == set(manifest_mistakes.EXPECTED)


def test_values_and_keys_are_quoted_without_control_characters(tmp_path: Path) -> None:
    text = yaml.safe_dump(GOOD) + '"\\e[31mred\\u202e": 1\n'
    assert "\\x1b[31mred\\u202e" in refused(write_submission(tmp_path, text), "unknown key").message
    refused(write_submission(tmp_path, changed(track="\x1b[2J")), r"track: .* found the text '\\x1b\[2J'")
    refused(write_submission(tmp_path, changed(track="é")), "found the text 'é'")


@pytest.mark.parametrize(
    "path",
    [
        "../other/config.yaml",
        "..",
        "a/../../x",
        "/etc/passwd",
        "./../config.yaml",
        "",
        "a//b",
        "a b",
        "config.yaml\n",
        "~/x",
        "a\\b",
    ],
)
def test_a_recipe_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "submissions" / "other").mkdir(parents=True)
    (tmp_path / "submissions" / "other" / "config.yaml").write_bytes(b"secret: 1\n")
    error = refused(write_submission(tmp_path, changed(config=path)), "config")
    assert "secret" not in error.message


def link_to_a_file(place: Path) -> None:
    (place / "config.yaml").unlink()
    (place / "config.yaml").symlink_to("/etc/hostname")


def link_to_a_folder_above(place: Path) -> None:
    (place.parent / "config.yaml").write_bytes(CONFIG)
    (place / "up").symlink_to("..")


@pytest.mark.parametrize(
    ("add_link", "path"), [(link_to_a_file, "config.yaml"), (link_to_a_folder_above, "up/config.yaml")]
)
def test_a_recipe_that_leaves_the_folder_by_a_link_is_refused(
    tmp_path: Path, add_link: Callable[[Path], None], path: str
) -> None:
    place = write_submission(tmp_path, changed(config=path))
    add_link(place)
    refused(place, "leads out of the submission's folder")


def test_a_recipe_that_links_to_itself_is_no_recipe(tmp_path: Path) -> None:
    place = write_submission(tmp_path)
    (place / "config.yaml").unlink()
    (place / "config.yaml").symlink_to("config.yaml")
    refused(place, "no such recipe", "manifest.yaml names it")


def test_a_recipe_in_a_folder_of_the_submission_is_fine(tmp_path: Path) -> None:
    place = write_submission(tmp_path, changed(config="recipes/small.yaml"))
    (place / "recipes").mkdir()
    (place / "recipes" / "small.yaml").write_bytes(b"width: 1\n")
    assert submissions.load(place).config == b"width: 1\n"


def test_a_missing_and_an_oversized_recipe_are_refused(tmp_path: Path) -> None:
    refused(
        write_submission(tmp_path, changed(config="absent.yaml")), "no such recipe", "manifest.yaml names it"
    )
    place = write_submission(tmp_path)
    (place / "config.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    refused(place, "larger than")


def test_a_name_that_differs_from_the_folders_is_refused(tmp_path: Path) -> None:
    refused(
        write_submission(tmp_path, name="another"),
        "manifest.yaml:20:7: name: expected 'another', as the folder is called; found 'my-idea'",
    )


def test_the_folder_may_be_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_submission(tmp_path))
    assert submissions.load(Path()).manifest.name == "my-idea"


def test_a_missing_submission_is_an_error_that_suggests_another(tmp_path: Path) -> None:
    place = write_submission(tmp_path)
    refused(place.parent / "my-idae", "no such submission", "my-idea")
    refused(tmp_path / "nowhere" / "x", "no such submission", "submissions")
    refused(tmp_path / "hadamard-ve128", "no such submission", "submissions/hadamard-ve128")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "", "3\n"])
def test_a_manifest_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    refused(write_submission(tmp_path, text), "expected a mapping")


@pytest.mark.parametrize("text", ["schema: 1\nschema: 1\n", "a: &a [1]\nb: *a\n", "? [a]\n: 1\n"])
def test_repeated_keys_and_aliases_are_refused(tmp_path: Path, text: str) -> None:
    refused(write_submission(tmp_path, text), "manifest.yaml:")


def digest(folder: Path, **changes: Any) -> str:
    return submissions.load(write_submission(folder, changed(**changes))).manifest.digest()


@pytest.mark.parametrize(
    "prose",
    [
        {"title": "Other"},
        {"authors": ["B"]},
        {"source": "x"},
        {"parents": []},
        {"seeds": [7]},
        {"claim__bpb": {7: 1.0}},
        {"baseline": None},
    ],
)
def test_prose_claims_and_seeds_leave_the_identity_of_a_run_alone(
    tmp_path: Path, prose: dict[str, Any]
) -> None:
    assert digest(tmp_path / "a", **prose) == digest(tmp_path / "b")


@pytest.mark.parametrize("change", [{"track": "B"}, {"dataset": "sp8192"}, {"image__cpu": DIGEST[:-1] + "1"}])
def test_what_a_run_depends_on_changes_its_identity(tmp_path: Path, change: dict[str, Any]) -> None:
    assert digest(tmp_path / "a", **change) != digest(tmp_path / "b")


def test_the_schema_is_a_json_schema_ready_for_the_docs() -> None:
    schema = submissions.schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values())
    assert set(schema["required"]) == set(GOOD) - {"parents", "config", "claim", "baseline"}
    assert set(schema["properties"]) == set(GOOD) | {"edition"}
    assert schema["description"]
    undescribed = {
        key for key, value in schema["properties"].items() if not {"description", "$ref"} & set(value)
    }
    assert undescribed <= {"title", "authors", "edition", "seeds", "baseline"}, (
        "keys that need an explanation have one"
    )


def test_a_seed_beyond_64_bits_is_a_mistake_at_its_place(tmp_path: Path) -> None:
    """pydantic turns such a key into text."""
    claim = {"dataset": "x", "bpb": {2**64: 1.0}}
    refused(
        write_submission(tmp_path, changed(claim=claim)), r"claim\.bpb\.18446744073709551616: expected a seed"
    )

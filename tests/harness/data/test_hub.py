"""The hub's addresses: what cannot succeed is not tried again, and no message shows a secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.base.errors import MachineFault, UsageError
from harness.data.hub import Repository
from tests.harness.fakes.hub import COMMIT, REPOSITORY, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    stand_in = Hub({})
    yield stand_in
    stand_in.close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, which does not take place."""
    waited: list[float] = []
    monkeypatch.setattr("harness.base.download.sleep", waited.append)
    return waited


def repository(endpoint: str) -> Repository:
    return Repository(REPOSITORY, COMMIT, endpoint)


@pytest.mark.parametrize("endpoint", ["notaurl", "ftp://host", "http://", "http://me:secret@host:port"])
def test_an_address_of_the_hub_that_cannot_be_used_is_refused_at_once(
    endpoint: str, waits: list[float]
) -> None:
    with pytest.raises(UsageError, match="the address of the hub cannot be used") as caught:
        repository(endpoint).metadata("file")
    assert "HF_ENDPOINT" in caught.value.hint
    assert (waits, "secret" in str(caught.value)) == ([], False)


def test_a_hub_without_tls_is_not_asked_again(hub: Hub, waits: list[float]) -> None:
    with pytest.raises(MachineFault, match="TLS with the server failed"):
        repository(hub.endpoint.replace("http:", "https:")).metadata("file")
    assert waits == []


@pytest.mark.parametrize(
    ("status", "said"), [(404, "the hub does not have it"), (403, "download failed .*the server answers 403")]
)
def test_no_refusal_shows_the_password_of_the_hubs_address(hub: Hub, status: int, said: str) -> None:
    hub.refusals = [("HEAD", status, {"X-Error-Code": "EntryNotFound"} if status == 404 else {})]
    with pytest.raises((UsageError, MachineFault), match=said) as caught:
        repository(hub.endpoint.replace("http://", "http://me:secret@")).metadata("file")
    assert "secret" not in str(caught.value)

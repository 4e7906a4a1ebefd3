"""What the settings of a replica job must be."""

from pathlib import Path

import pytest

from jobs.replica_settings import ReplicaSettings
from jobs.settings import SettingsError

REPLICA = {
    "ROLE": "replica",
    "NAME": "r1",
    "LISTEN": "127.0.0.1:7000",
    "KEYS": "keys",
    "LOG": "votes",
    "PEERS": "r1@127.0.0.1:7000, r2@127.0.0.1:7001",
}


def load(monkeypatch: pytest.MonkeyPatch, **settings: str) -> ReplicaSettings:
    for name, value in settings.items():
        monkeypatch.setenv(f"REPLICA_{name}", value)
    return ReplicaSettings.load()


def test_a_local_group_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    assert (settings.role, settings.replicas, settings.machine) == ("local", 4, "store")


def test_a_real_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, **REPLICA)
    assert settings.peers == ["r1@127.0.0.1:7000", "r2@127.0.0.1:7001"]
    assert settings.log == Path("votes")


@pytest.mark.parametrize("missing", ["NAME", "LISTEN", "KEYS", "LOG", "PEERS"])
def test_what_a_replica_needs(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: value for name, value in REPLICA.items() if name != missing}
    with pytest.raises(SettingsError, match=f"REPLICA_ROLE=replica needs REPLICA_{missing}"):
        load(monkeypatch, **given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"NAME": "r1"}, "REPLICA_NAME needs REPLICA_ROLE"),
        ({"LOG": "votes"}, "REPLICA_LOG needs REPLICA_ROLE"),
        ({"REPLICAS": "3"}, "REPLICA_REPLICAS=3: 4 bear one liar, 7 two"),
        ({"BYZANTINE": "rude"}, "REPLICA_BYZANTINE=rude"),
        ({"MASCHINE": "locks"}, "did you mean REPLICA_MACHINE"),
        ({**REPLICA, "PATH": "x"}, "REPLICA_PATH is for clients"),
        ({**REPLICA, "PEERS": "r2"}, "REPLICA_PEERS: 'r2' is not name@host:port"),
        (
            {**REPLICA, "ROLE": "client"},
            "REPLICA_BYZANTINE and REPLICA_LOG are for replicas",
        ),
        ({**REPLICA, "BATCH": "5"}, "REPLICA_BATCH is for the local group, not REPLICA_ROLE"),
        ({**REPLICA, "WINDOW": "5"}, "REPLICA_WINDOW is for clients and the local group"),
        ({**REPLICA, "DATAGRAM": "100"}, "REPLICA_DATAGRAM=100"),
    ],
)
def test_settings_that_do_not_go_together(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=message):
        load(monkeypatch, **settings)

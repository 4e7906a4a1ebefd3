import pytest

from state.pbft.events import Settings


def test_the_settings_are_within_their_own_limits() -> None:
    Settings()
    Settings(checkpoint=1, pipeline=1, batch_operations=1, lazy=0.0, chunk=1, max_state=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("checkpoint", 0),
        ("checkpoint", 2049),
        ("batch_operations", 10_001),
        ("batch_bytes", 0),
        ("pipeline", 0),
        ("timeout", 0.0),
        ("timeout", float("nan")),
        ("longest_timeout", 0.5),
        ("resend", -1.0),
        ("longest_resend", 0.0),
        ("lazy", -0.1),
        ("lazy_fast", float("inf")),
        ("max_skew", 0.0),
        ("max_request", 0),
        ("max_waiting", 0),
        ("max_state", 0),
        ("chunk", 0),
    ],
)
def test_a_setting_out_of_its_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` is {value}: it must"):
        Settings(**{name: value})  # type: ignore[arg-type]

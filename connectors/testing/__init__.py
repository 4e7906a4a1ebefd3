"""The contract of sources and sinks as two checks, for ours and for those that plug in.

    def test_my_feed_keeps_the_contract():
        check_source(lambda: MyFeed("prices.db"), schema=TICKS)

    def test_my_sink_keeps_the_contract():
        check_sink(lambda d: MySink(d / "out"), items, lambda d: (d / "out").read_text())

A failure is an ``AssertionError`` that begins with the broken clause. The checks drive a connector
as Bytewax 0.21 does, which in two ways is not as its documentation says: a partition is closed
after a failure too, and a sink's last snapshot may not be stored though its input is complete.
"""

from connectors.testing.relay import Counts, UdpRelay
from connectors.testing.sinks import check_sink
from connectors.testing.sources import check_source

__all__ = ["Counts", "UdpRelay", "check_sink", "check_source"]

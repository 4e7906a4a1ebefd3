"""Columnar windows over event time: tumbling, sliding and session.

Items are record batches under a key, the shard. Every row has its time in a column. The
*watermark* of a key is the largest time it has seen minus `lateness`; it moves with every row, in
the order of arrival, so that results do not depend on how rows are batched. It does not move with
the clock: a key that gets no rows closes no windows until the end of input.
"""

from operators.window.event_time import Window, WindowOut
from operators.window.session import session
from operators.window.sliding import sliding
from operators.window.tumbling import tumbling, tumbling_aggregate

__all__ = ["Window", "WindowOut", "session", "sliding", "tumbling", "tumbling_aggregate"]

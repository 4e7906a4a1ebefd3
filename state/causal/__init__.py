"""Which series drives which: tests of lagged links from mergeable moments or from rows.

The headline is *conditional*: :func:`granger` and :func:`transfer_entropy` with
``conditional=True``, :func:`granger_robust` where rows are at hand, or :func:`pcmci`. A pairwise
test must not be one. It asks whether i's past helps to predict j given only j's own past, and for
a chain i -> k -> j, or a common cause of both, the answer is yes, although i does nothing to j.
Such indirect links are real correlations, so more data finds more of them: on simulated systems of
20 to 50 series and 5,000 rows the pairwise F1 is about .5 where conditional tests reach .95.

All of N^2 tests at 5 % find N^2 / 20 links in noise, so correct with :func:`benjamini_hochberg`.
No test on observed series rules out a driver that is not among them.
"""

from state.causal.corrections import benjamini_hochberg
from state.causal.do import Intervention, intervene
from state.causal.entropy import TransferEntropyResult, transfer_entropy
from state.causal.linear import GrangerResult, SingularSystemError, granger
from state.causal.parcorr import PcmciResult, pcmci
from state.causal.robust import granger_robust

__all__ = [
    "GrangerResult",
    "Intervention",
    "PcmciResult",
    "SingularSystemError",
    "TransferEntropyResult",
    "benjamini_hochberg",
    "granger",
    "granger_robust",
    "intervene",
    "pcmci",
    "transfer_entropy",
]

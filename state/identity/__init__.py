"""Who is who: Ed25519 identities, rosters with epochs, and keys shared by two.

Signatures are in domains and accepted by a strict rule (:mod:`state.identity.ed25519`). Nothing
here makes randomness: seeds are passed in. `python -m jobs keys DIR n1 n2 --roster` makes files.
"""

from state.identity.identities import IdentityError, PrivateIdentity, PublicIdentity
from state.identity.keys import (
    MAC_BYTES,
    AgreementKey,
    SigningKey,
    mac,
    mac_valid,
    verify,
)
from state.identity.roster import Roster
from state.identity.trust import TrustStore, approve

__all__ = [
    "MAC_BYTES",
    "AgreementKey",
    "IdentityError",
    "PrivateIdentity",
    "PublicIdentity",
    "Roster",
    "SigningKey",
    "TrustStore",
    "approve",
    "mac",
    "mac_valid",
    "verify",
]

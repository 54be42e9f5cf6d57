"""The assignment of users to models, and the signed answers to which feedback refers."""

import base64
import dataclasses
import hashlib
import hmac
import json
from collections.abc import Sequence

from jaxnets.deploy.server.limits import RequestError

MAX_TOKEN = 4096  # Characters.
MAC_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A split of the users between the arms A and B, the same after every restart."""

    models: tuple[str, ...]  # One name, or the two arms' names.
    share: float  # The part of the users that A answers, from 0 to 1.

    def user(self, key: str) -> str:
        """The hash of a user's key, in this experiment: 32 hexadecimal digits.

        Another pair of models divides the users anew.
        """
        text = "\0".join([*self.models, key])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def arm(self, user: str) -> int:
        """The number of the user's model: 0 for A, 1 for B."""
        return int(len(self.models) > 1 and int(user[:13], 16) >= self.share * 16**13)


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer for a picture, which the client sends back with its feedback."""

    request: str
    user: str
    model: str
    version: str
    arm: str
    prediction: str


def sign(key: bytes, answer: Answer) -> str:
    """The answer as a text that only the key's owner can make."""
    fields = json.dumps(list(vars(answer).values()), separators=(",", ":")).encode()
    mac = hmac.digest(key, fields, "sha256")[:MAC_BYTES]
    return base64.urlsafe_b64encode(mac + fields).decode()


def verify(key: bytes, text: object) -> Answer:
    """The answer that `sign` made into a text; RequestError for any other text."""
    wrong = RequestError(400, "answer: expected the text of an answer of this server")
    if not isinstance(text, str) or len(text) > MAX_TOKEN:
        raise wrong
    try:
        content = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except ValueError:
        raise wrong from None
    mac, fields = content[:MAC_BYTES], content[MAC_BYTES:]
    if not hmac.compare_digest(mac, hmac.digest(key, fields, "sha256")[:MAC_BYTES]):
        raise wrong
    values: Sequence[str] = json.loads(fields)
    return Answer(*values)

"""A session for channels that hand over one message after another: what most providers take."""

from collections.abc import Callable, Iterator, Sequence

from nexus_marketing.core.contracts import Journal, Outcome, OutcomeKind, Submission

#: Hands over one message. It calls what it is given directly before the bytes that complete the message may leave.
HandOver = Callable[[Submission, Callable[[], None]], Outcome]


class SerialSession:
    """Keeps the journal and takes back what was not begun; a hand-over that raises is an outcome.

    Raised before the message could leave, it is ``transient``; raised after that, nobody knows and it is ``unknown``.

    Args:
        hand_over: must answer or give up within twenty seconds.
        close: lets go of connections.
    """

    def __init__(self, hand_over: HandOver, close: Callable[[], None] | None = None) -> None:
        self._hand_over = hand_over
        self._close = close
        self._is_withdrawn = False

    def submit(self, batch: Sequence[Submission], journal: Journal) -> Iterator[Outcome | None]:
        """Hand over when asked for the next outcome, not before."""
        self._is_withdrawn = False
        return (self._one(each, journal) for each in batch)

    def withdraw(self) -> None:
        """What was not begun is not."""
        self._is_withdrawn = True

    def close(self) -> None:
        """Let go."""
        if self._close is not None:
            self._close()

    def _one(self, submission: Submission, journal: Journal) -> Outcome:
        if self._is_withdrawn:
            return Outcome(submission.ref, OutcomeKind.NOT_SENT)
        has_left = False

        def leaving() -> None:
            nonlocal has_left
            journal.on_wire(submission.ref)
            has_left = True

        try:
            outcome = self._hand_over(submission, leaving)
        except Exception as error:  # noqa: BLE001 - isolation boundary: whatever a channel raises is this message's fate
            kind = OutcomeKind.UNKNOWN if has_left else OutcomeKind.TRANSIENT
            outcome = Outcome(submission.ref, kind, type(error).__name__, str(error)[:200])
        if has_left:
            journal.on_outcome(submission.ref, outcome.kind)
        return outcome

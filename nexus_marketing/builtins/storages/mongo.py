"""Campaigns in MongoDB (the extra ``mongo``), on one server, a replica set or a sharded cluster, without transactions.

Two collections. ``marketing_campaigns`` has one document for a campaign: its state and the newest line of its
history. ``marketing_history`` has one document for every older line, so that no history meets the limit of 16 MB.

A commit has two steps, and nothing is lost where the program dies between them or before:

1. The line in the campaign's document is copied into the history; where somebody did that before, it stays.
2. The document is changed in one step, if it is still at the expected version: new state and new line together.

So a line is in the document, in the history, or in both, and never in neither. Whoever reads takes the document
first, then the history up to it. What is read has reached a majority (``readConcern``): a failover never takes
back what was copied. What is written waits for a majority and its journal (``writeConcern``).

States and lines are JSON texts: launch data may have keys that MongoDB reserves (``$set``, ``a.b``). Beside
them lies what is searched for: ``tenant``, ``subject_type``, ``subject_id``, ``name``, ``status``, ``version``.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

from pymongo import ASCENDING, IndexModel, MongoClient, ReadPreference, WriteConcern, errors
from pymongo.read_concern import ReadConcern

from nexus_marketing.builtins.storages.documents import entry_from, entry_text, state_from, state_text, tenant_name
from nexus_marketing.core.campaigns import (
    CampaignFilter,
    CampaignKey,
    CampaignState,
    Decision,
    HistoryEntry,
    HistoryPage,
)
from nexus_marketing.core.errors import ConfigurationError, Unavailable
from nexus_marketing.core.inline import stale

_ORDER: Final = [("subject_type", ASCENDING), ("subject_id", ASCENDING), ("name", ASCENDING)]
_INDEXES: Final = (
    IndexModel([("tenant", ASCENDING), *_ORDER], name="subject"),
    IndexModel([("tenant", ASCENDING), ("status", ASCENDING), *_ORDER], name="status"),
)
_AWAY: Final = (errors.ConnectionFailure, errors.WriteConcernError, errors.ExecutionTimeout)
#: Unauthorized, AuthenticationFailed.
_REFUSED: Final = frozenset({13, 18})
_NOTHING_CHANGED: Final = "nothing was changed"


class MongoStorage:
    """Campaigns of one tenant in MongoDB.

    Args:
        client: of pymongo. Its time limits are the storage's.
        tenant: whose campaigns; letters, digits, ``-``, ``_`` and ``.``.
        database: in which the two collections are.
        timeout_seconds: how long a majority may take to write.
    """

    def __init__(
        self,
        client: MongoClient[dict[str, Any]],
        tenant: str = "default",
        database: str = "nexus_marketing",
        *,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._client = client
        self._tenant = tenant_name(tenant)
        found = client.get_database(
            database,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern(w="majority", j=True, wtimeout=round(timeout_seconds * 1_000)),
        )
        self._campaigns = found["marketing_campaigns"]
        self._lines = found["marketing_history"]
        self._prepared = False

    @classmethod
    def from_url(
        cls, url: str, tenant: str = "default", database: str = "nexus_marketing", *, timeout_seconds: float = 2.0
    ) -> Self:
        """A storage on the server or servers of ``mongodb://…`` or ``mongodb+srv://…``.

        Args:
            url: as pymongo reads it.
            tenant: whose campaigns.
            database: in which the two collections are.
            timeout_seconds: to find a primary, to connect, and to wait for an answer.
        """
        limit = round(timeout_seconds * 1_000)
        client: MongoClient[dict[str, Any]] = MongoClient(
            url, serverSelectionTimeoutMS=limit, connectTimeoutMS=limit, socketTimeoutMS=2 * limit
        )
        return cls(client, tenant, database, timeout_seconds=timeout_seconds)

    def load(self, key: CampaignKey) -> CampaignState | None:
        """The campaign as it is now, or nothing."""
        with _answering(_NOTHING_CHANGED):
            document = self._campaigns.find_one(self._id(key), {"state": 1})
        return None if document is None else state_from(document["state"])

    def commit(self, key: CampaignKey, expected_version: int, decision: Decision) -> CampaignState:
        """Write a decision, all of it or nothing.

        Raises:
            StaleVersion: another call was first.
            Unavailable: no majority answered. The decision may have been written all the same: a repeat is
                refused as stale then, and never writes a second line.
        """
        written = self._document(decision.state, decision.entry)
        with _answering("look at the campaign before you try again: it may have been changed all the same"):
            document = self._campaigns.find_one(self._id(key), {"version": 1, "life": 1, "line": 1})
            current = 0 if document is None else int(document["version"])
            if current != expected_version:
                raise stale(key, current, expected_version)
            if document is None:
                done = self._insert(key, secrets.token_hex(16), written)
            else:
                self._settle(key, document)
                there = {"_id": self._id(key), "version": expected_version}
                done = self._campaigns.update_one(there, {"$set": written}).matched_count == 1
            if not done:
                raise stale(key, self._version(key), expected_version)
        return decision.state

    def history(self, key: CampaignKey, page: HistoryPage) -> Sequence[HistoryEntry]:
        """Lines of the campaign's history, oldest first."""
        with _answering(_NOTHING_CHANGED):
            document = self._campaigns.find_one(self._id(key), {"life": 1, "line": 1})
            if document is None or document["line"] is None:
                return []
            newest = entry_from(document["line"])
            life = document["life"]
            between = {"$gt": _line_id(life, page.after), "$lt": _line_id(life, newest.version)}
            older = self._lines.find({"_id": between}, {"line": 1}).sort("_id", ASCENDING).limit(page.limit)
            lines = [entry_from(each["line"]) for each in older]
        if len(lines) < page.limit and newest.version > page.after:
            lines.append(newest)
        return lines

    def find(self, wanted: CampaignFilter) -> Sequence[CampaignState]:
        """Campaigns, in the order of their keys."""
        where: dict[str, Any] = {"tenant": self._tenant}
        if wanted.subject_type is not None:
            where["subject_type"] = wanted.subject_type
        if wanted.subject_id is not None:
            where["subject_id"] = wanted.subject_id
        if wanted.statuses:
            where["status"] = {"$in": sorted(wanted.statuses)}
        with _answering(_NOTHING_CHANGED):
            found = self._campaigns.find(where, {"state": 1}).sort(_ORDER).limit(wanted.limit)
            return [state_from(each["state"]) for each in found]

    def adopt(
        self,
        state: CampaignState,
        history: Sequence[HistoryEntry],
        program: Mapping[str, Any] | None = None,
        attended: frozenset[str] = frozenset(),
    ) -> CampaignState:
        """Take over a campaign as it is; one that is already here stays as it is here.

        Lines come first, under a life of their own: what dies half-way, or comes second, left nothing that is read.
        """
        there = self.load(state.key)
        if there is not None:
            return there
        life = secrets.token_hex(16)
        older = [self._line(state.key, life, line) for line in history[:-1]]
        with _answering("nothing is lost by trying again"):
            if older:
                self._lines.insert_many(older)
            if self._insert(state.key, life, self._document(state, history[-1] if history else None)):
                return state
            self._lines.delete_many({"_id": {"$gt": _line_id(life, 0), "$lt": f"{life};"}})
        return self.adopt(state, history, program, attended)  # somebody else was first: it is there now

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def _insert(self, key: CampaignKey, life: str, document: Mapping[str, Any]) -> bool:
        """Begin a campaign; false where somebody else was first."""
        if not self._prepared:
            self._campaigns.create_indexes(list(_INDEXES))
            self._prepared = True
        place = {"tenant": self._tenant, "subject_type": key.subject_type, "subject_id": key.subject_id}
        try:
            self._campaigns.insert_one({"_id": self._id(key), "life": life, **place, "name": key.name, **document})
        except errors.DuplicateKeyError:
            return False
        return True

    def _settle(self, key: CampaignKey, document: Mapping[str, Any]) -> None:
        """Copy the newest line into the history, where it may be already."""
        if document["line"] is None:
            return
        try:
            self._lines.insert_one(self._line(key, document["life"], entry_from(document["line"])))
        except errors.DuplicateKeyError:
            return

    def _document(self, state: CampaignState, entry: HistoryEntry | None) -> dict[str, Any]:
        line = None if entry is None else entry_text(entry).decode()
        return {
            "version": state.version,
            "status": str(state.status),
            "state": state_text(state).decode(),
            "line": line,
        }

    def _line(self, key: CampaignKey, life: str, entry: HistoryEntry) -> dict[str, Any]:
        text = entry_text(entry).decode()
        return {"_id": _line_id(life, entry.version), "campaign": self._id(key), "line": text}

    def _version(self, key: CampaignKey) -> int:
        document = self._campaigns.find_one(self._id(key), {"version": 1})
        return 0 if document is None else int(document["version"])

    def _id(self, key: CampaignKey) -> str:
        return f"{self._tenant}:{key.id}"


def _line_id(life: str, version: int) -> str:
    """A line's place: the order of the ids of a life is the order of its versions."""
    return f"{life}:{version:016}"


@contextmanager
def _answering(consequence: str) -> Iterator[None]:
    """Errors of the client in our words: what to do, and what it means for the campaign."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(
            f"MongoDB does not answer as it should ({error}): start it, or correct its address; {consequence}."
        ) from error
    except errors.OperationFailure as error:
        if error.code not in _REFUSED:
            raise
        raise ConfigurationError(f"MongoDB refuses this login ({error}): correct the user and password.") from error

"""``HasMarketing``: campaigns on any Python object.

This module loads nothing of the product: the vocabulary, the engine, Cerberus and the condition language load
with the first call of :meth:`HasMarketing.marketing`.
"""

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from nexus_marketing.core.marketing import Marketing

_MANAGER: Final = "_marketing_manager"
_LOCKS: Final = tuple(RLock() for _ in range(64))
#: How objects of a library are told: an attribute of their class, one of that again, and who knows how to handle them.
_ADAPTERS: Final = (
    ("__mapper__", "class_manager", "nexus_marketing.subjects.sqlalchemy"),
    ("_meta", "concrete_model", "nexus_marketing.subjects.django"),
)


class HasMarketing:
    """Mix this into any class: its objects get campaigns.

    >>> class Product(HasMarketing):
    ...     marketing_config = {"campaigns": {"product_launch": {"channels": ["email"], "budget": 5000}}}
    >>> product = Product()
    >>> product.marketing().launch_campaign("product_launch").status
    <CampaignStatus.ACTIVE: 'active'>

    ``marketing_config`` is a mapping, a method that answers one, or a JSON column. State is kept in the
    attribute named by ``marketing_state_attribute``, under the key ``marketing`` of a dict, or in the
    storage that ``nexus_marketing.use_storage`` or ``nexus_marketing.connect`` set for the process.
    ``marketing_subject_type`` and ``marketing_subject_id`` say whose campaigns they are where the class
    name and ``id`` do not.
    """

    marketing_config: Any = None
    marketing_state_attribute: ClassVar[str] = "marketing_state"

    def __init_subclass__(cls, **options: Any) -> None:
        """Tell those who know a library's models of a new one, before it is mapped."""
        if any("registry" in vars(base) and "metadata" in vars(base) for base in cls.__mro__):
            import_module("nexus_marketing.subjects.sqlalchemy").prepare(cls)
        elif any(kind.__module__ == "django.db.models.base" for kind in type(cls).__mro__):
            import_module("nexus_marketing.subjects.django").prepare(cls)
        super().__init_subclass__(**options)

    def marketing(self) -> "Marketing":
        """The one manager of this object's campaigns (BR-007)."""
        manager = self.__dict__.get(_MANAGER)
        if manager is None or manager.subject is not self:  # a copy brings its original's manager along
            from nexus_marketing.core.marketing import Marketing  # noqa: PLC0415 - on first use

            with lock_of(self):
                manager = self.__dict__.get(_MANAGER)
                if manager is None or manager.subject is not self:
                    self.__dict__[_MANAGER] = manager = Marketing(self)
        found: Marketing = manager
        return found


def lock_of(subject: object) -> RLock:
    """What keeps two threads apart that change one object; never held while anything is waited for."""
    return _LOCKS[id(subject) // 16 % len(_LOCKS)]


def adapter_of(subject: Any) -> Any:
    """The module that knows this object's library, or nothing for an object of the user's own."""
    for mark, proof, module in _ADAPTERS:
        if hasattr(getattr(type(subject), mark, None), proof):
            return import_module(module)
    return None


def subject_identity(subject: Any) -> tuple[str, str]:
    """Type and id of an object: ``marketing_subject_type`` and ``_id``, else class name and primary key or ``id``.

    The id is empty where the object has none yet.
    """
    kind = str(getattr(subject, "marketing_subject_type", None) or type(subject).__name__)
    own = getattr(subject, "marketing_subject_id", None)
    if own is None:
        adapter = adapter_of(subject)
        if adapter is not None:
            return kind, adapter.identity(subject)
        own = getattr(subject, "id", None)
    value = own() if callable(own) else own
    return kind, "" if value is None else str(value)

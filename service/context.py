"""What a process holds open while it lives: settings, SQL, the blob store, and the count of requests."""

from __future__ import annotations

from dataclasses import dataclass

from service.bases.live_catalog import LiveCatalog
from service.catalog import load_catalog
from service.kit.db import Database
from service.kit.settings import Settings
from service.queue.base import RateLimiter
from service.queue.rates import RedisRates
from service.storage import open_storage
from service.storage.base import Storage
from service.storage.measured import MeasuredStorage


@dataclass(frozen=True)
class Context:
    """Made once a process; safe to share between threads."""

    settings: Settings
    db: Database
    storage: Storage
    hmac_key: bytes
    catalog: LiveCatalog
    rates: RateLimiter


def open_context(settings: Settings) -> Context:
    """Connect to what the settings name. Raises SettingsError if they are not enough."""
    access, secret = settings.storage_access_key, settings.storage_secret_key
    storage = open_storage(
        settings.storage,
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
    )
    db = Database(settings.database)
    return Context(
        settings=settings,
        db=db,
        storage=MeasuredStorage(storage),
        hmac_key=settings.hmac_key(),
        catalog=LiveCatalog(load_catalog(settings.catalog), db),
        rates=RedisRates(settings.redis),
    )

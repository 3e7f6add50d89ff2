"""What every domain stands on: settings, SQL, errors, ids, the outbox."""

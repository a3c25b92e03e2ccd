"""The conversation with the database, noun by noun; ``store.store`` shows the whole of it."""

"""What somebody takes next."""

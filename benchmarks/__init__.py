"""Programs that print tables; what they printed is in RESULTS.md. None of them runs in the tests."""

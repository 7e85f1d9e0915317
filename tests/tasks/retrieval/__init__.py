"""Tests of tasks about vectors of texts."""

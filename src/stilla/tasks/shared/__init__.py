"""What wings of tasks share: columns, labels, metrics, loading."""

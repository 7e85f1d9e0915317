"""Any model, whatever its task: its layer stacks, hidden states, head, config and content."""

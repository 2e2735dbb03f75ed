"""What was changed, is being changed, and can be taken back."""

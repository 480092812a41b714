"""What a run does after its search: a short list trained for a moment, fine-tuning."""

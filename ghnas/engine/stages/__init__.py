"""What a run does after its search: the short training of a short list, and fine-tuning."""

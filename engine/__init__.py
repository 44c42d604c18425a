"""What one rank does: data, model, training, generation, evaluation."""

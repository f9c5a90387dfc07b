"""Parameters of training, chosen by measuring: the largest batch that fits, batch and learning rate to a target loss."""

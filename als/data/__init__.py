"""Records, masks, augmentation and batches. Knows no model and no training."""

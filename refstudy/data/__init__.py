"""Data: RefScenes, the REFER loader, masks, words and batches."""

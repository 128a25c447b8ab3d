"""Detection's lineage, one file a system: from a regression head to Faster R-CNN and YOLO."""

"""refstudy: a reproducible study of referring image segmentation (S²RM + CASG, SLViT and what they are compared to)."""

"""HTML pages and charts of training and evaluation results."""

"""The accuracy and latency table: exports, validates and times a model in each way asked for, in one run."""

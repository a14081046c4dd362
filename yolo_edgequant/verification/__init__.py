"""The self-check: an INT8 model beside its float model, on images that were held back from calibration."""

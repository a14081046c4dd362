"""From a float model and images to one finished INT8 file, by the same verbs for both families of files."""

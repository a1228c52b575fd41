"""Programs of clients. The interpreter of an installation runs each as a file: they import nothing of this project."""

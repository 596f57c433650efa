"""One driver a library: it plays the script the way that the library's own documents say."""

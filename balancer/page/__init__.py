"""The page at `/`, for people with a browser: its files, as they are served. It needs no build and no network."""

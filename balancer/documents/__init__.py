"""Documents, whose texts are to be spoken: plain text, Markdown, EPUB and CSV."""

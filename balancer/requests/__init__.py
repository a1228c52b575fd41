"""Request bodies and their validation, up to the one SpeechRequest that all surfaces share."""

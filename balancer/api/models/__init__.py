"""The JSON responses of the API. The routes build them from these models, and `openapi` describes them by the same."""

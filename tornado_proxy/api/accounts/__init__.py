"""The REST routes of MeshAgent's clients, on the client port: one file for each concern (docs/rest_api.md)."""

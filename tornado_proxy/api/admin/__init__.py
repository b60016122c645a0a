"""The admin port: one file for each concern (docs/admin_api.md).  Its contract is schemas/admin.openapi.yaml."""

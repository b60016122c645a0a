"""HTTP requests to a provider over libcurl."""

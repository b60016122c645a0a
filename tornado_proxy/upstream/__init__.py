"""The way to the providers: HTTP exchanges over libcurl.  The only room that touches pycurl."""

"""The demo image: a web server that answers the name of the host it runs on."""

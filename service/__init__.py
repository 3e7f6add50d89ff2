"""The service: HTTP API, controller and worker around one SQL truth. It never imports torch."""

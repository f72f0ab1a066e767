"""The dashboard: what stored runs hold, in a browser on this machine."""

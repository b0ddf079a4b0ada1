"""l2overlay as a systemd service: the unit, and what keeps network managers away from our links.

The texts are files beside this module, so that the Debian package and `install-service` install the same ones.
"""

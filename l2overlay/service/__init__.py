"""l2overlay as a systemd service: the unit, and files that keep network managers away from the node's links.

The files are beside this module, so that the Debian package and `install-service` install the same ones.
"""

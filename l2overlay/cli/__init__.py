"""The command line. `main` runs a verb, one module each; `target` finds the node to ask, and `output` prints.

To add a verb, write its module and add one line to `main.VERBS`. Only this package prints.
"""

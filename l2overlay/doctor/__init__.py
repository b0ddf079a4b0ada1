"""`l2overlay doctor` without its printing: why do frames not arrive?

    observer   reads this network namespace        ->  HostView
    diagnosis  HostView  ->  [Finding]             pure, check by check
    repair     runs the commands of those findings that are safe

A check looks at what was observed and nowhere else, so every cause can be told in a test without a host.
"""

`l2overlay completion bash|zsh|fish` prints a script that completes verbs, options, and the names of segments and peers. The
Debian package installs it, and a man page for each verb.

`make deb` makes a Debian package, and `make dist` a wheel and an sdist. The version comes from the last tag.

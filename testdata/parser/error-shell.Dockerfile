FROM a
SHELL
SHELL []
SHELL /bin/sh -c

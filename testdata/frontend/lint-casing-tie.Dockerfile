FROM busybox
from scratch AS b
Run x

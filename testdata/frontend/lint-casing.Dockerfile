FROM busybox as Base
run echo x
Env A=1
from base AS context

FROM busybox AS Base
FROM Base
